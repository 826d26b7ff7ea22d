"""Stomach, duodenum, colon and small bowel, which fill what the other organs leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attentus.data.phantom.shapes import FAR, overlap, smooth_path, tube
from attentus.data.phantom.trees import grow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.random import Generator
    from numpy.typing import NDArray

    from attentus.data.phantom.canvas import Canvas
    from attentus.data.phantom.contrast import Contrast
    from attentus.data.phantom.shapes import Array, Rod
    from attentus.data.phantom.texture import Grain
    from attentus.data.phantom.trunk import Body


@dataclass(frozen=True)
class Gut:
    """One hollow tube: a wall around gas in front, and fluid or stool behind."""

    path: NDArray[np.float64]
    """(n, 4): centre line and outer radius, mm."""
    wall: float
    """Thickness, mm."""
    content: float
    """Hounsfield units of what is not gas."""
    bubbles: float
    """0 for fluid, to 1 for stool full of gas."""
    level: float
    """Gas floats in front of this y, mm."""
    gap: float
    """Fat between this tube and its neighbours, mm."""

    def paint(self, canvas: Canvas, contrast: Contrast, grain: Grain) -> None:
        """The wall, then what it holds."""
        part = canvas.along(self.path, float(self.path[:, 3].max()) + 3)
        if part is None:
            return
        shape = overlap(tube(part.soft, self.path[:, :3], self.path[:, 3], reach=3), self.gap - part.taken, 5)
        part.paint(shape, contrast["gut wall"])
        part.claim(shape)
        self.fill(part, shape + self.wall, contrast, grain)

    def fill(self, part: Canvas, lumen: Array, contrast: Contrast, grain: Grain) -> None:
        """What a lumen holds."""
        part.paint(lumen, self.content)
        gas = part.soft.y - np.float32(self.level)
        if self.bubbles:
            near = np.flatnonzero(lumen < 2)
            froth = np.full(lumen.shape, FAR, np.float32)
            froth.ravel()[near] = 3.2 * (1.9 - 1.3 * self.bubbles - grain.at(part.soft.row(near), 6))
            gas = np.minimum(gas, froth)
        part.paint(np.maximum(gas, lumen + 0.4), contrast["gas"])


@dataclass(frozen=True)
class Colon:
    """One long tube with a sacculated wall, and lengths of stool and gas in it."""

    path: NDArray[np.float64]
    """(n, 4): centre line and outer radius, mm."""
    pieces: list[Gut]
    """What each length holds."""

    def paint(self, canvas: Canvas, contrast: Contrast, grain: Grain) -> None:
        """The wall as a whole, then the content of each length."""
        part = canvas.along(self.path, float(self.path[:, 3].max()) + 3)
        if part is None:
            return
        shape = overlap(tube(part.soft, self.path[:, :3], self.path[:, 3], reach=3), 1.2 - part.taken, 5)
        part.paint(shape, contrast["gut wall"])
        part.claim(shape)
        for piece in self.pieces:
            room = float(piece.path[:, 3].max()) + 3
            box = part.soft.find(piece.path.min(axis=0)[:3] - room, piece.path.max(axis=0)[:3] + room)
            if box is not None:
                lumen = np.maximum(
                    tube(part.soft[box], piece.path[:, :3], piece.path[:, 3] + 2, 3), shape[box] + piece.wall
                )
                piece.fill(part[box], lumen, contrast, grain)


@dataclass(frozen=True)
class Bowel:
    """All of the gut below the diaphragm."""

    contrast: Contrast
    grain: Grain
    tubes: Sequence[Gut | Colon]
    vessels: list[Rod]
    """Branches of the superior mesenteric vessels."""

    @classmethod
    def draw(cls, rng: Generator, body: Body, contrast: Contrast, grain: Grain) -> Bowel:
        """Another gut."""
        tubes: list[Gut | Colon] = [
            _stomach(rng, body, contrast),
            _duodenum(rng, body, contrast),
            _colon(rng, body, contrast),
        ]
        loops = _loops(rng, body, contrast)
        stem = [(-4, -56, -6), (-2, -62, -40), (-6, -66, -90)]
        tissue = np.array([loop.path[i, :3] for loop in loops for i in (0, -1)])
        return cls(contrast, grain, [*tubes, *loops], grow([stem], tissue, 4.0, 1.2))

    def paint(self, canvas: Canvas) -> None:
        """Mesenteric vessels, then every tube in order; later ones yield."""
        canvas.paint_rods(self.vessels, self.contrast["portal vein"], within=-canvas.taken)
        for tube_ in self.tubes:
            tube_.paint(canvas, self.contrast, self.grain)


def _stomach(rng: Generator, body: Body, contrast: Contrast) -> Gut:
    knots = np.array(_STOMACH, float)
    full = rng.uniform(0.7, 1.08)
    knots[:, 3] *= np.maximum(full, np.linspace(1.0, 0.5, len(knots)))
    knots[:, :3] += rng.normal(0, 3, (len(knots), 3))
    knots[:3, 2] += body.left_dome - 92
    path = smooth_path(body.adapt(knots))
    content = float(rng.choice([contrast["gut fluid"], contrast["gut fluid"], 60, 210]))
    return Gut(
        path, float(rng.uniform(3, 5.5)), content, float(rng.choice([0, 0, 0.45])), float(rng.uniform(-100, -58)), 1.5
    )


def _duodenum(rng: Generator, body: Body, contrast: Contrast) -> Gut:
    knots = np.array(_DUODENUM, float)
    knots[:, :3] += rng.normal(0, 1.5, (len(knots), 3))
    return Gut(smooth_path(body.adapt(knots)), 2.5, contrast["gut fluid"], 0, -74, 1)


def _colon(rng: Generator, body: Body, contrast: Contrast) -> Colon:
    knots = np.array(_COLON, float)
    knots[:, :3] += rng.normal(0, 5, (len(knots), 3))
    knots[:, 3] *= rng.uniform(0.8, 1.15)
    path = smooth_path(body.adapt(knots), 5)
    run = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path[:, :3], axis=0), axis=1))])
    path[:, 3] *= 0.92 + 0.14 * np.sin(run * 2 * np.pi / 34) * (run < 0.7 * run[-1])
    pieces = []
    for start in range(0, len(path) - 1, 11):
        piece = path[start : start + 12]
        level = piece[:, 1].mean() + piece[:, 3].mean() * rng.uniform(-1, 0.5)
        pieces.append(
            Gut(piece, 2.2, contrast["stool"] + rng.normal(0, 8), float(rng.uniform(0, 0.8)), float(level), 1.2)
        )
    return Colon(path, pieces)


def _loops(rng: Generator, body: Body, contrast: Contrast) -> list[Gut]:
    """Short bent tubes, packed as they come."""
    loops = []
    for _ in range(70):
        middle = np.array([0, -58, -78]) + rng.uniform(-1, 1, 3) * (88, 46, 72)
        if middle[2] > -30 and middle[0] < 10:
            continue  # jejunum only on the left above
        heading = rng.normal(0, 1, 3) * (1, 0.7, 0.8)
        heading *= rng.uniform(16, 34) / np.linalg.norm(heading)
        bend = rng.normal(0, 9, 3)
        radius = rng.uniform(9, 13.5)
        knots = np.array([[*(middle - heading), radius], [*(middle + bend), radius], [*(middle + heading), radius]])
        gas = rng.uniform() < 0.12
        level = middle[1] - (radius * rng.uniform(0, 0.7) if gas else 99)
        fluid = contrast["gut fluid"] + float(rng.uniform(0, 0.8)) * (contrast["gut wall"] - contrast["gut fluid"])
        loops.append(Gut(smooth_path(body.adapt(knots), 11), float(rng.uniform(1.8, 3)), fluid, 0, level, 1.3))
    return loops


_STOMACH = (
    (60, 2, 79, 33), (60, -16, 70, 33), (62, -46, 54, 29), (56, -68, 28, 24), (36, -84, 4, 20), (8, -84, -8, 17),
    (-16, -76, -4, 12), (-30, -68, 2, 8),
)  # fmt: skip
_DUODENUM = (
    (-34, -66, 2, 12), (-46, -52, -2, 12), (-52, -38, -18, 12), (-50, -34, -44, 12), (-34, -38, -60, 11.5),
    (-4, -50, -60, 10.5), (20, -50, -48, 10.5), (30, -54, -34, 11),
)  # fmt: skip
_COLON = (
    (-84, -34, -150, 30), (-92, -16, -112, 28), (-94, -8, -76, 26), (-84, -22, -48, 26), (-72, -60, -44, 24),
    (-46, -88, -60, 23), (-10, -94, -74, 22), (28, -92, -66, 21), (62, -82, -34, 20), (86, -54, 4, 19),
    (98, -24, 30, 18), (104, 2, 6, 15), (104, 10, -40, 13), (98, 2, -90, 13), (86, -14, -140, 13),
)  # fmt: skip
