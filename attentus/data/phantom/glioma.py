"""A glioma: an enhancing rim around a dead core, swelling of the white matter, and the room it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attentus.data.phantom.shapes import Array, Points, coverage, ellipsoid, times, turn
from attentus.data.phantom.texture import Grain

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from attentus.data.phantom.cerebrum import Healthy
    from attentus.data.phantom.shapes import Vector

OEDEMA, CORE, ENHANCING = 1, 2, 3

SIGNALS = {
    "oedema": (1.0, 0.55, 0.57, 0.86),
    "core": (0.78, 0.42, 0.42, 0.92),
    "enhancing": (0.80, 0.56, 1.25, 0.70),
    "necrosis": (0.48, 0.30, 0.30, 1.02),
}
"""Signal of FLAIR, T1w, T1w after gadolinium and T2w, on the scale of `cerebrum.TISSUES`; in the order of painting."""


@dataclass(frozen=True)
class Glioma:
    """One tumour."""

    centre: Vector
    radius: float
    """Of the tumour without oedema, mm."""
    stretch: Vector
    """Radii relative to `radius`."""
    pose: NDArray[np.float64]
    spread: float
    """How far the oedema reaches beyond the tumour, mm."""
    rim: float
    """Thickness of the enhancing rim, mm; 0 in a tumour that does not enhance."""
    push: float
    """How much it displaces the brain around it, 0..1."""
    grain: Grain

    @classmethod
    def draw(cls, rng: Generator) -> Glioma:
        """Another tumour, deep in one hemisphere; one in seven does not enhance."""
        side = rng.choice([-1, 1])
        centre = (float(side * rng.uniform(24, 42)), float(rng.uniform(-44, 46)), float(rng.uniform(4, 36)))
        radius = float(np.exp(rng.uniform(np.log(8), np.log(25))))
        return cls._at(rng, centre, radius, enhancing=rng.uniform() < 0.86)

    @classmethod
    def satellite(cls, rng: Generator, main: Glioma) -> Glioma:
        """A smaller tumour in the same hemisphere."""
        x, y, z = main.centre
        away = (main.radius + 14) * (-1 if y > 0 else 1)
        return cls._at(rng, (x, y + away, z + float(rng.uniform(-10, 10))), main.radius * 0.45, enhancing=main.rim > 0)

    @classmethod
    def _at(cls, rng: Generator, centre: Vector, radius: float, *, enhancing: bool) -> Glioma:
        stretch = rng.uniform(0.8, 1.25, 3)
        x, y, z = (float(c) for c in stretch / np.cbrt(stretch.prod()))
        return cls(
            centre,
            radius,
            (x, y, z),
            turn("z", rng.uniform(0, 360)) @ turn("x", rng.uniform(0, 360)),
            float(rng.uniform(6, 20)),
            float(rng.uniform(2.2, 0.2 * radius + 3)) if enhancing else 0.0,
            float(rng.uniform(0.15, 0.45)),
            Grain.draw(rng),
        )

    def displace(self, at: Points) -> Points:
        """Where the tissue at these points would lie without the tumour."""
        x, y, z = (c - np.float32(o) for c, o in zip((at.x, at.y, at.z), self.centre, strict=True))
        near = np.exp(-(x * x + y * y + z * z) / np.float32((1.7 * self.radius) ** 2)) * np.float32(self.push)
        return Points(at.x - near * x, at.y - near * y, at.z - near * z)

    def paint(self, at: Points, healthy: Healthy, labels: NDArray[np.uint8], width: float) -> None:
        """Add the tumour to the signals of a brain and to labels (points); `width` is the size of a voxel, mm."""
        away = [np.abs(c - np.float32(o)) for c, o in zip((at.x, at.y, at.z), self.centre, strict=True)]
        near = np.flatnonzero(np.maximum.reduce(away) < 2.2 * self.radius + self.spread + 10)
        at = at.row(near)
        fluid, barrier = healthy.fluid[near], healthy.barrier[near]
        core = np.maximum(self._shape(at), -barrier)
        swelling = np.maximum(self._swelling(at, core, healthy.white[near], fluid), -barrier)
        inner = core + self.rim * (1 + 0.45 * self.grain.at(at, 11))
        marks = labels[near]
        other = marks >= CORE  # of a tumour painted before, which this one's oedema leaves alone
        marks[swelling < 0] = np.maximum(marks[swelling < 0], OEDEMA)
        marks[core < 0] = CORE
        marks[(core < 0) & (inner > 0)] = ENHANCING
        labels[near] = marks
        whole, edge = coverage(core, width), coverage(inner, width)
        soft = np.maximum(coverage(swelling, 2.5 * width) * (1 - fluid) * ~other, whole)
        dead = coverage(inner + 1, 3 * width) if self.rim else np.zeros_like(core)
        tone = 1 + 0.06 * self.grain.at(at, 10)
        for levels, share in zip(SIGNALS.values(), (soft, whole, whole * (1 - edge), dead), strict=True):
            for channel, level in enumerate(levels):
                before = healthy.signals[channel, near]
                healthy.signals[channel, near] = before + share * (np.float32(level) * tone - before)

    def _shape(self, at: Points) -> Array:
        """Distance to the tumour without oedema; uneven at two scales."""
        distance = ellipsoid(at, self.centre, times(self.stretch, self.radius), self.pose)
        coarse = 0.13 * self.radius * self.grain.at(at, 0.8 * self.radius + 5)
        uneven: Array = distance + coarse + 0.9 * self.grain.at(at, 7)
        return uneven

    def _swelling(self, at: Points, core: Array, white: Array, fluid: Array) -> Array:
        """Distance to the oedema: fingers along white matter, little in the cortex, none in fluid."""
        fingers = self.spread * (0.7 + 0.3 * self.grain.at(at, 20))
        reach = fingers * (0.15 + 0.85 * white)
        swelling: Array = np.minimum(np.maximum(core - reach, 8 * (fluid - 0.5)), core)
        return swelling
