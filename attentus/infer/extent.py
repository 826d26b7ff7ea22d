"""How large structures are: volume, and the longest distance within one connected part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attentus.infer.clean import among
from attentus.metrics.components import label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from attentus.types import Prediction


@dataclass(frozen=True)
class Extent:
    """The size of a structure."""

    volume_ml: float
    longest_mm: float | None
    """Longest diameter; None where nothing was found."""


def extents(prediction: Prediction) -> dict[str, Extent]:
    """The size of every structure; a region that holds others counts with them."""
    labels, grid = prediction.labels.array[0], prediction.labels.grid
    found = {}
    for name, value in prediction.names.items():
        mask = among(labels, prediction.parts.get(name, (value,)))
        volume = float(np.count_nonzero(mask) * grid.voxel_ml)
        found[name] = Extent(volume, longest_diameter(mask, grid.spacing))
    return found


def longest_diameter(mask: NDArray[np.bool_], spacing: Sequence[float]) -> float | None:
    """The longest straight distance between two points of the surface of one connected part, mm.

    The surface runs half-way between voxels inside and outside, as marching cubes draw it. Voxels that share a corner
    are connected. Of a scan of one slice, it is measured in the plane.

    Args:
        mask: (z, y, x).
        spacing: (z, y, x), mm.

    Returns:
        None for an empty mask.
    """
    from scipy.ndimage import find_objects

    numbers = label(mask)
    steps = np.array(spacing, float) * (np.array(mask.shape) > 1)
    boxes = find_objects(numbers)
    sides = np.array([[side.stop - side.start for side in box] for box in boxes]).reshape(-1, mask.ndim)
    room = np.linalg.norm(sides * steps, axis=1)
    longest: float | None = None
    for k in np.argsort(-room):  # parts that fit into less than what was found need no look, so dust costs nothing
        if longest is not None and room[k] <= longest:
            break
        longest = max(longest or 0.0, _diameter(numbers[boxes[k]] == k + 1, steps))
    return longest


def _diameter(part: NDArray[np.bool_], steps: NDArray[np.float64]) -> float:
    """Of one connected part; an axis without a step is not measured along."""
    rows = np.argwhere(part.any(axis=2))
    lines = part[rows[:, 0], rows[:, 1]]
    ends = (lines.argmax(axis=1), part.shape[2] - 1 - lines[:, ::-1].argmax(axis=1))
    points = np.concatenate([np.column_stack([rows, end]) for end in ends]) * steps  # the farthest two are among these
    points = _corners(np.unique(points, axis=0))
    squares = (points**2).sum(axis=1)
    apart = squares[:, None] + squares - 2 * points @ points.T
    surface = np.concatenate([np.diag(steps), -np.diag(steps)]) / 2
    longest = 0.0
    for shift in np.unique((surface[:, None] - surface).reshape(-1, 3), axis=0):
        along = points @ shift
        longest = max(longest, float((apart + 2 * (along[:, None] - along)).max() + shift @ shift))
    return math.sqrt(longest)


def _corners(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those points (n, 3) that are corners of their convex hull; all of them where they lie in a plane."""
    from scipy.spatial import ConvexHull, QhullError

    try:
        corners: NDArray[np.float64] = points[ConvexHull(points).vertices]
    except (QhullError, ValueError):
        return points
    return corners
