"""Take an image or labels onto the grid of another scan, wherever the two lie in the patient."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus.types import Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from attentus.types import Grid


def onto(array: NDArray[Any], grid: Grid, target: Grid, *, order: int = 1, outside: float = 0.0) -> NDArray[Any]:
    """The values at the voxels of another grid.

    Args:
        array: (z, y, x), on `grid`.
        grid: where it lies.
        target: where it shall lie.
        order: 0 nearest, for labels; 1 linear; 3 cubic spline.
        outside: value where the array does not reach.

    Returns:
        (z, y, x) of the target's shape, same type of numbers.
    """
    from scipy.ndimage import affine_transform

    matrix = _between(target, grid)
    turn = matrix[:3, :3]
    straight = np.abs(turn - np.diag(np.diag(turn))).max() * max(target.shape) < 1e-3  # a scaling alone is much quicker
    moved: NDArray[Any] = affine_transform(
        array,
        np.diag(turn) if straight else turn,
        matrix[:3, 3],
        target.shape,
        order=order,
        mode="grid-constant" if order == 0 else "nearest",
        output=array.dtype,
    )
    if order or outside:  # the edge is continued by half a voxel, as far as voxels reach, and no further
        moved[~covered(grid, target)] = outside
    return moved


def covered(grid: Grid, target: Grid) -> NDArray[np.bool_]:
    """The voxels of a grid, (z, y, x), whose centres lie in the field of view of another one."""
    matrix = _between(target, grid)
    inside = np.ones(target.shape, bool)
    axes = [np.arange(n) for n in target.shape]
    for place, size in enumerate(grid.shape):
        z, y, x = (matrix[place, axis] * axes[axis] for axis in range(3))
        index = z[:, None, None] + y[:, None] + x + matrix[place, 3]
        inside &= (index >= -0.5 - 1e-6) & (index <= size - 0.5 + 1e-6)
    return inside


def shares_place(grid: Grid, target: Grid) -> bool:
    """Whether two fields of view may have anything in common: False only if they surely have not."""
    matrix = _between(target, grid)
    corners = np.array(list(product(*((0, n - 1) for n in target.shape))))
    reach = corners @ matrix[:3, :3].T + matrix[:3, 3]
    return not ((reach.max(axis=0) < -0.5).any() or (reach.min(axis=0) > np.array(grid.shape) - 0.5).any())


def _between(target: Grid, grid: Grid) -> NDArray[np.float64]:
    """4x4 matrix from voxels (z, y, x, 1) of the target to those of the grid."""
    matrix: NDArray[np.float64] = np.linalg.inv(grid.affine) @ target.affine
    return matrix


def labels_on(labels: Volume, grid: Grid) -> Volume | None:
    """The nearest label at every voxel of another grid, by their places in the patient.

    Args:
        labels: (1, z, y, x) integers.
        grid: where to.

    Returns:
        Volume on the grid, 0 where the labels do not reach; None if they reach none of it.
    """
    if not shares_place(labels.grid, grid):
        return None
    return Volume(onto(labels.array[0], labels.grid, grid, order=0)[None], grid)
