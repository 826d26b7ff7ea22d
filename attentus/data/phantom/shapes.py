"""Smooth shapes as signed distances: negative inside, positive outside, in mm.

Points are (x, y, z) in mm in the patient's own frame: x to the left, y to the back, z to the head. A shape takes
`Points`, three arrays of equal shape (z, y, x), and gives an array of that shape. The distances are exact for
capsules and first-order for ellipsoids (the value over its gradient), which is all that blending needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Array = NDArray[np.floating[Any]]
"""float32 wherever there is one number for each voxel."""
Box = tuple[slice, slice, slice]
Vector = tuple[float, float, float]
"""(x, y, z): to the left, to the back, to the head; mm."""

Rod = tuple[Vector, Vector, float, float]
"""Start, end and the radii there, mm."""

FAR = np.float32(1e4)
"""A distance no body reaches, mm."""


@dataclass(frozen=True)
class Points:
    """Where voxels lie in the patient, mm; every array (z, y, x)."""

    x: Array
    y: Array
    z: Array
    bounds: tuple[tuple[Array, Array], ...] = ()
    """For each array axis z, y, x: least and greatest value of that coordinate for each index."""

    @classmethod
    def of(cls, x: Array, y: Array, z: Array) -> Points:
        """Points that know where to look for a box."""
        others = ((1, 2), (0, 2), (0, 1))
        found = tuple((c.min(axis=o), c.max(axis=o)) for c, o in zip((z, y, x), others, strict=True))
        return cls(x, y, z, found)

    def __getitem__(self, box: Box) -> Points:
        bounds = tuple((lo[part], hi[part]) for (lo, hi), part in zip(self.bounds, box, strict=True))
        return Points(self.x[box], self.y[box], self.z[box], bounds)

    def row(self, where: NDArray[np.intp]) -> Points:
        """Some of the points as one row; `where` counts through the flattened arrays."""
        return Points(self.x.ravel()[where], self.y.ravel()[where], self.z.ravel()[where])

    def find(self, low: Sequence[float] | Array, high: Sequence[float] | Array) -> Box | None:
        """The smallest index box that holds every point with low <= (x, y, z) <= high; None when there is none."""
        box = []
        for (least, greatest), lo, hi in zip(self.bounds, low[::-1], high[::-1], strict=True):
            hits = np.flatnonzero((least <= hi) & (greatest >= lo))
            if not hits.size:
                return None
            box.append(slice(int(hits[0]), int(hits[-1]) + 1))
        return box[0], box[1], box[2]


def times(vector: Vector, scale: float) -> Vector:
    """A vector, or three radii, scaled."""
    x, y, z = vector
    return x * scale, y * scale, z * scale


def turn(axis: str, degrees: float) -> NDArray[np.float64]:
    """3x3 rotation of (x, y, z) about one axis, right-handed."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i], matrix[j, j], matrix[i, j], matrix[j, i] = c, c, -s, s
    return matrix


def local(at: Points, centre: Vector, pose: NDArray[np.float64] | None = None) -> tuple[Array, Array, Array]:
    """Coordinates along a body's own axes, which are the columns of `pose`, from its centre."""
    x, y, z = (c - np.float32(o) for c, o in zip((at.x, at.y, at.z), centre, strict=True))
    if pose is None:
        return x, y, z
    (a, b, c), (d, e, f), (g, h, i) = np.asarray(pose, np.float32).T
    return a * x + b * y + c * z, d * x + e * y + f * z, g * x + h * y + i * z


def ellipsoid(at: Points, centre: Vector, radii: Vector, pose: NDArray[np.float64] | None = None) -> Array:
    """Distance to an ellipsoid, to first order (Quilez, "Distance functions": |p/r| (|p/r| - 1) / |p/r²|)."""
    squares = [np.square(c) for c in local(at, centre, pose)]
    squares[0] = squares[0] + np.float32(1e-4)  # mm², so that the centre itself is deep inside
    scaled = sum(s * np.float32(r**-2) for s, r in zip(squares, radii, strict=True))
    slope = sum(s * np.float32(r**-4) for s, r in zip(squares, radii, strict=True))
    # with k = |p/r|: k (k - 1) / |p/r²| = (k² - k) / |p/r²|
    distance: Array = (scaled - np.sqrt(scaled)) / np.sqrt(slope)
    return distance


def blobs(at: Points, centres: Iterable[Vector], radii: Vector) -> Array:
    """Distance to equal ellipsoids, near their surface; much cheaper than one by one."""
    rx, ry, rz = (np.float32(1 / r) for r in radii)
    u, v, w = at.x * rx, at.y * ry, at.z * rz
    nearest = np.full(u.shape, FAR, np.float32)
    for x, y, z in centres:
        square = np.square(u - x * rx)
        square += np.square(v - y * ry)
        square += np.square(w - z * rz)
        np.minimum(nearest, square, out=nearest)
    distance: Array = (np.sqrt(nearest) - 1) * np.float32(min(radii))
    return distance


def plane(at: Points, through: Vector, outward: Vector) -> Array:
    """Distance above a plane; the inside lies against `outward`."""
    length = math.hypot(*outward)
    x, y, z = (np.float32(n / length) for n in outward)
    above: Array = x * at.x + y * at.y + z * at.z - (x * through[0] + y * through[1] + z * through[2])
    return above


def capsule(at: Points, start: Vector, end: Vector, radii: tuple[float, float]) -> Array:
    """Distance to a rod with round ends whose radius runs from one value to another."""
    ax, ay, az = (np.float32(e - s) for s, e in zip(start, end, strict=True))
    px, py, pz = local(at, start)
    length = max(float(ax * ax + ay * ay + az * az), 1e-6)
    along = np.clip((px * ax + py * ay + pz * az) / np.float32(length), 0, 1)
    px, py, pz = px - along * ax, py - along * ay, pz - along * az
    distance: Array = np.sqrt(px * px + py * py + pz * pz) - (radii[0] + along * np.float32(radii[1] - radii[0]))
    return distance


def tube(at: Points, path: NDArray[np.float64], radii: NDArray[np.float64], reach: float = 8.0) -> Array:
    """Distance to a bent tube; right up to `reach` mm outside of it, `FAR` beyond.

    path   (n, 3) points of the centre line
    radii  (n,) mm
    """
    distance = np.full(at.x.shape, FAR, np.float32)
    for start, end, r0, r1 in zip(path[:-1], path[1:], radii[:-1], radii[1:], strict=True):
        room = max(r0, r1) + reach
        box = at.find(np.minimum(start, end) - room, np.maximum(start, end) + room)
        if box is not None:
            piece = capsule(at[box], tuple(start), tuple(end), (float(r0), float(r1)))
            np.minimum(distance[box], piece, out=distance[box])
    return distance


def union(a: Array, b: Array, blend: float) -> Array:
    """Both shapes, the crease between them rounded over about `blend` mm (polynomial smooth minimum)."""
    gap = np.abs(a - b)
    h = np.maximum(np.float32(blend) - gap, 0)
    joined: Array = np.minimum(a, b) - h * h / np.float32(4 * blend)
    return joined


def overlap(a: Array, b: Array, blend: float) -> Array:
    """What two shapes share, the edge rounded over about `blend` mm."""
    return -union(-a, -b, blend)


def without(a: Array, b: Array, blend: float) -> Array:
    """The first shape with the second taken away, the edge rounded."""
    return overlap(a, -b, blend)


def coverage(distance: Array, width: float) -> Array:
    """Share of a voxel, 0..1, that lies inside: a ramp `width` mm wide across the boundary (partial volume)."""
    share: Array = np.clip(np.float32(0.5) - distance / np.float32(width), 0, 1)
    return share


def smooth_path(knots: Sequence[Sequence[float]] | NDArray[np.float64], step: float = 6.0) -> NDArray[np.float64]:
    """(n, 3) points about `step` mm apart on a curve through the knots (Catmull-Rom); extra columns go along."""
    points = np.asarray(knots, float)
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    pieces = []
    for before, start, end, after in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        count = max(1, round(float(np.linalg.norm((end - start)[:3])) / step))
        t = (np.arange(count) / count)[:, None]
        bend = (2 * before - 5 * start + 4 * end - after) * t**2 + (3 * start - before - 3 * end + after) * t**3
        pieces.append(start + 0.5 * ((end - before) * t + bend))
    return np.concatenate([*pieces, points[-1:]])
