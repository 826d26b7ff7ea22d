"""Bones in the wall of the trunk: ribs with their cartilages, sternum, and the crests of the pelvis."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from attentus.data.phantom.spine import HEIGHTS, T12

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from attentus.data.phantom.canvas import Canvas
    from attentus.data.phantom.contrast import Contrast
    from attentus.data.phantom.shapes import Array

BONE_END = np.array([57.0, 98, 124, 130, 132, 134, 136])
"""Angle about the trunk where the bone of ribs 12 to 6 ends, degrees."""
CARTILAGE_END = np.array([0.0, 0, 150, 158, 166, 176, 180])
"""Angle where their cartilage ends; ribs 12 and 11 have none."""
MM_PER_DEGREE = 2.2
"""Along the wall of an average trunk."""


@dataclass(frozen=True)
class Cage:
    """Bones that follow the body wall: their place is given by depth in the wall, angle and height."""

    drop: float
    """How far a rib descends from the spine to its lowest point, mm."""
    calcified: float
    """Share of bone in the cartilages, 0..1."""
    contrast: Contrast

    @classmethod
    def draw(cls, rng: Generator, contrast: Contrast) -> Cage:
        """Another cage."""
        return cls(float(rng.uniform(105, 130)), float(rng.choice([0, 0, 0.15, 0.4])), contrast)

    def paint(self, canvas: Canvas) -> None:
        """Cartilage first, then compact bone and the spongy bone inside."""
        ring = (canvas.wall > -2) & (canvas.wall < 16)
        turned, height = np.abs(canvas.angle[ring]), canvas.firm.z[ring]
        across = canvas.wall[ring] - np.float32(6.5)
        bone, cartilage = self._ribs(turned, height, across)
        bone = np.minimum(bone, _sternum(np.abs(canvas.firm.x[ring]), turned, height, across))
        bone = np.minimum(bone, _crests(turned, height, across))
        soft = self.contrast["cartilage"]
        canvas.paint_some(ring, cartilage, soft + self.calcified * 300)
        canvas.paint_some(ring, cartilage + 1.6, soft)
        canvas.paint_some(ring, bone, self.contrast["cortex"] * 0.9)
        canvas.paint_some(ring, bone + 1.7, self.contrast["spongiosa"] * 0.8)

    def _ribs(self, turned: Array, height: Array, across: Array) -> tuple[Array, Array]:
        """Distances to the bones and to the cartilages of the nearest rib."""
        course, fall, slope = self._course
        start = height + self.drop * np.interp(turned, course, fall).astype(np.float32)
        rib = np.clip(np.searchsorted((HEIGHTS[1:] + HEIGHTS[:-1]) / 2, start), T12, len(HEIGHTS) - 1)
        steep = self.drop * np.interp(turned, course, slope)
        above = ((start - HEIGHTS[rib]) / np.sqrt(1 + steep**2)).astype(np.float32)
        distance = (np.sqrt(np.square(above / 7.5) + np.square(across / 4.2)) - 1) * np.float32(4.2)
        end, last = BONE_END[rib - T12], CARTILAGE_END[rib - T12]
        bone = np.maximum(distance, MM_PER_DEGREE * np.maximum(turned - end, 20 - turned))
        cartilage = np.maximum(distance - 0.3, MM_PER_DEGREE * np.maximum(end - turned, turned - last))
        return bone, cartilage

    @cached_property
    def _course(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Angles in degrees, share of the drop reached there, and how fast it grows per mm along the wall."""
        turned = np.linspace(0, 180, 181)
        fall = np.interp(turned, (0, 20, 118, 180), (0, 0, 1, 0.45))
        fall = np.convolve(np.pad(fall, 10, mode="edge"), np.ones(21) / 21, "valid")
        return turned, fall, np.gradient(fall) / MM_PER_DEGREE


def _sternum(side: Array, turned: Array, height: Array, across: Array) -> Array:
    """A flat bone in front, narrow at its lower end."""
    half = np.clip((height - 96) * 0.35, -9, 17)
    plate: Array = np.maximum(side - half, np.abs(across) - 4.5) + 99 * (turned < 90)
    return plate


def _crests(turned: Array, height: Array, across: Array) -> Array:
    """The upper rims of the iliac bones, highest behind the flanks."""
    rim = -114 - 14 * np.square((turned - 62) / 18)
    blade: Array = np.maximum(np.abs(across) - 4, height - rim)
    return blade
