"""The wall of the trunk: skin, subcutaneous fat, muscles, the cavity they enclose, and the diaphragm in it.

Outlines are drawn around a centre line as radius by angle and height. Angles run from 0 at the back over ±90 degrees
at the flanks (left is positive) to ±180 at the front. Heights are relative to the first lumbar vertebra.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from attentus.data.phantom.shapes import Array, Points, ellipsoid, union

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

CENTRE_Y = -28.0
"""The centre line of the outlines lies this far behind the vertebral bodies' centre, mm."""
TOP, BOTTOM, STEP_MM = 240.0, -240.0, 2.0
ANGLES = 1080
DEEP = np.float32(-60)
"""Distances below the diaphragm are not followed further, mm."""

LEVELS = (-110.0, -10.0, 80.0, 160.0)
"""Heights of the outlines below, mm: waist, kidneys, domes of the diaphragm, heart."""
CAVITY = (
    ((0, 25), (45, 33), (86, 24), (111, -6), (117, -40), (98, -76), (56, -97), (0, -102)),
    ((0, 30), (48, 43), (92, 33), (119, 0), (124, -40), (102, -82), (57, -104), (0, -110)),
    ((0, 40), (50, 57), (97, 40), (123, 0), (126, -43), (103, -86), (58, -108), (0, -112)),
    ((0, 44), (50, 62), (92, 45), (115, 3), (117, -42), (96, -82), (52, -104), (0, -107)),
)
"""Inner surface of the body wall, (x, y) from the back to the front, mm."""
FASCIA = (
    ((0, 74), (42, 82), (88, 68), (124, 26), (134, -34), (112, -86), (58, -111), (0, -109)),
    ((0, 75), (42, 83), (94, 67), (132, 22), (140, -40), (117, -93), (60, -118), (0, -119)),
    ((0, 74), (44, 84), (99, 68), (138, 12), (142, -45), (117, -98), (61, -122), (0, -123)),
    ((0, 76), (46, 87), (105, 74), (143, 8), (139, -47), (115, -97), (58, -119), (0, -120)),
)
"""Outer surface of the muscles."""
FAT = ((0, 7), (18, 10), (45, 20), (65, 19), (90, 14), (120, 11), (150, 14), (180, 13))
"""Thickness of the subcutaneous fat of a slim adult by angle, (degrees, mm)."""
FRONT = ((0, 1), (112, 1), (128, 0.85), (139, 0.32), (158, 0.8), (172, 0.55), (180, 0.3))
"""Thickness of the abdominal wall by angle: flat muscles, their tendon, the straight muscle, the white line."""


@dataclass(frozen=True)
class Outline:
    """A closed surface around the centre line: radius by height and angle."""

    radius: Array
    """(heights, angles), mm."""

    @cached_property
    def lean(self) -> Array:
        """Cosine between the radius and the surface's normal, which turns radial into true distance."""
        slope = (np.roll(self.radius, -1, 1) - np.roll(self.radius, 1, 1)) * (ANGLES / (4 * np.pi))
        cosine: Array = (1 / np.sqrt(1 + (slope / self.radius) ** 2)).astype(np.float32)
        return cosine

    def distance(self, polar: Polar) -> Array:
        """Signed distance, mm, positive outside."""
        outside: Array = (polar.radius - self.radius.ravel()[polar.index]) * self.lean.ravel()[polar.index]
        return outside


@dataclass(frozen=True)
class Polar:
    """Points as radius and angle about the centre line, with their place in the tables of an `Outline`."""

    radius: Array
    angle: Array
    """Degrees, -180..180."""
    index: NDArray[np.int32]

    @classmethod
    def of(cls, at: Points) -> Polar:
        """Polar coordinates of points."""
        y = at.y - np.float32(CENTRE_Y)
        angle = np.arctan2(at.x, y)
        column = ((angle + np.float32(np.pi)) * np.float32(ANGLES / (2 * np.pi))).astype(np.int32) % ANGLES
        row = np.clip((at.z - np.float32(BOTTOM)) / np.float32(STEP_MM), 0, _rows() - 1).astype(np.int32)
        return cls(np.sqrt(at.x * at.x + y * y), angle * np.float32(180 / np.pi), row * ANGLES + column)


@dataclass(frozen=True)
class Body:
    """Size and habitus of one person."""

    stature: float
    """Scale of everything."""
    width: float
    """Further scale of the trunk from side to side."""
    depth: float
    """Scale of the part in front of the centre line."""
    fat: float
    """Subcutaneous fat relative to a slim adult."""
    belly: float
    """How far visceral fat pushes the front wall out at the waist, mm."""
    muscle: float
    """Scale of the muscles of the wall."""
    right_dome: float
    """Height of the right dome of the diaphragm, mm."""
    left_dome: float
    recess: float
    """Height of the deepest point of the lungs at the flank, mm."""
    habitus: str

    @classmethod
    def draw(cls, rng: Generator) -> Body:
        """From thin to obese."""
        habitus = str(rng.choice(["thin", "normal", "overweight", "obese"], p=[0.2, 0.4, 0.25, 0.15]))
        fat, belly, width = {
            "thin": ((0.4, 0.8), (-8, 0), (0.92, 1.0)),
            "normal": ((0.8, 1.4), (0, 10), (0.97, 1.05)),
            "overweight": ((1.3, 2.1), (8, 24), (1.02, 1.12)),
            "obese": ((1.8, 3.0), (20, 44), (1.08, 1.2)),
        }[habitus]
        dome = rng.uniform(100, 116)
        return cls(
            stature=float(rng.uniform(0.94, 1.05)),
            width=float(rng.uniform(*width)),
            depth=float(rng.uniform(0.93, 1.06)),
            fat=float(rng.uniform(*fat)),
            belly=float(rng.uniform(*belly)),
            muscle=float(rng.uniform(0.8, 1.15)),
            right_dome=float(dome),
            left_dome=float(dome - rng.uniform(10, 24)),
            recess=float(rng.uniform(4, 18)),
            habitus=habitus,
        )

    @cached_property
    def cavity(self) -> Outline:
        """Inner surface of the wall."""
        return Outline(self._table(CAVITY))

    @cached_property
    def fascia(self) -> Outline:
        """Outer surface of the muscles."""
        inner, outer = self._table(CAVITY), self._table(FASCIA)
        degrees, share = np.array(FRONT, float).T
        thin = _smooth(np.interp(np.abs(_degrees()), degrees, share), 5)
        abdomen = np.interp(_heights(), (30, 90), (1, 0))[:, None]
        thickness = (outer - inner) * np.float32(self.muscle) ** _sides()
        return Outline((inner + thickness * (1 + abdomen * (thin - 1))).astype(np.float32))

    @cached_property
    def skin(self) -> Outline:
        """Surface of the body."""
        degrees, thickness = np.array(FAT, float).T
        around = np.interp(np.abs(_degrees()), degrees, thickness)
        around = _smooth(around, 30)
        heights = np.interp(_heights(), (-120, -40, 60, 160), (1.25, 1.0, 0.7, 0.6))
        muscles = self._table(FASCIA)
        radius = muscles + self.fat * heights[:, None] * around
        couch = (80 + 4 + 5 * self.fat - CENTRE_Y) / np.maximum(np.cos(np.radians(_degrees())), 0.2)
        flat = np.maximum(couch, muscles + 3)
        return Outline((flat - _softplus(flat - radius, 4)).astype(np.float32))

    @cached_property
    def extent(self) -> tuple[float, float]:
        """Greatest width and depth of the trunk, mm."""
        front, back = self.front_and_back
        return 2 * float((self.skin.radius * np.sin(np.radians(_degrees()))).max()), back - front

    @cached_property
    def front_and_back(self) -> tuple[float, float]:
        """Y of the foremost and the rearmost skin, mm."""
        y = self.skin.radius[20:-20] * np.cos(np.radians(_degrees())) + CENTRE_Y
        return float(y.min()), float(y.max())

    def room(self, at: Points) -> Array:
        """Distance to the space for organs, mm: inside the wall and below the diaphragm."""
        free: Array = np.maximum(self.cavity.distance(Polar.of(at)) + 2, self.under(at) + 1.2)
        return free

    def adapt(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (n, 3 or more: x, y, z) of the drawing moved to where they lie in this body."""
        moved = np.array(points, float)
        push = self.belly * np.interp(points[:, 2], (-110, 80, 160), (1, 0.25, 0))
        before = points[:, 1] < CENTRE_Y
        ahead = CENTRE_Y + (points[:, 1] - CENTRE_Y) * self.depth - push * np.clip((CENTRE_Y - points[:, 1]) / 80, 0, 1)
        moved[:, 0] = points[:, 0] * self.width
        moved[:, 1] = np.where(before, ahead, points[:, 1])
        return moved

    def _table(self, outlines: tuple[tuple[tuple[float, float], ...], ...]) -> Array:
        rings = []
        for level, outline in zip(LEVELS, outlines, strict=True):
            points = self.adapt(np.array([(x, y, level) for x, y in outline], float))
            rings.append(_ring(points[:, 0], points[:, 1] - CENTRE_Y))
        place = np.interp(_heights(), LEVELS, range(len(LEVELS)))
        lower = np.minimum(place.astype(int), len(LEVELS) - 2)
        share = (place - lower)[:, None]
        table = np.array(rings)[lower] * (1 - share) + np.array(rings)[lower + 1] * share
        return _smooth(table.T, 5).T.astype(np.float32)

    def under(self, at: Points) -> Array:
        """Distance to the space below the diaphragm, mm: positive in the chest, negative in the abdomen down to -60."""
        base = at.z - np.float32(self.recess) + np.float32(0.27) * (at.y + np.float32(30))
        if base.max() <= DEEP:
            return np.full_like(base, DEEP)
        sheared = Points(at.x, at.y, base)
        radius = 66 * self.width
        right = ellipsoid(sheared, (-radius + 4, -30, 0), (radius, 84, self.right_dome - self.recess))
        left = ellipsoid(sheared, (radius - 3, -28, 0), (radius - 2, 82, self.left_dome - self.recess))
        middle = ellipsoid(sheared, (0, -45, 0), (60, 66, self.left_dome - self.recess - 6))
        dome = union(union(right, left, 14), middle, 14)
        return np.maximum(union(dome, base, 6), DEEP)


def _softplus(values: NDArray[np.float64], blend: float) -> NDArray[np.float64]:
    """max(values, 0) with the corner rounded."""
    return np.asarray(np.maximum(values, 0) + blend * np.log1p(np.exp(-np.abs(values) / blend)))


def _rows() -> int:
    return round((TOP - BOTTOM) / STEP_MM) + 1


def _heights() -> Array:
    return BOTTOM + STEP_MM * np.arange(_rows())


def _degrees() -> Array:
    return (np.arange(ANGLES) + 0.5) * (360 / ANGLES) - 180


def _sides() -> Array:
    """1 at the flanks and in front, 0 at the back, where bones hold the outline."""
    return np.clip((np.abs(_degrees()) - 50) / 30, 0, 1).astype(np.float32)


def _ring(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Radius by angle of the symmetric outline through points given for the left half, back to front."""
    from scipy.interpolate import CubicSpline

    angle, radius = np.arctan2(x, y), np.hypot(x, y)
    both = np.concatenate([angle - 2 * np.pi, -angle[::-1], angle, 2 * np.pi - angle[::-1]])
    order = np.argsort(both)
    values = np.concatenate([radius, radius[::-1], radius, radius[::-1]])[order]
    keep = np.concatenate([[True], np.diff(both[order]) > 1e-6])
    spline = CubicSpline(both[order][keep], values[keep])
    return np.asarray(spline(np.radians(_degrees())))


def _smooth(values: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Mean over `width` degrees along the first axis, which runs once around."""
    from scipy.ndimage import uniform_filter1d

    return np.asarray(uniform_filter1d(values, max(1, round(width * ANGLES / 360)), axis=0, mode="wrap"))
