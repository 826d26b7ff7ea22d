"""Spleen, kidneys, adrenal glands and pancreas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attentus.data.phantom.shapes import (
    Points,
    blobs,
    capsule,
    ellipsoid,
    local,
    overlap,
    smooth_path,
    tube,
    turn,
    union,
)

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from attentus.data.phantom.canvas import Canvas
    from attentus.data.phantom.contrast import Contrast
    from attentus.data.phantom.shapes import Array, Vector
    from attentus.data.phantom.texture import Grain
    from attentus.data.phantom.trunk import Body

SPLEEN, RIGHT_KIDNEY, LEFT_KIDNEY, PANCREAS = 3, 4, 5, 6


@dataclass(frozen=True)
class Spleen:
    """A crescent that lines the wall and the diaphragm at the back of the left side."""

    body: Body
    contrast: Contrast
    grain: Grain
    centre: Vector
    radii: Vector
    thick: float

    @classmethod
    def draw(cls, rng: Generator, body: Body, contrast: Contrast, grain: Grain) -> Spleen:
        """Another spleen; one in twelve is large."""
        size = rng.uniform(0.85, 1.12) if rng.uniform() > 0.08 else rng.uniform(1.2, 1.35)
        centre = (88 * body.width, 8 + rng.normal(0, 4), body.left_dome - 32 + rng.normal(0, 5))
        radii = (50 * size, 48 * size, 52 * size)
        return cls(body, contrast, grain, centre, radii, float(rng.uniform(34, 42) * size))

    def paint(self, canvas: Canvas) -> None:
        """The spleen (label 3); mottled in the arterial phase."""
        part = canvas.around(self.centre, 85)
        if part is None:
            return
        at = part.soft
        whole = ellipsoid(at, self.centre, self.radii, turn("x", 24) @ turn("y", -16))
        lining = -self.thick - np.maximum(part.wall, part.under)
        shape = part.fit(overlap(whole, lining, 14), 0)
        strength = 20 if self.contrast.phase == "arterial" else 2
        part.paint(shape, self.contrast["spleen"] + strength * self.grain.at(at, 13), SPLEEN)
        part.claim(shape - 0.5)


@dataclass(frozen=True)
class Kidney:
    """A bean with cortex, pyramids, and a sinus of fat that holds the renal pelvis."""

    side: int
    """-1 right, 1 left."""
    contrast: Contrast
    centre: Vector
    """For a left kidney; a right one is its mirror image."""
    radii: Vector
    pose: NDArray[np.float64]
    sinus: float
    """Scale of the sinus."""
    urine: float
    """Scale of the renal pelvis."""

    @classmethod
    def draw(cls, rng: Generator, side: int, body: Body, contrast: Contrast) -> Kidney:
        """Another kidney; the right one sits lower."""
        size = rng.uniform(0.93, 1.1)
        x = 57 * (0.5 + 0.5 * body.width) + rng.normal(0, 2)
        centre = (x, 7 + rng.normal(0, 3), (-2 if side > 0 else -16) + rng.normal(0, 5))
        radii = (28 * size, 23.5 * size, (53 + rng.normal(0, 2)) * size)
        pose = turn("z", 28 + rng.normal(0, 6)) @ turn("y", -9 + rng.normal(0, 3)) @ turn("x", 10 + rng.normal(0, 3))
        return cls(side, contrast, centre, radii, pose, float(rng.uniform(0.85, 1.15)), float(rng.uniform(0.7, 1.1)))

    def paint(self, canvas: Canvas) -> None:
        """The kidney (label 4 right, 5 left) without its sinus."""
        x, y, z = self.centre
        part = canvas.window((self.side * x - 46, y - 42, z - 66), (self.side * x + 46, y + 42, z + 66))
        if part is None:
            return
        at = part.soft
        bean = self._bean(at)
        outer = overlap(ellipsoid(bean, (0, 0, 0), self.radii), 1 - part.taken, 5)
        hollow = self._sinus(bean)
        shape = overlap(outer, -hollow, 3)
        part.paint(shape, self.contrast["renal cortex"], LEFT_KIDNEY if self.side > 0 else RIGHT_KIDNEY)
        part.paint(np.maximum(self._pyramids(bean), np.maximum(shape + 1, outer + 5)), self.contrast["renal medulla"])
        part.paint(np.maximum(hollow + 0.5, outer), self.contrast["fat"])
        part.paint(np.maximum(self._pelvis(bean), hollow + 1), self.contrast["urine"])
        part.claim(outer - 3)

    def _bean(self, at: Points) -> Points:
        """Coordinates along the kidney: away from the hilum, to the back, to the head; the poles bend inwards."""
        mirrored = Points(at.x * self.side, at.y, at.z)
        u, v, w = local(mirrored, self.centre, self.pose)
        return Points(u + 0.0026 * w * w, v, w)

    def _sinus(self, bean: Points) -> Array:
        s = self.sinus
        inner = ellipsoid(bean, (-9, 0, 0), (11 * s, 6.5 * s, 22 * s))
        return union(inner, ellipsoid(bean, (-25, 0, 0), (13, 7 * s, 15 * s)), 5)

    def _pyramids(self, bean: Points) -> Array:
        ru, rv, rw = self.radii
        centres = [
            (0.55 * ru * np.cos(angle) - 2, row * rv, 0.62 * rw * np.sin(angle))
            for row in (-0.33, 0.33)
            for angle in np.radians(np.linspace(-150, 150, 8) + 60 * row)
        ]
        return blobs(bean, centres, (8.5, 7.5, 7.5))

    def _pelvis(self, bean: Points) -> Array:
        """The renal pelvis and three pairs of calyces."""
        s = self.urine
        distance = ellipsoid(bean, (-20, 1, -3), (11 * s, 3.6 * s, 7 * s))
        for w, u in ((17, -7), (0, -2), (-17, -7)):
            distance = union(distance, capsule(bean, (-18, 1, -2), (u, 0, w), (2.4 * s, 3.2 * s)), 3)
        return distance


@dataclass(frozen=True)
class Pancreas:
    """From the duodenum across the midline to the hilum of the spleen."""

    contrast: Contrast
    grain: Grain
    path: NDArray[np.float64]
    """(n, 4): centre line and radius, mm."""
    lobules: float
    """Depth of the clefts between lobules, mm; more in the old and the obese."""

    @classmethod
    def draw(cls, rng: Generator, body: Body, contrast: Contrast, grain: Grain) -> Pancreas:
        """Another pancreas."""
        knots = np.array(_PANCREAS) + np.append(rng.normal(0, 2.5, 3), 0)
        knots[3:, 2] += rng.normal(4, 7) * np.linspace(0.2, 1, len(knots) - 3)
        knots[:, 0] *= 0.4 + 0.6 * body.width
        knots[:, 3] *= rng.uniform(0.92, 1.18)
        return cls(contrast, grain, smooth_path(knots), float(rng.uniform(0.6, 1.2) + 0.25 * body.fat))

    def paint(self, canvas: Canvas) -> None:
        """The pancreas (label 6), taller than deep."""
        part = canvas.along(self.path, 30)
        if part is None:
            return
        tall = np.float32(0.72)
        at = Points.of(part.soft.x, part.soft.y, part.soft.z * tall)
        shape = tube(at, self.path[:, :3] * (1, 1, float(tall)), self.path[:, 3])
        near = np.flatnonzero(shape < 6)
        grain = np.zeros(shape.shape, np.float32)
        grain.ravel()[near] = self.grain.at(at.row(near), 8)
        shape = part.fit(shape + self.lobules * grain, 1)
        part.paint(shape, self.contrast["pancreas"] - 2 * self.lobules * np.clip(grain, -1, 3), PANCREAS)
        part.claim(shape - 1)


_PANCREAS = (
    (-27, -43, -34, 9), (-26, -47, -18, 13.5), (-22, -52, -4, 13), (-5, -61, 6, 8.5), (17, -60, 14, 9),
    (40, -46, 21, 9.5), (60, -26, 28, 10), (76, -10, 34, 7),
)  # fmt: skip
"""Uncinate process, head, neck, body, tail."""


@dataclass(frozen=True)
class Adrenals:
    """Two small glands above the kidneys, each an upside-down Y."""

    contrast: Contrast

    def paint(self, canvas: Canvas) -> None:
        """Both glands."""
        for body, limbs in _ADRENALS:
            part = canvas.around(body, 32)
            if part is None:
                continue
            shape = capsule(part.soft, body, limbs[0], (2.6, 2.0))
            for limb in limbs[1:]:
                shape = union(shape, capsule(part.soft, body, limb, (2.6, 1.9)), 2)
            shape = part.fit(shape, 0.5)
            part.paint(shape, self.contrast["adrenal"])
            part.claim(shape - 1)


_ADRENALS: tuple[tuple[Vector, tuple[Vector, ...]], ...] = (
    ((-29, -16, 46), ((-26, -22, 54), (-33, -2, 38), (-38, -8, 36))),
    ((33, -22, 36), ((34, -28, 44), (30, -8, 30), (44, -12, 28))),
)
