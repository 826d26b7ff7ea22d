"""Skin, fat and muscles of the trunk, painted from the outside in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attentus.data.phantom.shapes import Array, Points, smooth_path, tube, union
from attentus.data.phantom.trunk import Polar

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from attentus.data.phantom.canvas import Canvas
    from attentus.data.phantom.contrast import Contrast
    from attentus.data.phantom.spine import Spine
    from attentus.data.phantom.texture import Grain
    from attentus.data.phantom.trunk import Body


@dataclass(frozen=True)
class Wall:
    """Everything between the skin and the organs."""

    body: Body
    spine: Spine
    contrast: Contrast
    grain: Grain

    def paint(self, canvas: Canvas) -> None:
        """The wall; also fills in the canvas's coordinates relative to wall and diaphragm."""
        polar = Polar.of(canvas.firm)
        skin, fascia = self.body.skin.distance(polar), self.body.fascia.distance(polar)
        canvas.angle[...] = polar.angle
        canvas.wall[...] = self.body.cavity.distance(polar)
        canvas.paint(skin, self.contrast["skin"])
        canvas.paint(skin + 2, self.contrast["fat"])
        canvas.paint(fascia, self.contrast["muscle"])
        self._layers(canvas, fascia, np.abs(polar.angle))
        canvas.paint(canvas.wall, self.contrast["fat"])
        self._back(canvas)
        canvas.under[...] = self.body.under(canvas.firm)
        canvas.paint(np.maximum(np.abs(canvas.under) - 0.9, canvas.wall), self.contrast["muscle"])
        np.negative(np.maximum(canvas.wall, canvas.under + 0.6), out=canvas.taken)
        self._loins(canvas)

    def _layers(self, canvas: Canvas, fascia: Array, turned: Array) -> None:
        """Thin sheets of fat between the three flat muscles of the flank, and the white line in front."""
        ring = (canvas.wall > 0) & (fascia < 0) & (canvas.firm.z < 20) & (turned > 66)
        inner, turned = canvas.wall[ring], turned[ring]
        thick = np.maximum(inner - fascia[ring], 1)
        depth = inner / thick
        flank = np.clip((turned - 66) / 10, 0, 1) * np.clip((130 - turned) / 10, 0, 1)
        flank *= np.clip((20 - canvas.firm.z[ring]) / 30, 0, 1)
        sheet = np.minimum(np.abs(depth - 0.3), np.abs(depth - 0.66)) * thick - 0.35 * np.sqrt(self.body.fat)
        canvas.paint_some(ring, sheet + 3 * (1 - flank), self.contrast["fat"], strength=0.7)
        white = np.where(turned > 150, np.abs(canvas.firm.x[ring]) - 2.2, 9)
        canvas.paint_some(ring, white, self.contrast["fat"], strength=0.55)

    def _back(self, canvas: Canvas) -> None:
        """The muscles along the spine, parted by fat, and the cleft between them."""
        part = canvas.window((-85, 10, -300), (85, 110, 300), "firm")
        if part is None:
            return
        x, y = self.spine.centre(part.firm.z)
        side = Points(np.abs(part.firm.x - x), part.firm.y - 0.5 * y, part.firm.z)
        chest = np.clip((part.firm.z - 20) / 60, 0, 1)
        long = _pillar(side, (40 - 4 * chest, 56), (27, 22 - 3 * chest), 12)
        deep = _pillar(side, (15, 54), (12, 20), 0)
        seam = np.minimum(np.abs(long), np.abs(deep)) - 0.5 * np.sqrt(self.body.fat)
        inside = np.maximum(-part.wall, union(long, deep, 4) - 1)
        part.paint(np.maximum(seam, inside), self.contrast["fat"], strength=0.65)
        streaks = self.grain.at(Points(part.firm.x, part.firm.y, part.firm.z * 0.2), 4)
        fatty = np.clip(streaks - 1.6, 0, 1) * min(1.0, 0.5 * self.body.fat)
        part.paint(np.maximum(union(long, deep, 4) + 2, -part.wall), self.contrast["muscle"] - 150 * fatty)
        gap = np.maximum(side.x - 1.0 - 0.12 * np.clip(part.firm.y - 66, 0, 30), 60 - part.firm.y)
        part.paint(np.maximum(gap, part.firm.y - 100), self.contrast["fat"], strength=0.5)

    def _loins(self, canvas: Canvas) -> None:
        """Psoas and quadratus lumborum beside the lumbar spine, and the crura of the diaphragm in front of it."""
        for side in (-1, 1):
            path = smooth_path([(side * x, y, z, r) for x, y, z, r in _PSOAS])
            self._muscle(canvas, path, 0.8)
            path = smooth_path([(side * x, y, z, r) for x, y, z, r in _CRUS])
            self._muscle(canvas, path, 0.7)
        part = canvas.window((-100, 0, -300), (100, 80, 30), "firm")
        if part is not None:
            lens = 1 - np.square((np.abs(part.firm.x) - 58) / 26)
            thick = np.clip((25 - part.firm.z) * 0.25, 0, 12) * np.maximum(lens, -1)
            shape = np.maximum(-part.wall - thick, part.wall - 3)
            part.paint(shape, self.contrast["muscle"])
            part.claim(shape - 1.5)

    def _muscle(self, canvas: Canvas, path: NDArray[np.float64], flat: float) -> None:
        """A muscle along a path (n, 4: x, y, z and radius), narrower from side to side."""
        x, y = self.spine.centre(path[:, 2])
        path = path + np.stack([x, y, 0 * x, 0 * x], axis=1)
        part = canvas.along(path, 32, "firm")
        if part is not None:
            squeeze = np.array([1 / flat, 1, 1, 1])
            at = Points.of(part.firm.x / np.float32(flat), part.firm.y, part.firm.z)
            shape = tube(at, (path * squeeze)[:, :3], path[:, 3]) * np.float32(flat)
            part.paint(shape, self.contrast["muscle"])
            part.claim(shape - 2)


_PSOAS = ((21, 4, 10, 4), (27, 6, -30, 11), (35, 4, -75, 16.5), (43, -6, -120, 20), (53, -22, -170, 21))
"""Centre line and radius of the right or left psoas, relative to the spine; mm."""
_CRUS = ((10, -19, -45, 2), (13, -21, -10, 5), (15, -24, 20, 6), (14, -32, 45, 5), (9, -42, 62, 3))


def _pillar(at: Points, centre: tuple[Array | float, float], radii: tuple[float, Array | float], lean: float) -> Array:
    """Distance to an upright oval column whose long axis leans by some degrees."""
    c, s = np.float32(np.cos(np.radians(lean))), np.float32(np.sin(np.radians(lean)))
    x, y = at.x - centre[0], at.y - centre[1]
    u, v = (c * x + s * y) / radii[0], (c * y - s * x) / radii[1]
    oval: Array = (np.sqrt(u * u + v * v) - 1) * np.float32(min(np.min(r) for r in radii))
    return oval
