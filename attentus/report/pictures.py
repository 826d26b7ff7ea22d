"""Pictures of one case: three planes with reference and prediction, as SVG around an embedded grey image.

Outlines are vectors, so they stay sharp at any zoom and on paper; colours, and what is shown, are left to the page's
style sheet. One unit of a picture is one CSS pixel; all planes of a case share one scale, so they can be compared.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup

from attentus.report.slices import AXIAL, Plane, Range, cut, display_range, fullest, grey, letters, planes_of, region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from attentus.types import Grid

WIDEST, TALLEST = 340.0, 400.0
"""Largest size of a picture, px."""
MARGIN, LEAST = 25.0, 100.0
"""How much of the scan is shown around the structures, and at least, mm."""
FINEST = 0.4
"""Points of an outline closer than this are left out, px."""
LARGEST = 1024
"""An embedded image has at most so many pixels a side."""
LOSSLESS = 40_000
"""Up to so many pixels an image is embedded as PNG, beyond as JPEG."""
HEAT, OPAQUE = "inferno", 0.75
"""Colours of values laid over an image, readable without colour vision and in print, and their largest opacity."""
COLOURS = 7
"""Structures of different colour; the style sheet knows them as s0, s1, ... and draws later rounds dashed."""

BAR_LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


@dataclass(frozen=True, eq=False)
class Scene:
    """What is drawn of one case: arrays (z, y, x) on one grid; labels hold 0 and `values`."""

    image: NDArray[Any]
    reference: NDArray[np.integer]
    prediction: NDArray[np.integer]
    grid: Grid
    values: tuple[int, ...]
    """Label values of the structures, in the order of their colours."""
    geometry: bool = True
    """Whether millimetres and orientation are known; pictures such as PNG do not say."""
    heat: NDArray[Any] | None = None
    """Values (z, y, x) laid over the image in colours."""
    heat_range: tuple[float, float] = (0.0, 1.0)
    """Values that get no colour and the brightest one."""
    frames: tuple[Frame, ...] = ()
    window: tuple[float, float] | None = None
    """Values shown as black and white, if the recipe says; else they are chosen, see `display_range`."""
    fills: bool = True
    """Whether the prediction is filled and what differs from the reference is marked; else there are outlines only."""


class Frame(NamedTuple):
    """A box of voxels, start <= (z, y, x) < stop, drawn where a plane crosses it; it may reach beyond the scan."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    css: str
    """Classes of the style sheet beside "frame", e.g. "s1"."""
    title: str
    """What appears under the mouse."""
    label: str = ""
    """What is written in its corner."""


class View(NamedTuple):
    """What is shown of a scan; pictures of one view can be laid side by side."""

    part: tuple[slice, ...]
    """The part of the scan, (z, y, x)."""
    places: tuple[int, int, int]
    """Where the three planes cut, (z, y, x)."""
    scale: float
    """px per mm."""


class Picture(NamedTuple):
    """One plane, ready for the page."""

    plane: str
    svg: Markup
    place: str
    """Where it was cut, e.g. "slice 18 of 35"; "" in 2D."""


def colour(order: int) -> str:
    """The style-sheet classes of a structure by its place in the recipe."""
    return f"s{order % COLOURS}" + (" again" if order >= COLOURS else "")


def draw(scene: Scene, what: str) -> tuple[list[Picture], Range]:
    """Cut a case where the reference's structures are largest (the prediction's, if it has none).

    Args:
        scene: the case.
        what: words that begin the alternative text, e.g. "Case 7".

    Returns:
        Axial, coronal and sagittal pictures (axial only in 2D), and the range of values shown.
    """
    shown, view = display_range(scene.image, scene.window), view_of(scene)
    return [draw_plane(scene, plane, view, shown, what) for plane in planes_of(scene.grid.shape)], shown


def view_of(scene: Scene, *others: NDArray[np.integer], planes: Sequence[Plane] = ()) -> View:
    """Where to cut a case, see `draw`, and how much of it to show.

    Args:
        scene: the case.
        *others: further labels (z, y, x) of which everything shall be seen.
        planes: those that shall fit; all the scan has if none are named.
    """
    labelled = scene.reference if scene.reference.any() else scene.prediction
    marked = (scene.reference > 0) | (scene.prediction > 0)
    for labels in others:
        marked |= labels > 0
    for frame in scene.frames:
        marked[tuple(slice(max(a, 0), max(b, 0)) for a, b in zip(frame.start, frame.stop, strict=True))] = True
    part = region(marked, scene.grid.spacing, MARGIN, LEAST)
    sizes = [n * step for n, step in zip((s.stop - s.start for s in part), scene.grid.spacing, strict=True)]
    fitting = planes or planes_of(scene.grid.shape)
    scale = min(min(WIDEST / sizes[plane.columns], TALLEST / sizes[plane.rows]) for plane in fitting)
    return View(part, fullest(labelled, scene.values), scale)


def draw_plane(scene: Scene, plane: Plane, view: View, shown: Range, what: str) -> Picture:
    """One picture of a case.

    Args:
        scene: the case.
        plane: which way to cut.
        view: where, and how much is shown.
        shown: values that are black and white.
        what: words that begin the alternative text.
    """
    return _picture(_Sheet(scene, plane, *view), shown, what)


class Backdrop:
    """A slice on which one map after another is laid; scan and outlines are embedded once.

    Args:
        scene: of one slice, (1, y, x).
        name: begins the ids on the page, so it is the frame's alone.
        most: largest side, px.
    """

    def __init__(self, scene: Scene, name: str, most: float) -> None:
        part = region(scene.reference > 0, scene.grid.spacing, MARGIN, LEAST)
        y, x = ((s.stop - s.start) * step for s, step in zip(part[1:], scene.grid.spacing[1:], strict=True))
        self._sheet = _Sheet(scene, AXIAL, part, (0, 0, 0), min(most / x, most / y))
        self._name, self._shown = name, display_range(scene.image)
        self.width, self.height = x * self._sheet.scale, y * self._sheet.scale

    def defs(self) -> Markup:
        """What the frame's pictures refer to, an SVG element that shows nothing."""
        scan = Markup('<image href="{}" width="{:.1f}" height="{:.1f}" preserveAspectRatio="none"/>').format(
            embedded(grey(self._sheet.cut(self._sheet.scene.image), self._shown)), self.width, self.height
        )
        outlines = Markup("").join(path for path in _overlays(self._sheet) if "reference" in path)
        parts = Markup('<g id="{0}-scan">{1}</g><g id="{0}-lines">{2}</g>').format(self._name, scan, outlines)
        return Markup('<svg class="defs" aria-hidden="true" focusable="false"><defs>{}</defs></svg>').format(parts)

    def plain(self, what: str) -> Markup:
        """The scan with outlines, orientation and scale."""
        return self._svg(what, Markup(""), Markup("").join(_marks(self._sheet, self.width, self.height)))

    def under(self, values: NDArray[Any], limits: tuple[float, float], what: str) -> Markup:
        """The scan with a map (y, x) over it, which has its own resolution and the extent of the whole slice.

        Args:
            values: the map.
            limits: values that get no colour and the brightest one.
            what: the alternative text.
        """
        (down, across), (_, y, x) = self._sheet.step, self._sheet.part
        _, rows, columns = self._sheet.scene.grid.shape
        heat = Markup(
            '<image class="heat" href="{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"'
            ' preserveAspectRatio="none"/>'
        ).format(embedded(_coloured(values, limits)), -x.start * across, -y.start * down, columns * across, rows * down)
        return self._svg(what, heat, Markup(""))

    def _svg(self, what: str, heat: Markup, marks: Markup) -> Markup:
        return Markup(
            '<svg class="picture" viewBox="0 0 {w:.1f} {h:.1f}" width="{w:.0f}" height="{h:.0f}" role="img"'
            ' aria-label="{what}"><use href="#{name}-scan"/>{heat}<use href="#{name}-lines"/>{marks}</svg>'
        ).format(w=self.width, h=self.height, what=what, name=self._name, heat=heat, marks=marks)


def heat_scale(name: str) -> Markup:
    """The colours of maps as a gradient with that id, for `heat_bar`."""
    places = np.linspace(0, 1, 9, dtype=np.float32)
    stops = [
        Markup('<stop offset="{:.3f}" stop-color="rgb({},{},{})" stop-opacity="{:.3f}"/>').format(
            float(place), *(int(v) for v in colour[:3]), float(colour[3]) / 255
        )
        for place, colour in zip(places, _coloured(places[None], (0.0, 1.0))[0], strict=True)
    ]
    return Markup('<linearGradient id="{}">{}</linearGradient>').format(name, Markup("").join(stops))


def heat_bar(name: str, low: str, high: str) -> Markup:
    """A bar of those colours with the values at its ends."""
    return Markup(
        '<svg class="scale" viewBox="0 0 120 22" width="120" height="22" role="img" aria-label="colours from {low} to'
        ' {high}"><rect width="120" height="8"/><rect width="120" height="8" style="fill: url(#{name})"/>'
        '<text x="0" y="20">{low}</text><text x="120" y="20" text-anchor="end">{high}</text></svg>'
    ).format(name=name, low=low, high=high)


@dataclass(frozen=True, eq=False)
class _Sheet:
    """One plane on paper: how voxels become pixels."""

    scene: Scene
    plane: Plane
    part: tuple[slice, ...]
    """The part of the scan that is shown."""
    places: tuple[int, int, int]
    """Where the three planes cut, (z, y, x)."""
    scale: float
    """px per mm."""

    @property
    def step(self) -> tuple[float, float]:
        """Size of a voxel, px: (down, across)."""
        spacing = self.scene.grid.spacing
        return spacing[self.plane.rows] * self.scale, spacing[self.plane.columns] * self.scale

    def cut(self, array: NDArray[Any]) -> NDArray[Any]:
        """This plane's picture of an array (z, y, x)."""
        part = list(self.part)
        index = self.places[self.plane.normal]
        part[self.plane.normal] = slice(index, index + 1)
        return cut(array[tuple(part)], self.plane, 0)

    def position(self, axis: int) -> float:
        """Where another plane, the one standing on `axis`, crosses this one, px from the top or the left."""
        inside = float(self.places[axis] - self.part[axis].start + 0.5)
        if axis == self.plane.columns:
            return inside * self.step[1]
        size = float(self.part[axis].stop - self.part[axis].start)
        return (size - inside if self.plane.upward else inside) * self.step[0]


def _picture(sheet: _Sheet, shown: Range, what: str) -> Picture:
    scene, plane = sheet.scene, sheet.plane
    pixels = grey(sheet.cut(scene.image), shown)
    height, width = (n * step for n, step in zip(pixels.shape, sheet.step, strict=True))
    count = scene.grid.shape[plane.normal]
    place = f"slice {sheet.places[plane.normal] + 1} of {count}" if count > 1 else ""
    parts = [
        Markup('<image href="{}" width="{:.1f}" height="{:.1f}" preserveAspectRatio="none"/>').format(
            embedded(pixels), width, height
        ),
        *_heat(sheet, width, height),
        *_overlays(sheet),
        *_frames(sheet, height),
        *_marks(sheet, width, height),
    ]
    svg = Markup(
        '<svg class="picture" viewBox="0 0 {w:.1f} {h:.1f}" width="{w:.0f}" height="{h:.0f}" role="img"'
        ' aria-label="{what}, {plane} {place}">{parts}</svg>'
    ).format(w=width, h=height, what=what, plane=plane.name, place=place, parts=Markup("").join(parts))
    return Picture(plane.name, svg, place)


def _heat(sheet: _Sheet, width: float, height: float) -> list[Markup]:
    """The values laid over, if there are any: brighter and more opaque the higher."""
    if sheet.scene.heat is None:
        return []
    colours = _coloured(sheet.cut(sheet.scene.heat), sheet.scene.heat_range)
    image = Markup('<image class="heat" href="{}" width="{:.1f}" height="{:.1f}" preserveAspectRatio="none"/>')
    return [image.format(embedded(colours), width, height)]


def _coloured(values: NDArray[Any], limits: tuple[float, float]) -> NDArray[np.uint8]:
    """Values (y, x) as colours with opacity (y, x, 4)."""
    from matplotlib import colormaps

    low, high = limits
    shares = ((np.asarray(values, np.float32) - low) / max(high - low, 1e-6)).clip(0, 1)
    colours: NDArray[np.uint8] = colormaps[HEAT](shares, bytes=True)
    colours[..., 3] = (255 * OPAQUE * shares).astype(np.uint8)
    return colours


def _overlays(sheet: _Sheet) -> list[Markup]:
    """Prediction as fills, what it missed and invented as patterns, the reference as outlines on top."""
    reference, prediction = sheet.cut(sheet.scene.reference), sheet.cut(sheet.scene.prediction)
    differ = reference != prediction
    fills, outlines = [], []
    for number, value in enumerate(sheet.scene.values):
        fills.append(_path(prediction == value, sheet.step, f"prediction {colour(number)}"))
        outlines.append(_path(reference == value, sheet.step, f"reference {colour(number)}"))
    errors = [
        _path(differ & (reference > 0), sheet.step, "missed"),
        _path(differ & (prediction > 0), sheet.step, "false"),
    ]
    return [path for path in ((*fills, *errors, *outlines) if sheet.scene.fills else outlines) if path]


def _frames(sheet: _Sheet, height: float) -> list[Markup]:
    """The outlines of boxes that this plane crosses."""
    plane, (down, across) = sheet.plane, sheet.step
    rect = Markup(
        '<rect class="frame {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
    )
    drawn = []
    for number, frame in enumerate(sheet.scene.frames):
        if not frame.start[plane.normal] <= sheet.places[plane.normal] < frame.stop[plane.normal]:
            continue
        left = (frame.start[plane.columns] - sheet.part[plane.columns].start) * across
        top = (frame.start[plane.rows] - sheet.part[plane.rows].start) * down
        width = (frame.stop[plane.columns] - frame.start[plane.columns]) * across
        tall = (frame.stop[plane.rows] - frame.start[plane.rows]) * down
        top = height - top - tall if plane.upward else top
        drawn.append(rect.format(frame.css, left, top, width, tall, frame.title))
        if frame.label:
            drawn.append(
                Markup('<text x="{:.1f}" y="{:.1f}">{}</text>').format(*_corner(left, top, number), frame.label)
            )
    return drawn


def _corner(left: float, top: float, number: int) -> tuple[float, float]:
    """Where the label of a frame stands: inside of the picture, and not on those of frames before."""
    return max(left, 0.0) + 5, max(top, 0.0) + 15 + 15 * number


def _path(mask: NDArray[np.bool_], step: tuple[float, float], css: str) -> Markup:
    """The outline of a mask, half way between the centres of voxels inside and outside; "" where it is empty."""
    if not mask.any():
        return Markup("")
    from contourpy import contour_generator

    pixel = np.array(step[::-1])
    loops = []
    for line in contour_generator(z=np.pad(mask, 1).astype(float)).lines(0.5):
        points = (np.asarray(line)[:-1] - 0.5) * pixel  # in the padded mask, -1 voxel + half of one to its centre
        way = np.cumsum(np.hypot(*np.diff(points, axis=0, prepend=points[:1]).T))
        kept = points[np.diff(way // FINEST, prepend=-1) > 0]
        loops.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in kept) + "Z")
    return Markup('<path class="{}" d="{}"/>').format(css, "".join(loops))


def _marks(sheet: _Sheet, width: float, height: float) -> list[Markup]:
    """Ticks where the other planes cut, orientation letters at the borders, and a scale bar."""
    if not sheet.scene.geometry:
        return []
    marks = []
    if len(planes_of(sheet.scene.grid.shape)) > 1:
        x, y = sheet.position(sheet.plane.columns), sheet.position(sheet.plane.rows)
        ends = f"M0 {y:.1f}h6M{width:.1f} {y:.1f}h-6M{x:.1f} 0v6M{x:.1f} {height:.1f}v-6"
        marks.append(Markup('<path class="tick" d="{}"/>').format(ends))
    left, right, top, bottom = letters(sheet.scene.grid, sheet.plane)
    text = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    marks += [
        text.format(10, height / 2 + 4, "start", left),
        text.format(width - 10, height / 2 + 4, "end", right),
        text.format(width / 2, 20, "middle", top),
        text.format(width / 2, height - 11, "middle", bottom),
    ]
    length = max((n for n in BAR_LENGTHS if n * sheet.scale <= width / 3), default=1)
    bar = f"M10 {height - 10:.1f}v-5m0 2.5h{length * sheet.scale:.1f}m0 -2.5v5"
    marks.append(Markup('<path class="bar" d="{}"/>').format(bar))
    marks.append(text.format(10, height - 20, "start", f"{length} mm"))
    return marks


def embedded(pixels: NDArray[np.uint8]) -> str:
    """A grey image (y, x), or one with colours and opacity (y, x, 4), as a data URI."""
    from PIL import Image

    file = BytesIO()
    small = pixels.ndim == 3 or pixels.size <= LOSSLESS
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((LARGEST, LARGEST))
    image.save(file, "PNG" if small else "JPEG", quality=90)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{b64encode(file.getvalue()).decode('ascii')}"
