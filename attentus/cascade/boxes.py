"""Boxes of voxels: where a later stage of a cascade looks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus.types import Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from attentus.recipes import Box
    from attentus.types import Grid

Corner = tuple[int, int, int]


@dataclass(frozen=True)
class Region:
    """Voxels start <= (z, y, x) < stop of a grid."""

    start: Corner
    stop: Corner

    @property
    def shape(self) -> Corner:
        """Voxels along each axis."""
        z, y, x = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """For indexing (z, y, x)."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    @classmethod
    def whole(cls, grid: Grid) -> Region:
        """All of a grid."""
        return cls((0, 0, 0), grid.shape)

    def of(self, volume: Volume) -> Volume:
        """These voxels of a volume, a view; it forgets which file they are from."""
        part = volume.array[(slice(None), *self.slices)]
        return Volume(part, volume.grid.cropped(self.start, self.stop))

    def moved(self, by: Corner) -> Region:
        """Counted from a voxel that lies so many voxels further out."""
        starts, stops = ([a + b for a, b in zip(corner, by, strict=True)] for corner in (self.start, self.stop))
        return Region(_corner(starts), _corner(stops))

    def within(self, outer: Region) -> tuple[slice, slice, slice]:
        """Where these voxels lie in an array that holds another region, as far as they do."""
        pairs = zip(self.start, self.stop, outer.start, outer.stop, strict=True)
        z, y, x = (slice(max(a, c) - c, max(min(b, d), a, c) - c) for a, b, c, d in pairs)
        return z, y, x


def bounds(mask: NDArray[np.bool_]) -> Region | None:
    """The smallest box of a mask (z, y, x); None if it is empty."""
    starts, stops = [], []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if not used.size:
            return None
        starts.append(int(used[0]))
        stops.append(int(used[-1]) + 1)
    return Region(_corner(starts), _corner(stops))


def widened(region: Region, grid: Grid, how: Box) -> Region:
    """A box with its margin, within the grid. Millimetres are rounded up to voxels."""
    steps = grid.spacing if how.unit == "mm" else (1.0, 1.0, 1.0)
    margins = [math.ceil(m / step) for m, step in zip(how.margins, steps, strict=True)]
    starts = [max(a - m, 0) for a, m in zip(region.start, margins, strict=True)]
    stops = [min(b + m, n) for b, m, n in zip(region.stop, margins, grid.shape, strict=True)]
    return Region(_corner(starts), _corner(stops))


def _corner(values: Any) -> Corner:
    z, y, x = values
    return z, y, x
