"""Distances between surfaces as triangle meshes, for the S2S of the Attention U-Net."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from attentus.errors import BadInput, MissingExtra
from attentus.metrics.overlap import check_masks
from attentus.metrics.surface import joint_box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Points = NDArray[np.float64]

FIRST_GUESS = 32
"""Triangles looked at first for each point; doubled for the points that are not settled by them."""
AT_ONCE = 500_000
"""Pairs of point and triangle that are worked on together; bounds the memory (0.3 kB a pair at most)."""


def surface_to_surface(prediction: Mask, reference: Mask, spacing: Sequence[float]) -> float:
    """Mean distance of the vertices of one mesh to the other mesh, averaged over both directions, mm.

    Meshes by marching cubes (Lewiner, level 0.5) of masks with one voxel of background around; distances are those of
    points to triangles, exact. The Attention U-Net paper gives no formula for its S2S; this is our reading.

    Args:
        prediction: boolean, 3D, not empty.
        reference: of the same shape, not empty.
        spacing: (z, y, x) mm.

    Raises:
        BadInput: 2D masks, which have no mesh.
        MissingExtra: scikit-image is not installed.
    """
    check_masks(prediction, reference)
    if prediction.ndim != 3:
        raise BadInput("s2s_mm measures between meshes and needs 3D masks; leave it out for pictures.")
    window = joint_box(prediction, reference)
    meshes = [mesh(mask[window], spacing) for mask in (prediction, reference)]
    return (directed(*meshes) + directed(*reversed(meshes))) / 2


def mesh(mask: Mask, spacing: Sequence[float]) -> tuple[Points, NDArray[np.integer]]:
    """Triangles around a mask.

    Args:
        mask: boolean, 3D, not empty.
        spacing: (z, y, x) mm.

    Returns:
        Vertices (V, 3) in mm from the centre of the first voxel, and triangles (T, 3) as numbers of vertices.

    Raises:
        MissingExtra: scikit-image is not installed.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise MissingExtra("scikit-image", "mesh", "Measuring between meshes (s2s_mm)") from error
    vertices, triangles, _, _ = marching_cubes(np.pad(mask, 1).astype(np.float32), 0.5, allow_degenerate=False)
    return (vertices.astype(np.float64) - 1) * np.asarray(spacing, float), triangles


def directed(here: tuple[Points, NDArray[np.integer]], there: tuple[Points, NDArray[np.integer]]) -> float:
    """Mean distance of the vertices of one mesh to the nearest point of another mesh, mm."""
    return float(to_mesh(here[0], *there).mean())


def to_mesh(points: Points, vertices: Points, triangles: NDArray[np.integer]) -> NDArray[np.float64]:
    """Exact distance of each point (N, 3) to a mesh, (N,).

    The nearest vertex bounds it from above. Triangles are then visited by the distance of their centres, and looked at
    if they could reach that near. No triangle reaches further from its centre than the largest one does, so a point is
    settled once the next centre is further away than the best found plus that reach.
    """
    from scipy.spatial import cKDTree

    shapes = Triangles.of(vertices[triangles])
    tree = cKDTree(shapes.centres)
    best: NDArray[np.float64] = cKDTree(vertices[np.unique(triangles)]).query(points, workers=-1)[0]
    last = np.zeros(len(points))  # distance of the last centre visited
    open_, count = np.flatnonzero(best), min(FIRST_GUESS, len(triangles))
    while open_.size:
        undecided = []
        for chunk in np.array_split(open_, len(open_) * count // AT_ONCE + 1):
            away, nearest = tree.query(points[chunk], k=[*range(1, count + 1)], workers=-1)
            new = away >= last[chunk, None]  # centres equally far come in any order
            row, column = np.nonzero(new & (away - shapes.reach[nearest] < best[chunk, None]))
            found = np.sqrt(shapes.squared_distance(points[chunk[row]], nearest[row, column]))
            np.minimum.at(best, chunk[row], found)
            last[chunk] = away[:, -1]
            undecided.append(chunk[last[chunk] - shapes.reach.max() < best[chunk]])
        open_ = np.concatenate(undecided) if count < len(triangles) else np.empty(0, int)
        count = min(2 * count, len(triangles))
    return best


class Triangles(NamedTuple):
    """Triangles with what distances to them need; arrays are (3, T), one row per coordinate."""

    corner: Points
    along: Points
    """From the corner to the second one."""
    across: Points
    """From the corner to the third one."""
    centres: Points
    """(T, 3)"""
    reach: NDArray[np.float64]
    """Largest distance of a corner from the centre, (T,)."""

    @classmethod
    def of(cls, corners: Points) -> Triangles:
        """Take triangles (T, 3 corners, 3 coordinates)."""
        first, second, third = np.ascontiguousarray(corners.transpose(1, 2, 0))
        centres = corners.mean(axis=1)
        reach = np.linalg.norm(corners - centres[:, None], axis=2).max(axis=1)
        return cls(first, second - first, third - first, centres, reach)

    def squared_distance(self, points: Points, numbers: NDArray[np.integer]) -> NDArray[np.float64]:
        """From N points (N, 3) to a triangle each (N,): (N,).

        Either the foot of the perpendicular lies in the triangle, or the nearest point lies on one of its edges.
        """
        along, across = self.along[:, numbers], self.across[:, numbers]
        way = points.T - self.corner[:, numbers]
        uu, uv, vv = _dot(along, along), _dot(along, across), _dot(across, across)
        wu, wv, ww = _dot(way, along), _dot(way, across), _dot(way, way)
        area = uu * vv - uv * uv  # of the parallelogram, squared: never 0, as meshes here have no degenerate triangles
        s, t = (vv * wu - uv * wv) / area, (uu * wv - uv * wu) / area
        inside = (s >= 0) & (t >= 0) & (s + t <= 1)
        foot = ww - s * wu - t * wv
        third, ridge = (wv - wu) + (uu - uv), uu - 2 * uv + vv  # along the edge between the other two corners
        edges = (ww - _gain(wu, uu), ww - _gain(wv, vv), ww - 2 * wu + uu - _gain(third, ridge))
        nearest = np.minimum(np.minimum(edges[0], edges[1]), edges[2])
        return np.maximum(np.where(inside, np.minimum(foot, nearest), nearest), 0)


def _gain(projection: Points, length: Points) -> Points:
    """What the squared distance to a corner loses when one may walk along an edge from it."""
    share = np.clip(projection / length, 0, 1)
    gain: Points = share * (2 * projection - share * length)
    return gain


def _dot(a: Points, b: Points) -> Points:
    product: Points = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return product
