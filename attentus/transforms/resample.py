"""Change the number of voxels over the same field of view, exactly and axis by axis.

Interpolation between two grids that share their outer edges is separable: one small matrix per axis says how each new
sample is mixed from the old ones, spline prefilter, border and blur included. An axis is then one matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


TILE = 32
"""New samples that one matrix product makes."""
NOTHING = 1e-7
"""Shares below this are left out, so that a few new rows need a few old ones: a spline reaches over all, in theory."""


def resample(
    array: NDArray[np.float32], shape: Sequence[int], *, order: int = 1, anti_alias: float = 0.0
) -> NDArray[np.float32]:
    """Resample an image to another number of voxels over the same field of view.

    Args:
        array: (C, z, y, x) float32.
        shape: new (z, y, x).
        order: 0 nearest, 1 linear, 3 cubic spline; edges are repeated.
        anti_alias: Gaussian blur first on axes that get coarser, standard deviation in old voxels.

    Returns:
        (C, *shape) float32.
    """
    z, y, x = shape
    how = Resampling((*array.shape[1:],), (z, y, x), order, anti_alias)
    first, last = how.needs(0, z)
    return how.rows(array[:, first:last], 0, z)


@dataclass(frozen=True)
class Resampling:
    """From one number of voxels to another, any rows along z at a time; see `resample`."""

    old: tuple[int, ...]
    new: tuple[int, int, int]
    order: int = 1
    anti_alias: float = 0.0

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """The old rows (first, one past the last) that new rows are mixed from."""
        if self.old[0] == self.new[0]:
            return first, last
        used = np.flatnonzero(self._matrix(0)[first:last].any(axis=0))
        return int(used[0]), int(used[-1]) + 1

    def rows(self, part: NDArray[np.float32], first: int, last: int) -> NDArray[np.float32]:
        """New rows first..last.

        Args:
            part: (C, rows, y, x), just the old rows that `needs` names.
            first: first new row.
            last: one past the last.
        """
        return self.rows_of(self.slices(part), first, last)

    @property
    def by_slices(self) -> tuple[int, ...]:
        """Axes within slices whose turn comes before z's: so far, every slice can be resampled by itself."""
        axes = self._axes()
        return tuple(axes[: axes.index(0)] if 0 in axes else axes)

    @property
    def slice_shape(self) -> tuple[int, int]:
        """Of what `slices` makes, (y, x)."""
        y, x = (self.new[axis] if axis in self.by_slices else self.old[axis] for axis in (1, 2))
        return y, x

    def slices(self, part: NDArray[np.float32]) -> NDArray[np.float32]:
        """Old slices (C, some, y, x), resampled along `by_slices`."""
        return self._along(self.by_slices, part, 0, 0)

    def rows_of(self, slices: NDArray[np.float32], first: int, last: int) -> NDArray[np.float32]:
        """New rows first..last, as `rows` makes them.

        Args:
            slices: just the old ones that `needs` names, from `slices`.
            first: first new row.
            last: one past the last.
        """
        return np.ascontiguousarray(self._along(self._axes()[len(self.by_slices) :], slices, first, last))

    def _axes(self) -> list[int]:
        """Those that change; the one that shrinks most goes first and makes the rest cheaper."""
        growth = [new / old for new, old in zip(self.new, self.old, strict=True)]
        return [int(axis) for axis in np.argsort(growth) if growth[axis] != 1]

    def _along(self, axes: Sequence[int], part: NDArray[np.float32], first: int, last: int) -> NDArray[np.float32]:
        for axis in axes:
            matrix = self._matrix(axis)
            part = mix(part, matrix if axis else matrix[first:last, slice(*self.needs(first, last))], axis)
        return part

    def _matrix(self, axis: int) -> NDArray[np.float32]:
        old, new = self.old[axis], self.new[axis]
        return axis_matrix(old, new, self.order, self.anti_alias if new < old else 0.0)


def resample_labels(labels: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """The nearest label at every new voxel.

    Args:
        labels: (..., z, y, x) integers.
        shape: new (z, y, x).
    """
    for axis, (old, new) in enumerate(zip(labels.shape[-3:], shape, strict=True), start=labels.ndim - 3):
        if old != new:
            labels = labels.take(_nearest(old, new), axis=axis)
    return np.ascontiguousarray(labels)


def mix(array: NDArray[np.float32], matrix: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Replace the samples along one spatial axis (0 z, 1 y, 2 x) of (C, z, y, x) by mixtures of them.

    Args:
        array: (C, z, y, x).
        matrix: (new, old).
        axis: which.
    """
    c, z, y, x = array.shape
    if axis == 0:
        return _tiled(array.reshape(c, z, y * x), matrix).reshape(c, len(matrix), y, x)
    if axis == 1:
        return _tiled(array, matrix)
    mixed = np.empty((c, z, y, len(matrix)), np.float32)
    for rows, band in _bands(matrix):
        np.matmul(array[..., band], matrix[rows, band].T, out=mixed[..., rows])
    return mixed


def _tiled(array: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """The matrix times the last but one axis of an array."""
    mixed = np.empty((*array.shape[:-2], len(matrix), array.shape[-1]), np.float32)
    for rows, band in _bands(matrix):
        np.matmul(matrix[rows, band], array[..., band, :], out=mixed[..., rows, :])
    return mixed


def _bands(matrix: NDArray[np.float32]) -> Iterator[tuple[slice, slice]]:
    """Some new samples at a time, and the old ones they are mixed from: most of the matrix is zero."""
    for first in range(0, len(matrix), TILE):
        rows = slice(first, min(first + TILE, len(matrix)))
        used = np.flatnonzero(matrix[rows].any(axis=0))
        yield rows, slice(int(used[0]), int(used[-1]) + 1)


@lru_cache(maxsize=64)
def axis_matrix(old: int, new: int, order: int, blur: float) -> NDArray[np.float32]:
    """How each of `new` samples is mixed from `old` ones over the same length: (new, old) float32, rows sum to 1.

    It is what SciPy's spline interpolation does to the unit vectors, so filter, border and order are SciPy's.
    """
    from scipy.ndimage import affine_transform, gaussian_filter1d

    unit = np.eye(old)
    if blur:
        unit = gaussian_filter1d(unit, blur, axis=0, mode="nearest")
    scale = old / new
    exact = affine_transform(unit, (scale, 1.0), (scale / 2 - 0.5, 0.0), (new, old), order=order, mode="nearest")
    exact[np.abs(exact) < NOTHING] = 0
    matrix: NDArray[np.float32] = (exact / exact.sum(axis=1, keepdims=True)).astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def _nearest(old: int, new: int) -> NDArray[np.intp]:
    """Index of the old sample whose extent holds the centre of each new one."""
    return np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.intp), old - 1)
