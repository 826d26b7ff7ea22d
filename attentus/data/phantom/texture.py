"""Random smoothness: displacement fields that make every body another one, and grain that makes tissue uneven.

Both are functions of the place in mm, drawn once per patient, so they do not change with the voxels of a scan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from attentus.data.phantom.shapes import Array, Points

LATTICE = 48
"""Nodes of a grain along each axis; it repeats after as many."""


@dataclass(frozen=True)
class Waves:
    """A smooth displacement: a sum of products of three sines, one for each axis, so it costs a matrix product."""

    frequency: NDArray[np.float64]
    """(terms, 3) along x, y, z; radians per mm."""
    phase: NDArray[np.float64]
    """(terms, 3), radians."""
    amplitude: NDArray[np.float64]
    """(terms, 3): how far each term moves x, y and z, mm."""

    @classmethod
    def draw(cls, rng: Generator, size: float, wavelength: tuple[float, float], terms: int = 10) -> Waves:
        """Waves whose displacement along each axis has a root mean square of `size` mm."""
        shortest, longest = wavelength
        length = shortest * (longest / shortest) ** rng.uniform(0, 1, (terms, 3))
        scale = size * np.sqrt(8 / terms)
        return cls(2 * np.pi / length, rng.uniform(0, 2 * np.pi, (terms, 3)), rng.normal(0, scale, (terms, 3)))

    def at(self, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
        """Displacement along x, y, z on the grid of three axes (1D arrays), each (z, y, x)."""
        sines = [
            np.sin(np.outer(self.frequency[:, i], c) + self.phase[:, i : i + 1]).astype(np.float32)
            for i, c in enumerate((x, y, z))
        ]
        plane = (sines[1][:, :, None] * sines[0][:, None, :]).reshape(len(self.phase), -1)
        weights = self.amplitude.astype(np.float32)
        moves = [((sines[2] * weights[:, i : i + 1]).T @ plane).reshape(z.size, y.size, x.size) for i in range(3)]
        return moves[0], moves[1], moves[2]


@dataclass(frozen=True)
class Grain:
    """Random blobs: a periodic lattice of normal numbers, interpolated linearly."""

    lattice: Array
    """(n, n, n), unit variance at the nodes."""

    @classmethod
    def draw(cls, rng: Generator) -> Grain:
        """Another grain; the nodes are smoothed once so that blobs are round."""
        nodes = rng.standard_normal((LATTICE,) * 3, np.float32)
        for axis in range(3):
            nodes = nodes + 0.5 * (np.roll(nodes, 1, axis) + np.roll(nodes, -1, axis))
        return cls(nodes / nodes.std())

    def at(self, points: Points, size: float) -> Array:
        """Values at points; blobs are about `size` mm wide."""
        from scipy.ndimage import map_coordinates

        places = np.stack([points.z, points.y, points.x]) * np.float32(2 / size)
        values: Array = map_coordinates(self.lattice, places, order=1, mode="grid-wrap", output=np.float32)
        return values
