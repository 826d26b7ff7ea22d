"""Lung bases, heart and gullet: what the top slices of an abdominal scan show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attentus.data.phantom.shapes import ellipsoid, smooth_path, times, tube, turn, union
from attentus.data.phantom.trees import grow

if TYPE_CHECKING:
    from numpy.random import Generator

    from attentus.data.phantom.canvas import Canvas
    from attentus.data.phantom.contrast import Contrast
    from attentus.data.phantom.shapes import Array, Points, Rod, Vector
    from attentus.data.phantom.spine import Spine
    from attentus.data.phantom.trunk import Body


@dataclass(frozen=True)
class Chest:
    """Lungs, heart and gullet."""

    body: Body
    spine: Spine
    contrast: Contrast
    heart: Vector
    """Centre of the heart, mm."""
    size: float
    vessels: list[Rod]

    @classmethod
    def draw(cls, rng: Generator, body: Body, spine: Spine, contrast: Contrast) -> Chest:
        """Another chest."""
        heart = (22 + rng.normal(0, 4), -72 + rng.normal(0, 3), body.right_dome + rng.uniform(24, 32))
        vessels = []
        for side in (-1, 1):
            tissue = rng.uniform((18, -85, 10), (112, 50, 190), (200, 3)) * (side, 1, 1)
            stem = [(side * 34, -18, 200), (side * 50, -8, 150), (side * 66, 10, 100)]
            vessels += grow([stem], tissue, 5.0, 0.7, step=15)
        return cls(body, spine, contrast, heart, float(rng.uniform(0.9, 1.1)), vessels)

    def paint(self, canvas: Canvas) -> None:
        """Lungs first, then what lies between them."""
        part = canvas.window((-200, -200, -20), (200, 200, 400), "firm")
        if part is None:
            return
        above = np.maximum(part.wall + 2.5, 1.3 - part.under)
        lungs = np.maximum(above, -self._between(part.firm))
        part.paint(lungs, self.contrast["lung"] + 0.5 * np.clip(part.firm.y, -80, 60))
        part.paint_rods(self.vessels, self.contrast["lung vessel"], within=lungs + 1)
        self._heart(part)
        self._gullet(part)

    def _between(self, at: Points) -> Array:
        """The mediastinum: a pillar of fat in front of the spine, and the bag of the heart."""
        x, y = self.spine.centre(at.z)
        pillar = np.sqrt(((at.x - x - 4) / 27) ** 2 + ((at.y - y + 12) / 30) ** 2)
        bag = ellipsoid(at, self.heart, times((66, 56, 60), self.size), HEART_POSE)
        front = ellipsoid(at, (6, -118, self.heart[2]), (30, 40, 70))
        return union(union((pillar - 1) * 27, bag, 16), front, 16)

    def _heart(self, canvas: Canvas) -> None:
        """Muscle around two ventricles and two atria, resting on the diaphragm."""
        part = canvas.around(self.heart, 90, "firm")
        if part is None:
            return
        at, (x, y, z) = part.firm, self.heart
        floor = np.maximum(2 - part.under, part.wall + 6)
        shape = np.maximum(ellipsoid(at, self.heart, times((53, 42, 46), self.size), HEART_POSE), floor)
        muscle, blood = self.contrast["heart muscle"], self.contrast["heart blood"]
        part.paint(shape, muscle)
        for offset, radii, share in CHAMBERS:
            dx, dy, dz = times(offset, self.size)
            cavity = ellipsoid(at, (x + dx, y + dy, z + dz), times(radii, self.size), HEART_POSE)
            part.paint(np.maximum(cavity, shape + 3), muscle + share * (blood - muscle))

    def _gullet(self, canvas: Canvas) -> None:
        path = smooth_path([(8, -24, 220), (9, -32, 130), (14, -42, 85), (24, -46, 66)])
        path[:, 1] += self.spine.centre(path[:, 2])[1] * 0.8
        part = canvas.along(path, 14, "firm")
        if part is not None:
            shape = tube(part.firm, path, np.full(len(path), 7.5))
            part.paint(shape, self.contrast["gut wall"])
            part.paint(shape + 5, self.contrast["gut fluid"] - 25)


HEART_POSE = turn("z", 32) @ turn("y", 12)
CHAMBERS: tuple[tuple[Vector, Vector, float], ...] = (
    ((18, 8, -2), (30, 17, 25), 1.0),
    ((-6, -20, -2), (33, 13, 25), 0.8),
    ((-34, 8, 8), (16, 24, 25), 0.7),
    ((-4, 33, 14), (24, 11, 16), 1.0),
)
"""Left and right ventricle, right and left atrium: place in the heart, radii (mm), and enhancement of the blood."""
