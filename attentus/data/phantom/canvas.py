"""What the parts of a body are painted on: a stack of slices that knows where its voxels lie in the patient."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from attentus.data.phantom.shapes import FAR, Array, Points, capsule, coverage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from attentus.data.phantom.shapes import Box, Rod, Vector


@dataclass(frozen=True)
class Canvas:
    """Voxels being painted; every array (z, y, x). A window shares the voxels of the canvas it was cut from."""

    firm: Points
    """Where the voxels lie, for bones and body wall."""
    soft: Points
    """The same, bent a little more: for organs."""
    values: Array
    """Hounsfield units."""
    labels: NDArray[np.uint8]
    taken: Array
    """Distance to the nearest thing an organ may not enter, mm; negative inside it."""
    wall: Array
    """Distance outwards from the inner surface of the body wall, mm."""
    under: Array
    """Distance upwards from the diaphragm, mm; negative in the abdomen."""
    angle: Array
    """Angle about the trunk, degrees: 0 at the back, 90 at the left flank, ±180 in front."""
    width: float
    """Width over which a boundary blurs, mm: the size of a voxel in the slice."""

    @classmethod
    def blank(cls, firm: Points, soft: Points, background: Array, width: float) -> Canvas:
        """A canvas with a background (y, x) and nothing on it."""
        shape = firm.x.shape
        values = np.broadcast_to(background, shape).astype(np.float32)
        taken, wall, under, angle = (np.full(shape, FAR, np.float32) for _ in range(4))
        return cls(firm, soft, values, np.zeros(shape, np.uint8), taken, wall, under, angle, width)

    def __getitem__(self, box: Box) -> Canvas:
        return replace(self, **{name: getattr(self, name)[box] for name in _ARRAYS})

    def window(self, low: Sequence[float], high: Sequence[float], frame: str = "soft") -> Canvas | None:
        """The part that holds low <= (x, y, z) <= high in the frame "firm" or "soft"; None when there is none."""
        box = getattr(self, frame).find(low, high)
        return None if box is None else self[box]

    def around(self, centre: Vector, room: float, frame: str = "soft") -> Canvas | None:
        """The window of the cube that reaches `room` mm from a point."""
        return self.window([c - room for c in centre], [c + room for c in centre], frame)

    def along(self, path: NDArray[np.float64], room: float, frame: str = "soft") -> Canvas | None:
        """The window that holds a path (n, 3 or more) and `room` mm around it."""
        return self.window(path.min(axis=0)[:3] - room, path.max(axis=0)[:3] + room, frame)

    def paint(self, distance: Array, value: Array | float, label: int | None = None, strength: float = 1.0) -> None:
        """Fill a shape; voxels on its boundary blend with what is there. Without a label, labels stay."""
        share = coverage(distance, self.width)
        if strength != 1.0:
            share *= np.float32(strength)
        np.add(self.values, share * (value - self.values), out=self.values)
        if label is not None:
            self.labels[distance < 0] = label

    def paint_some(self, where: NDArray[np.bool_], distance: Array, value: float, strength: float = 1.0) -> None:
        """Like `paint` for a few scattered voxels, whose distances are given as one row."""
        share = coverage(distance, self.width) * np.float32(strength)
        before = self.values[where]
        self.values[where] = before + share * (value - before)

    def paint_rods(self, rods: Iterable[Rod], value: float, within: Array) -> None:
        """Fill thin rods one by one inside another shape, paler where they are thinner than a voxel."""
        for start, end, r0, r1 in rods:
            share = min(1.0, 2 * max(r0, r1) / self.width) ** 1.5
            if share < 0.4:
                continue  # too thin to be seen
            room = max(r0, r1) + self.width
            box = self.soft.find(np.minimum(start, end) - room, np.maximum(start, end) + room)
            if box is not None:
                distance = np.maximum(capsule(self.soft[box], start, end, (r0, r1)), within[box])
                self[box].paint(distance, value, strength=share)

    def claim(self, distance: Array) -> None:
        """Keep the organs painted later out of a shape."""
        np.minimum(self.taken, distance, out=self.taken)

    def fit(self, distance: Array, gap: float) -> Array:
        """A shape pressed into the room that is left, `gap` mm away from its neighbours."""
        fitted: Array = np.maximum(distance, np.float32(gap) - self.taken)
        return fitted


_ARRAYS = ("firm", "soft", "values", "labels", "taken", "wall", "under", "angle")


class Part(Protocol):
    """Anything drawn that can be painted."""

    def paint(self, canvas: Canvas) -> None:
        """Add the part to what is on the canvas."""
