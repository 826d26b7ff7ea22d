"""Tumours of the liver: metastases and hypervascular tumours, from 3 to 60 mm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attentus.data.phantom.shapes import ellipsoid, times, turn

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from attentus.data.phantom.canvas import Canvas
    from attentus.data.phantom.liver import Liver
    from attentus.data.phantom.shapes import Array, Vector
    from attentus.data.phantom.texture import Grain

TUMOUR = 2

CONTRAST = {
    "metastasis": {"native": (-26, -15), "arterial": (-38, -20), "portal": (-62, -32), "delayed": (-40, -22)},
    "hypervascular": {"native": (-22, -14), "arterial": (35, 70), "portal": (-32, -20), "delayed": (-34, -20)},
}
"""Hounsfield units above the liver by kind and phase, least and greatest."""


@dataclass(frozen=True)
class Tumour:
    """One tumour with an uneven outline, perhaps with a rim or a dead core."""

    kind: str
    centre: Vector
    radius: float
    stretch: Vector
    """Radii relative to `radius`."""
    pose: NDArray[np.float64]
    rough: float
    """Unevenness of the outline, share of the radius."""
    contrast: float
    """Hounsfield units above the liver."""
    rim: float
    """Hounsfield units of the rim above the rest; 0 for none."""
    core: float
    """Radius of the dead core, share of the radius; 0 for none."""

    @classmethod
    def draw(cls, rng: Generator, centre: Vector, radius: float, phase: str) -> Tumour:
        """Another tumour at a place."""
        kind = "metastasis" if rng.uniform() < 0.75 else "hypervascular"
        enhanced = phase != "native"
        stretch = rng.uniform(0.85, 1.2, 3)
        return cls(
            kind,
            centre,
            radius,
            tuple(stretch / np.cbrt(stretch.prod())),
            turn("z", rng.uniform(0, 360)) @ turn("x", rng.uniform(0, 360)),
            float(rng.uniform(0.04, 0.14)),
            float(rng.uniform(*CONTRAST[kind][phase])),
            float(rng.uniform(12, 26)) if enhanced and radius > 4 and rng.uniform() < 0.35 else 0.0,
            float(rng.uniform(0.4, 0.65)) if radius > 11 and rng.uniform() < 0.5 else 0.0,
        )

    def paint(self, canvas: Canvas, liver: Array, background: float, grain: Grain) -> None:
        """The tumour (label 2) where it lies inside the liver (a distance on the same canvas)."""
        room = 1.6 * self.radius + 3
        box = canvas.soft.find([c - room for c in self.centre], [c + room for c in self.centre])
        if box is None:
            return
        part, at = canvas[box], canvas.soft[box]
        shape = ellipsoid(at, self.centre, times(self.stretch, self.radius), self.pose)
        shape += self.rough * self.radius * grain.at(at, 0.9 * self.radius + 3)
        inside = np.maximum(shape, liver[box] + 0.5)
        tone = background + self.contrast
        part.paint(inside, tone + self.rim, TUMOUR)
        if self.rim:
            part.paint(inside + max(1.5, 0.18 * self.radius), tone)
        if self.core:
            dead = shape + (1 - self.core) * self.radius
            part.paint(np.maximum(dead, inside + 2), min(tone - 8, 24.0))


def draw_tumours(rng: Generator, liver: Liver, phase: str, sizes: tuple[float, float] | None = None) -> list[Tumour]:
    """None in one patient of six, up to ten in others; many of them are small.

    Args:
        rng: draws them.
        liver: where they grow.
        phase: of the contrast.
        sizes: least and largest diameter, mm; then there is at least one.
    """
    count = int(
        rng.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 10], p=[0.17, 0.2, 0.17, 0.13, 0.09, 0.07, 0.06, 0.05, 0.03, 0.03])
    )
    smallest, largest = 3.0, rng.choice([14.0, 30.0, 60.0], p=[0.25, 0.45, 0.3])
    if sizes:
        count, (smallest, largest) = max(1, count), sizes
    tumours: list[Tumour] = []
    for diameter in sorted(np.exp(rng.uniform(np.log(smallest), np.log(largest), count)), reverse=True):
        centre = _place(rng, liver, diameter / 2, tumours)
        if centre is not None:
            tumours.append(Tumour.draw(rng, centre, float(diameter / 2), phase))
    return tumours


def _place(rng: Generator, liver: Liver, radius: float, others: list[Tumour]) -> Vector | None:
    """A point about as deep in the liver as the tumour is thick, apart from the other tumours."""
    near = rng.permutation(liver.tissue)[:60]
    for point in near[liver.depth(near) > 0.8 * radius + 1]:
        if all(np.linalg.norm(point - o.centre) > 1.3 * (radius + o.radius) + 3 for o in others):
            return float(point[0]), float(point[1]), float(point[2])
    return None
