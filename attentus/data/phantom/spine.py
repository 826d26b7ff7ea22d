"""The spine: vertebrae, discs and the canal, drawn as one vertebra repeated along a curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attentus.data.phantom.shapes import Array, Points, capsule, ellipsoid, overlap, union

if TYPE_CHECKING:
    from numpy.random import Generator

    from attentus.data.phantom.canvas import Canvas
    from attentus.data.phantom.contrast import Contrast
    from attentus.data.phantom.texture import Grain

HEIGHTS = np.array([-217.0, -182, -147, -110, -73, -36, 0, 34, 66, 97, 126, 154, 181, 207])
"""Heights of the vertebral bodies' centres from S2 over L1 (height 0) up to T5, mm."""
T12 = 7
"""Its place in `HEIGHTS`; T11 follows, and so on up."""


@dataclass(frozen=True)
class Spine:
    """Where the spine runs, and what it is made of."""

    lordosis: float
    """How far the lumbar spine bows forward, mm."""
    scoliosis: float
    """How far it swings sideways, mm."""
    contrast: Contrast
    grain: Grain

    @classmethod
    def draw(cls, rng: Generator, contrast: Contrast, grain: Grain) -> Spine:
        """Another spine."""
        return cls(float(rng.uniform(4, 14)), float(rng.normal(0, 3)), contrast, grain)

    def centre(self, z: Array) -> tuple[Array, Array]:
        """X and y of the vertebral bodies' centre at heights z."""
        y = 0.09 * z + self.lordosis * (np.cos((z + 75) / 75) - 0.55)
        x = self.scoliosis * np.sin(z / 90)
        return x.astype(np.float32), np.asarray(y, np.float32)

    def straighten(self, at: Points) -> tuple[Points, Array, Array]:
        """Points relative to the nearest vertebral body, half its height, and 0 at the loins to 1 at the chest."""
        x, y = self.centre(at.z)
        nearest = np.searchsorted((HEIGHTS[1:] + HEIGHTS[:-1]) / 2, at.z)
        half = np.interp(at.z, HEIGHTS, np.gradient(HEIGHTS) * 0.375).astype(np.float32)
        chest = np.clip((at.z + 40) / 140, 0, 1)
        moved = Points(at.x - x, at.y - y, at.z - HEIGHTS[nearest].astype(np.float32), at.bounds)
        return moved, half, chest

    def paint(self, canvas: Canvas) -> None:
        """Cord, bones and discs."""
        part = canvas.window((-75, -40, -300), (75, 100, 300), "firm")
        if part is None:
            return
        at, half, chest = self.straighten(part.firm)
        across = _column(at, half, chest)
        part.claim(across - 2)
        part.paint(across, self.contrast["disc"])
        self._canal(part, at)
        body = overlap(across, np.abs(at.z) - half, 3)
        self._bone(part, body, 1.8)
        self._bone(part, _arch(at, chest), 2.4)

    def _canal(self, part: Canvas, at: Points) -> None:
        y = at.y - np.float32(26)
        canal = np.sqrt((at.x / 11) ** 2 + (y / 8.5) ** 2) * 9 - 9
        part.paint(canal, self.contrast["fat"], strength=0.8)
        part.paint(canal + 2, self.contrast["thecal sac"])
        cord = np.maximum(np.hypot(at.x, y) - 4.5, -10 - part.firm.z)
        part.paint(cord, self.contrast["spinal cord"])

    def _bone(self, part: Canvas, shape: Array, compact: float) -> None:
        """Compact bone, some mm thick, around spongy bone."""
        grain = self.grain.at(part.firm, 5)
        part.paint(shape, self.contrast["cortex"] + 60 * grain)
        part.paint(shape + compact, self.contrast["spongiosa"] + 40 * grain)


def _column(at: Points, half: Array, chest: Array) -> Array:
    """Distance to the stack of bodies and discs, seen from above: an oval, flat at the back, waisted."""
    waist = 1 - 0.1 * np.clip(1 - (at.z / half) ** 2, 0, 1)
    rx, ry = (23.5 - 6.5 * chest) * waist, (16.5 - 1.5 * chest) * waist
    oval = (np.sqrt((at.x / rx) ** 2 + (at.y / ry) ** 2) - 1) * ry
    return overlap(oval, at.y - 14 + 0.002 * at.x**2, 4)


def _arch(at: Points, chest: Array) -> Array:
    """Pedicles, joints, laminae, spinous and transverse processes of the vertebra at height 0."""
    side = Points(np.abs(at.x), at.y, at.z)
    pedicle = capsule(Points(side.x, at.y, (at.z - 5) * 0.7), (15, 8, 0), (16, 28, 0), (4.2, 4.2))
    facet = ellipsoid(side, (17, 33, -2), (6.5, 7, 19))
    lamina = capsule(Points(side.x, at.y, (at.z + 6) * 0.5), (15, 34, 0), (2, 43, 0), (4, 4))
    slope = 8 * chest * (at.y - 42) / 10  # in the chest the spines point down
    spinous = ellipsoid(Points(at.x, at.y, at.z + 6 + slope), (0, 57, 0), (3.4, 17, 12))
    tip = 33 + 12 * chest
    swept = Points(side.x, at.y - (tip - 33) * np.clip((side.x - 16) / 22, 0, 1), at.z)
    transverse = capsule(swept, (16, 28, 2), (42, 33, 3), (5, 3.4))
    bones = union(union(pedicle, facet, 3), lamina, 3)
    return union(union(bones, spinous, 3), np.maximum(transverse, side.x - (42 - 12 * chest)), 3)
