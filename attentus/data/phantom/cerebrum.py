"""The brain as tissues: grey and white matter folded into gyri, deep nuclei, ventricles, cerebellum and stem.

The cortex is a ribbon along two kinds of surface: the hull of the brain, and sulci, which are sheets that stand upright
on the hull. Seen on the hull, sulci are where a random field of one wavelength changes its sign: a labyrinth, as on a
real brain. Coordinates are (x, y, z) in mm from the middle between the two commissures.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from attentus.data.phantom.shapes import (
    Array,
    Points,
    capsule,
    coverage,
    ellipsoid,
    overlap,
    plane,
    smooth_path,
    turn,
    union,
)
from attentus.data.phantom.texture import Grain

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

NODES, CELL = 80, 3.2
"""Size of the lattice that holds the sulci, and its spacing in mm."""
LOBE = (46.0, 84.0, 58.0)
"""Radii of a hemisphere, mm."""

TISSUES = {
    "fluid": (0.10, 0.20, 0.20, 1.00),
    "grey matter": (0.62, 0.60, 0.64, 0.56),
    "white matter": (0.50, 0.80, 0.82, 0.38),
    "thalamus": (0.56, 0.67, 0.70, 0.46),
    "striatum": (0.59, 0.61, 0.65, 0.51),
    "pallidum": (0.45, 0.71, 0.74, 0.33),
    "stem": (0.51, 0.73, 0.75, 0.43),
    "cerebellum": (0.58, 0.60, 0.64, 0.53),
    "plexus": (0.55, 0.42, 1.00, 0.85),
    "vein": (0.30, 0.35, 1.10, 0.35),
}
"""Signal of FLAIR, T1w, T1w after gadolinium and T2w, relative to the brightest healthy tissue."""

HORNS = (
    ((8, -34, 2, 3.5), (9, -26, 10, 5), (8, -12, 16, 5), (9, 4, 19, 4.6), (14, 20, 19, 5), (23, 34, 11, 6.5)),
    ((23, 34, 11, 6.5), (23, 48, 6, 4), (20, 60, 4, 2)),
    ((23, 34, 11, 6), (31, 26, -2, 4), (32, 10, -13, 3), (29, -4, -18, 2)),
)  # fmt: skip
"""Frontal horn and body, occipital horn, temporal horn of a lateral ventricle: (x, y, z, radius) in mm."""
STEM = ((0, 9, -2, 14), (0, 9, -16, 14), (0, 12, -34, 13), (0, 22, -54, 9), (0, 28, -80, 7))
"""Midbrain to medulla."""


class Healthy(NamedTuple):
    """A brain without a tumour, at a row of points."""

    signals: Array
    """(4, points)."""
    white: Array
    """Share of white matter, along which oedema spreads."""
    fluid: Array
    """Share of fluid, where there is no oedema."""
    barrier: Array
    """Distance to ventricles, falx and skull, which a tumour does not cross, mm."""


@dataclass(frozen=True)
class Brain:
    """One healthy brain."""

    sulci: Sulci
    grain: Grain
    atrophy: float
    """0 young to 1 old: wide sulci and ventricles."""
    ribbon: float
    """Thickness of the cortex, mm."""

    @classmethod
    def draw(cls, rng: Generator) -> Brain:
        """Another brain."""
        age = float(rng.uniform())
        return cls(Sulci.draw(rng, float(rng.uniform(28, 33))), Grain.draw(rng), age, float(rng.uniform(2.4, 3.0)))

    def hull(self, at: Points) -> Array:
        """Distance to the smooth outer surface of the whole brain."""
        return union(union(_cerebrum(at), _cerebellum(at), 16), _stem(at), 16)

    def paint(self, at: Points, width: float) -> Healthy:
        """Tissues at a row of points, from the outside in; `width` is the size of a voxel, mm."""
        picture = Picture.of("fluid", at.x.size, width)
        cerebrum, cerebellum, stem = _cerebrum(at), _cerebellum(at), _stem(at)
        surface = self._cortex(at, np.maximum(cerebrum, 1.6 - cerebellum))
        picture.fill(surface, "grey matter")
        white = picture.fill(surface + self.ribbon + 0.35 * self.grain.at(at, 9), "white matter")
        self._leaves(picture, at, cerebellum)
        picture.fill(stem, "stem")
        for name, shape in _nuclei(at):
            picture.fill(np.maximum(shape, surface + 2), name)
        ventricles = self._ventricles(at)
        picture.fill(ventricles, "fluid")
        solid = np.minimum(np.minimum(surface, stem), cerebellum)
        outside = 1 - coverage(solid, width)
        self._enhance(picture, at, outside, ventricles)
        fluid = np.maximum(outside, coverage(ventricles, width))
        barrier = np.minimum(np.minimum(ventricles, -1.5 - cerebrum), _midline(at) - 1)
        np.multiply(picture.values, 1 + 0.02 * self.grain.at(at, 13), out=picture.values)
        return Healthy(picture.values, white * (1 - fluid), fluid, barrier)

    def _cortex(self, at: Points, hull: Array) -> Array:
        """Distance to the folded surface of the hemispheres."""
        side = np.where(at.x > 0, np.float32(1), np.float32(-1))
        x, y, z = (at.x - 22 * side) / LOBE[0], at.y / LOBE[1], (at.z - 8) / LOBE[2]
        reach = np.sqrt(x * x + y * y + z * z) + np.float32(1e-3)
        outwards = reach ** np.float32(-0.7)  # -1 would make every sulcus point straight at the middle
        bend = 2.5 * self.grain.at(at, 26)
        x, y, z = (c * outwards * np.float32(r) + bend for c, r in zip((x, y, z), LOBE, strict=True))
        on_hull = Points(x + 70 * side, y, z)
        apart = self.sulci.distance(on_hull) * np.clip(reach, 0.5, 1.2)
        bottom = 19 + 5 * self.grain.at(on_hull, 30)
        clefts = np.minimum(_midline(at), _sylvian(at, bend))
        below = np.maximum(np.minimum(-hull, 1.7 * clefts) - bottom, 0) + 30 * np.maximum(0.6 - reach, 0)
        sheet = np.minimum(np.sqrt(apart * apart + below * below), clefts)
        gap = 0.45 + 0.45 * self.atrophy + 0.035 * np.maximum(14 + hull, 0)
        surface: Array = np.maximum(hull + 0.8 + 0.8 * self.atrophy, gap - sheet)
        return surface

    def _ventricles(self, at: Points) -> Array:
        """Distance to the four ventricles."""
        side = Points(np.abs(at.x), at.y, at.z)
        wide = 0.7 + 0.75 * self.atrophy
        shape = ellipsoid(at, (0, 0, -3), (1.2 + 1.6 * self.atrophy, 13, 9))
        for horn in HORNS:
            for (ax, ay, az, ar), (bx, by, bz, br) in pairwise(smooth_path(horn, 12)):
                shape = union(shape, capsule(side, (ax, ay, az), (bx, by, bz), (ar * wide, br * wide)), 2.5)
        shape = np.where(at.z > 6, np.maximum(shape, 0.7 - side.x), shape)  # the septum
        fourth: Array = ellipsoid(at, (0, 33, -34), (7 * wide, 5, 9))
        return np.minimum(shape, fourth)

    def _leaves(self, picture: Picture, at: Points, shape: Array) -> None:
        """The cerebellum: fine leaves around a tree of white matter."""
        picture.fill(shape + 0.8, "cerebellum")
        near = np.flatnonzero(shape < 0)
        some, depth = at.row(near), -shape[near]
        around = np.sqrt(np.square(some.y - 30) + np.square(1.5 * (some.z + 30))) + 0.12 * np.abs(some.x)
        around = around + 1.2 * self.grain.at(some, 14)
        leaves = np.clip(3 * np.cos(around * np.float32(2 * np.pi / 5.5)) - 1.6, 0, 1) * np.clip(1.2 - depth / 10, 0, 1)
        picture.blend(near, 0.55 * leaves, "fluid")
        tree = coverage(9.5 + 3 * np.cos(around * np.float32(2 * np.pi / 11)) - depth, 2.5)
        picture.blend(near, tree, "white matter")

    def _enhance(self, picture: Picture, at: Points, outside: Array, ventricles: Array) -> None:
        """What takes up gadolinium in health: veins in the sulci, and the choroid plexus."""
        veins = outside * np.clip(1.5 * self.grain.at(at, 8) - 2.4, 0, 0.9)
        picture.blend(np.flatnonzero(veins > 0.02), veins[veins > 0.02], "vein")
        plexus = ellipsoid(Points(np.abs(at.x), at.y, at.z), (22, 33, 10), (1.8, 4.5, 2.2), turn("z", -35))
        picture.fill(np.maximum(plexus + 0.4 * self.grain.at(at, 5), ventricles + 0.3), "plexus")


@dataclass(frozen=True)
class Sulci:
    """Where the sulci run on the hull, as distance in mm to the nearest one."""

    lattice: Array
    """(n, n, n) distances at the nodes."""

    @classmethod
    def draw(cls, rng: Generator, wavelength: float) -> Sulci:
        """A random field of one wavelength; its phase tells how far the next change of sign is."""
        from scipy.ndimage import gaussian_filter

        white = rng.standard_normal((NODES,) * 3, np.float32)
        size = wavelength / CELL / 4.2
        field = gaussian_filter(white, size, mode="wrap") - gaussian_filter(white, 1.25 * size, mode="wrap")
        slope = np.sqrt(np.square(np.stack(np.gradient(field, CELL))).sum(axis=0))
        rate = np.float32(2 * np.pi / wavelength)
        return cls(np.abs(np.arctan2(field, slope / rate) / rate).astype(np.float32))

    def distance(self, at: Points) -> Array:
        """Distance at points, mm."""
        from scipy.ndimage import map_coordinates

        places = np.stack([at.z, at.y, at.x]) / np.float32(CELL)
        found: Array = map_coordinates(self.lattice, places, order=1, mode="grid-wrap", output=np.float32)
        return found


@dataclass(frozen=True)
class Picture:
    """Signals of a row of points while tissues are filled in."""

    values: Array
    """(4, points)."""
    width: float
    """Size of a voxel, mm."""

    @classmethod
    def of(cls, tissue: str, points: int, width: float) -> Picture:
        """One tissue everywhere."""
        return cls(np.repeat(np.array(TISSUES[tissue], np.float32)[:, None], points, axis=1), width)

    def fill(self, shape: Array, tissue: str) -> Array:
        """Blend a tissue in where a shape is; gives its share."""
        share = coverage(shape, self.width)
        for i, tone in enumerate(TISSUES[tissue]):
            self.values[i] += share * (np.float32(tone) - self.values[i])
        return share

    def blend(self, where: NDArray[np.intp], share: Array, tissue: str) -> None:
        """Blend a tissue in at some of the points."""
        for i, tone in enumerate(TISSUES[tissue]):
            before = self.values[i, where]
            self.values[i, where] = before + share * (np.float32(tone) - before)


def _cerebrum(at: Points) -> Array:
    """Distance to the hull of both hemispheres, which is narrower in front."""
    side = Points(np.abs(at.x), at.y, at.z)
    dome = ellipsoid(Points(at.x * (1 - 0.0014 * at.y), at.y, at.z), (0, 0, 6), (67, 86, 66))
    base = overlap(plane(at, (0, -40, -20), (0, -0.1, -1)), plane(at, (0, 40, -14), (0, 0.2, -1)), 12)
    temporal = ellipsoid(side, (41, -6, -22), (23, 44, 20), turn("z", -10) @ turn("x", -8))
    return union(overlap(dome, base, 16), temporal, 8)


def _cerebellum(at: Points) -> Array:
    """Distance to the cerebellum."""
    lobe = ellipsoid(Points(np.abs(at.x), at.y, at.z), (21, 48, -36), (28, 26, 23), turn("y", 14))
    return union(lobe, ellipsoid(at, (0, 48, -32), (14, 22, 18)), 8)


def _stem(at: Points) -> Array:
    """Distance to midbrain, pons and medulla."""
    shape = ellipsoid(at, (0, 2, -27), (16, 11, 12))
    for (ax, ay, az, ar), (bx, by, bz, br) in pairwise(STEM):
        shape = union(shape, capsule(at, (ax, ay, az), (bx, by, bz), (ar, br)), 4)
    return shape


def _nuclei(at: Points) -> list[tuple[str, Array]]:
    """Caudate nucleus (head and body), putamen, pallidum, thalamus."""
    side = Points(np.abs(at.x), at.y, at.z)
    return [
        ("striatum", ellipsoid(side, (13, -23, 8), (5.5, 10, 8), turn("z", -14))),
        ("striatum", ellipsoid(side, (17, -2, 21), (4, 18, 4), turn("z", -12))),
        ("striatum", ellipsoid(side, (26, -5, 3), (5.5, 16, 10), turn("z", 10))),
        ("pallidum", ellipsoid(side, (19.5, -3, 1), (4, 9, 6.5), turn("z", 20))),
        ("thalamus", ellipsoid(side, (11, 10, 6), (8.5, 15, 9), turn("z", 24))),
    ]


def _midline(at: Points) -> Array:
    """Distance to the cleft between the hemispheres, which ends at the callosum and what lies under it."""
    core = ellipsoid(Points(np.zeros_like(at.x), at.y, at.z), (0, -1, 4), (1, 44, 25))
    inside = np.maximum(-core, 0)
    distance: Array = np.sqrt(at.x * at.x + inside * inside)
    return distance


def _sylvian(at: Points, bend: Array) -> Array:
    """Distance to the cleft above the temporal lobe and to the one over the insula."""
    x = np.abs(at.x) + 0.5 * bend
    rise = at.z + 9 - 0.4 * (at.y + 12) + 0.6 * bend
    along = np.maximum(np.maximum(np.abs(at.y + 2) - 30, 37 - x), 0)
    cleft = np.sqrt(np.square(rise) * np.float32(0.86) + along * along)
    beyond = np.maximum(np.abs(at.y + 6) - 20, 0) + np.maximum(np.abs(at.z - 1) - 11, 0)
    insula = np.sqrt(np.square(x - 38 - 0.004 * np.square(at.y + 6)) + beyond * beyond)
    distance: Array = np.minimum(cleft, insula)
    return distance
