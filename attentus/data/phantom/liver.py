"""The liver: two lobes under the diaphragm, fissures, gallbladder, and the vessels inside."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from attentus.data.phantom.shapes import FAR, Points, ellipsoid, overlap, plane, turn, union, without
from attentus.data.phantom.trees import grow

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from attentus.data.phantom.canvas import Canvas
    from attentus.data.phantom.contrast import Contrast
    from attentus.data.phantom.shapes import Array, Rod, Vector
    from attentus.data.phantom.texture import Grain
    from attentus.data.phantom.trunk import Body
    from attentus.data.phantom.tumours import Tumour

LIVER = 1


@dataclass(frozen=True)
class Liver:
    """Shape, tissue and vessels."""

    body: Body
    contrast: Contrast
    grain: Grain
    lower: float
    """How much further down and to the middle the under side lies than usual, mm."""
    left: float
    """Length of the left lobe from the midline, mm."""
    steep: float
    """Slope of the under side, degrees more than usual."""
    gallbladder: tuple[Vector, Vector] | None
    """Centre and radii, mm; None where it was taken out."""
    tissue: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 3)))
    """(n, 3) points at least 5 mm deep, in random order; mm."""
    portal: list[Rod] = field(default_factory=list)
    hepatic: list[Rod] = field(default_factory=list)
    tumours: list[Tumour] = field(default_factory=list)

    @classmethod
    def draw(cls, rng: Generator, body: Body, contrast: Contrast, grain: Grain) -> Liver:
        """Another liver, without tumours."""
        full = rng.uniform(0.8, 1.15)
        centre = (-52 + rng.normal(0, 4), -70 + rng.normal(0, 4), 2 + rng.normal(0, 5))
        gallbladder = (centre, (14 * full, 14 * full, 34 * full)) if rng.uniform() > 0.12 else None
        lower, left, steep = rng.normal(0, 8), rng.uniform(45, 95), rng.normal(0, 4)
        plain = cls(body, contrast, grain, float(lower), float(left), float(steep), gallbladder)
        tissue = plain._sample(rng)
        few = tissue[:230]
        portal, hepatic = grow(PORTAL, few[::2], 7.0, 1.0), grow(HEPATIC, few[1::2], 8.0, 1.0)
        return replace(plain, tissue=tissue, portal=portal, hepatic=hepatic)

    def _sample(self, rng: Generator) -> NDArray[np.float64]:
        places = rng.uniform((-150, -150, -100), (110, 70, 130), (12000, 3))
        return places[self.depth(places) > 5]

    def depth(self, places: NDArray[np.float64]) -> Array:
        """How deep points (n, 3) lie, mm; negative outside."""
        x, y, z = places.astype(np.float32).T
        at = Points(x, y, z)
        inside: Array = -np.maximum(self.shape(at), self.body.room(at))
        return inside

    def shape(self, at: Points) -> Array:
        """The liver as it would be without neighbours."""
        pose = turn("y", self.steep)
        x, y, z = (float(c) for c in pose @ np.array((0.74, -0.2, -0.64)))
        right = plane(at, (-45 + 0.7 * self.lower, -30, 12 - 0.7 * self.lower), (x, y, z))
        right = overlap(right, plane(at, (-13, -34, 0), (0.85, 0.45, -0.05)), 12)
        tip = ellipsoid(at, (-6, -72, 58), (self.left, 62, 66))
        left = overlap(plane(at, (20, -60, 44 - 0.4 * self.lower), (0.3, 0.72, -0.62)), tip, 8)
        colon = ellipsoid(at, (-60, -66, -44), (34, 38, 34))
        return without(without(union(right, left, 14), colon, 12), _fissures(at), 3)

    def paint(self, canvas: Canvas) -> None:
        """Gallbladder, then liver, then its vessels."""
        if self.gallbladder is not None:
            self._gallbladder(canvas, *self.gallbladder)
        part = canvas.window((-170, -170, -130), (130, 90, 160))
        if part is None:
            return
        room = np.flatnonzero(part.taken > -4)
        at = part.soft.row(room)
        shape = np.full(part.taken.shape, FAR, np.float32)
        shape.ravel()[room] = self.shape(at)
        shape = part.fit(shape, 0)
        tone = np.zeros(shape.shape, np.float32)
        tone.ravel()[room] = 2.5 * self.grain.at(at, 22)
        part.paint(shape, self.contrast["liver"] + tone, LIVER)
        part.claim(shape)
        self._vessels(part, shape)
        for tumour in self.tumours:
            tumour.paint(part, shape, self.contrast["liver"], self.grain)

    def _vessels(self, part: Canvas, shape: Array) -> None:
        part.paint_rods(self.hepatic, self.contrast["hepatic vein"], within=shape + 2)
        part.paint_rods(self.portal, self.contrast["portal vein"], within=shape + 2)

    def _gallbladder(self, canvas: Canvas, centre: Vector, radii: Vector) -> None:
        part = canvas.around(centre, 50)
        if part is None:
            return
        pose = turn("x", -38) @ turn("y", 14)
        at = part.soft
        taper = 1 + 0.006 * np.clip((at.z - centre[2]), -40, 40)
        shape = part.fit(ellipsoid(at, centre, radii, pose) + (taper - 1) * 20, 1)
        part.paint(shape, self.contrast["gut wall"])
        part.paint(shape + 1.6, self.contrast["bile"])
        part.claim(shape - 0.5)


def _fissures(at: Points) -> Array:
    """Clefts of fat: of the round ligament, left of the gallbladder; of the venous ligament; and the porta."""
    lean = at.x + 8 - 0.12 * (at.y + 80)
    half = 2.2 + 0.05 * np.clip(30 - at.z, 0, 40)
    above = at.z - 40 - 0.15 * (at.y + 90)
    teres = np.maximum(np.maximum(np.abs(lean) - half, above), np.maximum(-108 - at.y, at.y + 52))
    venous = ellipsoid(at, (2, -49, 50), (24, 2.6, 26), turn("z", -24))
    porta = ellipsoid(at, (-34, -52, 27), (24, 9, 9), turn("z", 12))
    clefts: Array = np.minimum(np.minimum(teres, venous), porta)
    return clefts


PORTAL: tuple[tuple[Vector, ...], ...] = (
    ((-22, -50, 10), (-34, -54, 26), (-46, -50, 36), (-66, -44, 42)),
    ((-66, -44, 42), (-84, -62, 40), (-98, -66, 30)),
    ((-66, -44, 42), (-86, -20, 36), (-100, -4, 24)),
    ((-36, -53, 30), (-22, -62, 46), (0, -74, 56), (18, -84, 58)),
)
"""Trunk and right branch of the portal vein, its divisions to front and back, and the left branch; mm."""
HEPATIC: tuple[tuple[Vector, ...], ...] = (
    ((-22, -42, 92), (-48, -30, 84), (-76, -20, 62), (-98, -16, 34)),
    ((-22, -44, 92), (-38, -64, 80), (-50, -78, 56), (-58, -86, 30)),
    ((-20, -46, 92), (-6, -66, 80), (14, -80, 68)),
)
"""Right, middle and left hepatic vein from the vena cava."""
