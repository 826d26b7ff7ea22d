"""Surfaces in three dimensions, coloured by their signed distance to another one (DPC-Net, Figs. 4 and 7)."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from attentus.errors import BadInput
from attentus.metrics.mesh import mesh, to_mesh
from attentus.metrics.overlap import check_masks
from attentus.metrics.surface import joint_box
from attentus.report.charts import Chart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from attentus.types import Grid

    Mask = NDArray[np.bool_]
    Points = NDArray[np.float64]

MOST = 6000
"""Triangles drawn at most."""
PASSES = 3
"""How often drawn surfaces are smoothed."""
COLOURS, SHADES = "RdBu_r", 41
"""From too small (blue) through right (white) to too large (red), told apart with any colour vision."""
STEPS = (0.5, 1, 2, 3, 5, 10, 20, 50, 100)
"""Ends of the colour scale, mm."""
SIDE, DEPTH, SCALE, EDGE = 250.0, 40.0, 340.0, 24.0
"""Size of one picture, height and width of the colour bar with its words, and room beside it, px."""
TURNS = ((-35.0, 20.0), (145.0, 20.0))
"""Where the still pictures look from, degrees: round the body from the front, and down from above."""
ROUND = 1e-6
"""Voxels that rounding may move a corner."""
PNG_COLOURS = 256
"""Colours of a still picture; more cannot be told apart and take much room."""
LIGHT = 0.45
"""Brightness of what is seen edge-on."""


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles in the patient with a signed distance at every corner."""

    points: Points
    """(V, 3), where corners are drawn, mm along (L, P, S) from the middle of the surface."""
    triangles: NDArray[np.integer]
    """(T, 3) numbers of points, in the order in which normals look outwards."""
    at: Points
    """(V, 3), the corners of the full surface at which distances were measured, from the same middle."""
    distance: NDArray[np.float64]
    """(V,) mm to the other surface: above 0 outside of it, below 0 inside."""


def surface(mask: Mask, other: Mask, grid: Grid, most: int = MOST) -> Surface:
    """The surface of one mask and how far it lies from the surface of another.

    Large surfaces are made coarser for drawing: corners within a cell of a lattice become one. Each is measured at the
    corner of the full surface that is nearest to their mean, against the full other surface, exactly. A corner lies
    between two voxels, of which one is of the mask: it is outside if neither is of the other mask, inside if both are.

    Args:
        mask: boolean (z, y, x), not empty: what is drawn, usually the prediction.
        other: of the same shape, not empty: usually the reference.
        grid: where they lie.
        most: triangles the drawn surface may have.

    Raises:
        BadInput: a mask is empty, or there is only one slice.
        MissingExtra: scikit-image is not installed.
    """
    check_masks(mask, other)
    if not mask.any() or not other.any() or min(mask.shape) < 2:
        raise BadInput("A surface with distances needs two masks in three dimensions that are not empty.")
    window = joint_box(mask, other)
    (points, triangles), goal = (mesh(one[window], grid.spacing) for one in (mask, other))
    group, few = _coarser(points, triangles, most)
    mean, chosen = _means(points, group)
    world, drawn = ((p @ np.asarray(grid.direction)) for p in (points[chosen], _smoothed(mean, few)))
    middle = (drawn.min(axis=0) + drawn.max(axis=0)) / 2
    distance = _side(points[chosen], other[window], grid.spacing) * to_mesh(points[chosen], *goal)
    return Surface(drawn - middle, _outwards(drawn - middle, few), world - middle, distance)


def _side(points: Points, other: Mask, spacing: Sequence[float]) -> NDArray[np.float64]:
    """1 for corners outside of a mask, -1 inside, 0 on its surface."""
    index = points / np.asarray(spacing) + 1  # of the padded mask
    padded = np.pad(other, 1)
    low, high = (padded[tuple(edge.astype(int).T)] for edge in (np.floor(index + ROUND), np.ceil(index - ROUND)))
    side: NDArray[np.float64] = 1.0 - low - high
    return side


def _coarser(points: Points, triangles: NDArray[np.integer], most: int) -> tuple[NDArray[np.intp], NDArray[np.integer]]:
    """For each corner the number of the one that stands for it, and the triangles that are left."""
    edges = points[triangles[:, 1]] - points[triangles[:, 0]]
    cell = float(np.linalg.norm(edges, axis=1).mean())
    group, few = np.arange(len(points)), triangles
    while len(few) > most:
        cell *= 1.15
        keys = np.floor((points - points.min(axis=0)) / cell).astype(np.int64)
        group = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
        few = group[triangles]
        few = few[(few[:, 0] != few[:, 1]) & (few[:, 1] != few[:, 2]) & (few[:, 0] != few[:, 2])]
        few = few[np.sort(np.unique(np.sort(few, axis=1), axis=0, return_index=True)[1])]
    return group, few


def _means(points: Points, group: NDArray[np.intp]) -> tuple[Points, NDArray[np.intp]]:
    """Mean of each group, and the number of its corner that lies nearest to it."""
    counts = np.bincount(group)
    mean = np.stack([np.bincount(group, points[:, k]) / counts for k in range(3)], axis=1)
    away = np.linalg.norm(points - mean[group], axis=1)
    order = np.lexsort((away, group))
    return mean, order[np.searchsorted(group[order], np.arange(len(counts)))]


def _smoothed(points: Points, triangles: NDArray[np.integer]) -> Points:
    """Points moved half way to the mean of their neighbours, `PASSES` times: the steps of voxels disappear."""
    from scipy.sparse import coo_matrix

    here = np.concatenate([triangles[:, k] for k in (0, 1, 2)])
    there = np.concatenate([triangles[:, k] for k in (1, 2, 0)])
    ends = (np.r_[here, there], np.r_[there, here])
    near = coo_matrix((np.ones(len(ends[0])), ends), shape=(len(points), len(points))).tocsr()
    total = np.asarray(near.sum(axis=1))
    for _ in range(PASSES):
        points = np.where(total > 0, (points + near @ points / np.maximum(total, 1)) / 2, points)
    return points


def limit(distances: Sequence[NDArray[np.float64]]) -> float:
    """A round end of the colour scale that holds 98 % of all corners, mm."""
    every = np.abs(np.concatenate(list(distances)))
    reach = float(np.percentile(every, 98)) if every.size else 0.0
    return next((float(step) for step in STEPS if step >= reach), float(STEPS[-1]))


def panel(found: Surface, end: float, title: str, what: str) -> Chart:
    """A surface from two sides with its colour scale; on a page it can be turned.

    Args:
        found: the surface.
        end: of the colour scale, mm.
        title: of the panel.
        what: for the alternative text, e.g. "liver of case 7, prediction against reference".
    """
    views, wide = _views(found, end), SIDE * len(TURNS)
    below = Markup('<g transform="translate(0 {:g})">{}</g>').format(SIDE, _bar(end, wide))
    label = f"{what}, from two sides"
    still = _svg([*views, below], (wide, SIDE + DEPTH), label)
    bar = _svg([_bar(end, SCALE)], (SCALE, DEPTH), f"Colours from −{end:g} to +{end:g} mm", "scale")
    words = f"{what}. Drag, or use the arrow keys, to turn; + and − to come nearer, 0 to begin anew."
    frame = Markup('<div class="surface" data-mesh="{}" data-what="{}">{}</div>')
    low, high = (f"{float(edge):+.1f}".replace("-", "−") for edge in (found.distance.min(), found.distance.max()))
    mean = float(np.abs(found.distance).mean())
    across = float(np.ptp(found.points, axis=0).max())
    measured = f"{low} to {high} mm, mean without sign {mean:.2f} mm, at {len(found.distance):,} points."
    note = f"{across:.0f} mm across. {measured}"
    clipped = " What lies beyond the scale has its last colours." if np.abs(found.distance).max() > end else ""
    inner = Markup("").join([_svg(views, (wide, SIDE), label, "still"), bar])
    live = frame.format(json.dumps(_packed(found, end)), words, inner)
    return Chart(title, still, note + clipped, live)


def projected(points: Points, turn: float, tilt: float) -> Points:
    """Points as seen: (V, 3) to the right, upwards and away from the eye.

    Args:
        points: (V, 3) along (L, P, S).
        turn: degrees round the body; 0 looks from the front, the patient's left on the right.
        tilt: degrees from above.
    """
    a, b = math.radians(turn), math.radians(tilt)
    left, back, up = points.T
    right, deep = left * math.cos(a) + back * math.sin(a), back * math.cos(a) - left * math.sin(a)
    return np.stack([right, up * math.cos(b) + deep * math.sin(b), deep * math.cos(b) - up * math.sin(b)], axis=1)


def _outwards(points: Points, triangles: NDArray[np.integer]) -> NDArray[np.integer]:
    """Triangles whose normals look outwards: the volume they hold is then positive."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    inside_out = float(np.einsum("ij,ij->", a, np.cross(b, c))) < 0
    return triangles[:, ::-1] if inside_out else triangles


def _palette() -> NDArray[np.uint8]:
    """(SHADES, 3) colours from too small to too large."""
    from matplotlib import colormaps

    colours: NDArray[np.uint8] = colormaps[COLOURS](np.linspace(0, 1, SHADES), bytes=True)[:, :3]
    return colours


def _levels(found: Surface, end: float) -> NDArray[np.intp]:
    """For each triangle the place of its colour in the palette."""
    mean = found.distance[found.triangles].mean(axis=1)
    level: NDArray[np.intp] = np.rint((mean / end).clip(-1, 1) * (SHADES // 2)).astype(np.intp) + SHADES // 2
    return level


def _radius(found: Surface) -> float:
    return float(np.linalg.norm(found.points, axis=1).max())


def _packed(found: Surface, end: float) -> dict[str, object]:
    """What the viewer of the page needs; points as 16-bit shares of the radius."""
    radius = _radius(found)
    kind = "<u2" if len(found.points) < 65536 else "<u4"
    return {
        "points": _text(np.rint(found.points / radius * 32767).astype("<i2")),
        "triangles": _text(found.triangles.astype(kind)),
        "wide": kind == "<u4",
        "levels": _text(_levels(found, end).astype(np.uint8)),
        "palette": _palette().tolist(),
        "radius": radius,
        "light": LIGHT,
        "turn": TURNS[0],
    }


def _text(array: NDArray[np.generic]) -> str:
    return b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _svg(parts: Sequence[Markup], size: tuple[float, float], label: str, css: str = "") -> Markup:
    head = Markup('<svg class="chart {}" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">')
    return head.format(css, *size, label) + Markup("").join(parts) + Markup("</svg>")


def _views(found: Surface, end: float) -> list[Markup]:
    """The surface from two sides."""
    image = Markup('<image x="{:g}" y="0" width="{:g}" height="{:g}" href="{}"/>')
    parts = []
    for k, (turn, tilt) in enumerate(TURNS):
        parts.append(image.format(k * SIDE, SIDE, SIDE, _raster(found, end, turn, tilt)))
        parts += _letters(turn, tilt, k * SIDE)
    return parts


def _raster(found: Surface, end: float, turn: float, tilt: float) -> str:
    """One view as a PNG, the furthest triangles first."""
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure
    from PIL import Image

    seen = projected(found.points, turn, tilt)
    corners = seen[found.triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    toward = normal[:, 2] / np.maximum(np.linalg.norm(normal, axis=1), 1e-12)
    front = np.flatnonzero(toward > 0)
    front = front[np.argsort(-corners[front, :, 2].mean(axis=1))]
    shade = LIGHT + (1 - LIGHT) * toward[front, None]
    colours = _palette()[_levels(found, end)[front]] / 255 * shade
    figure = Figure(figsize=(SIDE / 96, SIDE / 96), dpi=192)
    axes = figure.add_axes((0, 0, 1, 1))
    reach = 1.16 * _radius(found)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
    axes.set_axis_off()
    axes.add_collection(PolyCollection(corners[front, :, :2], facecolors=colours, edgecolors=colours, linewidths=0.3))
    figure.patch.set_visible(False)
    raw, file = BytesIO(), BytesIO()
    figure.savefig(raw, format="png")
    few = Image.open(raw).quantize(PNG_COLOURS, Image.Quantize.FASTOCTREE)
    few.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode('ascii')}"


def _letters(turn: float, tilt: float, left: float) -> list[Markup]:
    """Where the patient's sides lie in a view, at the rim; not those that point at the eye or away from it."""
    words = dict(zip("LPSRAI", np.vstack([np.eye(3), -np.eye(3)]), strict=True))
    text = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>')
    half = SIDE / 2
    drawn = []
    for letter, way in words.items():
        x, y, away = projected(way[None], turn, tilt)[0]
        if (aside := math.hypot(x, y)) > 0.6 and away < 0.4:
            drawn.append(text.format(left + half + 0.95 * half * x / aside, half - 0.95 * half * y / aside + 4, letter))
    return drawn


def _bar(end: float, width: float) -> Markup:
    """The colours and what they mean, mm, in the middle of a width in px."""
    across = SCALE - 2 * EDGE
    left = (width - across) / 2
    rect = Markup('<rect x="{:.1f}" y="4" width="{:.1f}" height="10" fill="rgb({},{},{})"/>')
    cells = [rect.format(left + across * k / SHADES, across / SHADES + 0.3, *rgb) for k, rgb in enumerate(_palette())]
    text = Markup('<text x="{:.1f}" y="30" text-anchor="middle">{}</text>')
    words = (f"−{end:g} mm", "inside", "0", "outside", f"+{end:g} mm")
    return Markup("").join([*cells, *(text.format(left + k * across / 4, word) for k, word in enumerate(words))])
