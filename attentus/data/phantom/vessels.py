"""Aorta, inferior vena cava, and the branches everybody looks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attentus.data.phantom.shapes import smooth_path, tube

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.random import Generator
    from numpy.typing import NDArray

    from attentus.data.phantom.canvas import Canvas
    from attentus.data.phantom.contrast import Contrast
    from attentus.data.phantom.shapes import Array
    from attentus.data.phantom.spine import Spine
    from attentus.data.phantom.texture import Grain

AORTA_LABEL = 7

Knots = tuple[tuple[float, float, float, float], ...]

# Paths are (x, y, z, radius) in mm; x and y of arteries and cava are relative to the centre of the spine.
AORTA: Knots = (
    (24, -8, 230, 12.5), (22, -10, 160, 12), (15, -22, 90, 11.5), (10, -30, 45, 11), (8, -32, 0, 9.6),
    (5, -33, -60, 8.8), (3, -34, -112, 8.4),
)  # fmt: skip
ILIAC: Knots = ((3, -34, -112, 6.4), (14, -33, -128, 5.6), (28, -26, -165, 5.2), (40, -20, -200, 5))
CAVA: Knots = (
    (-10, -34, -200, 8), (-17, -32, -120, 9.5), (-20, -30, -60, 10), (-21, -31, 0, 11), (-23, -37, 45, 12),
    (-22, -47, 90, 12.5), (-21, -62, 116, 13.5), (-20, -72, 136, 15),
)  # fmt: skip
ARTERIES: tuple[Knots, ...] = (
    ((9, -38, 34, 4), (9, -48, 38, 3.6), (9, -55, 37, 3.4)),  # coeliac trunk
    ((9, -55, 37, 3), (26, -50, 42, 2.8), (44, -38, 36, 2.6), (60, -18, 42, 2.4), (76, -4, 46, 2.2)),  # splenic
    ((9, -55, 37, 3), (-8, -58, 32, 2.6), (-24, -60, 30, 2.4), (-34, -60, 36, 2.2)),  # common hepatic
    (
        (8, -38, 18, 3.8),
        (5, -52, 10, 3.8),
        (3, -58, -20, 3.6),
        (0, -62, -60, 3.2),
        (-4, -66, -100, 2.8),
    ),  # sup. mesenteric
    ((14, -32, 0, 3), (26, -18, 0, 2.8), (40, 4, -2, 2.6)),  # left renal
    ((2, -32, 2, 3), (-12, -20, -2, 2.8), (-26, -12, -8, 2.6), (-40, 4, -14, 2.6)),  # right renal
)
VEINS: tuple[Knots, ...] = (
    ((-20, -38, 0, 5), (-4, -45, 2, 4.6), (14, -45, 2, 5), (26, -30, 0, 5.2), (40, 2, -4, 4.6)),  # left renal
    ((-24, -30, -8, 5), (-32, -14, -12, 5), (-41, 3, -16, 4.6)),  # right renal
)
PORTAL: tuple[Knots, ...] = (
    ((-12, -68, -110, 4.6), (-9, -62, -60, 5), (-7, -58, -24, 5.4), (-9, -53, 2, 6.4)),  # superior mesenteric
    ((84, -6, 36, 4), (62, -18, 29, 4.4), (40, -38, 22, 4.8), (16, -51, 13, 5.2), (-9, -53, 2, 6)),  # splenic
    ((-9, -53, 2, 6.8), (-22, -52, 14, 7), (-34, -54, 26, 7)),  # portal
)


@dataclass(frozen=True)
class GreatVessels:
    """The large vessels in front of the spine."""

    spine: Spine
    contrast: Contrast
    grain: Grain
    width: float
    """Scale of the aorta's calibre."""
    plaque: float
    """How much of its wall is calcified, 0..1."""
    sway: float
    """How far it bends to the left, mm."""

    @classmethod
    def draw(cls, rng: Generator, spine: Spine, contrast: Contrast, grain: Grain) -> GreatVessels:
        """Young and straight, or old, wide and calcified."""
        age = float(rng.uniform())
        width = 0.92 + 0.3 * age + float(rng.normal(0, 0.04))
        return cls(spine, contrast, grain, width, max(0.0, age - 0.45), float(rng.normal(0, 2)) + 6 * age)

    def paint(self, canvas: Canvas) -> None:
        """Aorta (label 7) and arteries first, then the veins that run past them."""
        aorta = self._beside_spine(AORTA)
        aorta[:, 0] += self.sway * np.sin(np.clip((aorta[:, 2] + 112) / 130, 0, np.pi))
        aorta[:, 3] *= self.width
        self._tube(canvas, aorta, "artery", AORTA_LABEL)
        for side in (-1, 1):
            self._tube(canvas, self._beside_spine([(3 + side * (x - 3), y, z, r) for x, y, z, r in ILIAC]), "artery")
        for artery in ARTERIES:
            self._tube(canvas, self._beside_spine(artery), "artery")
        for vein in VEINS:
            self._tube(canvas, self._beside_spine(vein), "renal vein")
        for vein in PORTAL:
            self._tube(canvas, smooth_path(vein), "portal vein", frame="soft")

    def _beside_spine(self, knots: Sequence[Sequence[float]]) -> NDArray[np.float64]:
        path = smooth_path(knots)
        x, y = self.spine.centre(path[:, 2])
        return path + np.stack([x, y, 0 * x, 0 * x], axis=1)

    def _tube(
        self, canvas: Canvas, path: NDArray[np.float64], tissue: str, label: int | None = None, frame: str = "firm"
    ) -> None:
        part = canvas.along(path, float(path[:, 3].max()) + 8, frame)
        if part is None:
            return
        shape = tube(getattr(part, frame), path[:, :3], path[:, 3])
        if label is None:  # branches begin inside the trunk
            shape = np.where(part.labels == AORTA_LABEL, np.maximum(shape, 1), shape)
        part.paint(shape, self.contrast[tissue], label)
        part.claim(shape - 1)
        if label is not None and self.plaque > 0:
            self._plaques(part, shape)

    def _plaques(self, part: Canvas, shape: Array) -> None:
        """Calcified patches of the wall, mostly below the renal arteries."""
        grain = self.grain.at(part.firm, 9)
        wanted = 2.4 - 1.6 * self.plaque + 0.008 * np.clip(part.firm.z, -80, 120)
        part.paint(np.maximum(np.abs(shape + 0.6) - 0.9, 3 * (wanted - grain)), 520.0)


@dataclass(frozen=True)
class Cava:
    """The inferior vena cava, painted after the liver, which it lies in."""

    spine: Spine
    contrast: Contrast

    def paint(self, canvas: Canvas) -> None:
        """The vein on top of what is there, without a label."""
        path = smooth_path(CAVA)
        path[:, 1] += self.spine.centre(path[:, 2])[1]
        part = canvas.along(path, 26, "firm")
        if part is not None:
            shape = tube(part.firm, path[:, :3], path[:, 3])
            shape = np.where(part.labels == AORTA_LABEL, np.maximum(shape, 1), shape)
            part.paint(shape, self.contrast["vena cava"], 0)
            part.claim(shape - 0.5)
