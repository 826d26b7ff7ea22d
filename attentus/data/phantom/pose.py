"""Where a patient lies in the world, and how their body departs from the drawing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attentus.data.phantom.shapes import Points

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from attentus.data.phantom.shapes import Array
    from attentus.data.phantom.texture import Waves


@dataclass(frozen=True)
class Pose:
    """The way from the world to the drawing: move, scale, turn, then bend."""

    offset: NDArray[np.float64]
    """World position (L, P, S) of the drawing's origin, mm."""
    stature: float
    """Scale of the patient."""
    matrix: NDArray[np.float64]
    """(3, 3) rotation from the world to the drawing."""
    bend: Waves
    """Displacement of everything."""
    shift: Waves
    """Further displacement of soft organs."""

    def points(self, x: Array, y: Array, z: Array) -> tuple[Points, Points]:
        """Places in the drawing on the grid of three world axes (mm): of bones and wall, and of organs."""
        moved = zip((x, y, z), self.offset, strict=True)
        px, py, pz = (((c - o) / self.stature).astype(np.float32) for c, o in moved)
        turned = zip(self.matrix.astype(np.float32), self.bend.at(px, py, pz), strict=True)
        firm = [
            (a * px)[None, None, :] + (b * py)[None, :, None] + (c * pz)[:, None, None] + bend
            for (a, b, c), bend in turned
        ]
        soft = [c + shift for c, shift in zip(firm, self.shift.at(px, py, pz), strict=True)]
        return Points.of(*firm), Points.of(*soft)

    def world(self, place: tuple[float, float, float]) -> tuple[float, float, float]:
        """World position (L, P, S) of a place in an organ, mm to one decimal; `points` undone by iteration."""
        guess = np.array(place)
        for _ in range(12):
            _, soft = self.points(*(np.array([c]) for c in self.offset + self.stature * guess))
            seen = np.array([soft.x.item(), soft.y.item(), soft.z.item()])
            guess = guess + self.matrix.T @ (place - seen)
        left, back, up = (round(float(c), 1) for c in self.offset + self.stature * guess)
        return left, back, up
