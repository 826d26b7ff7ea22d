"""Contact sheets: one picture of every case of a dataset, and the facts of a case in a row."""

from __future__ import annotations

import math
import textwrap
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus import io
from attentus.errors import AttentusError, BadFile
from attentus.io.atomic import replacing
from attentus.progress import track
from attentus.report.plot import shortened
from attentus.report.slices import AXIAL, cut, display_range, grey, has_geometry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from attentus.data import Dataset
    from attentus.progress import Progress
    from attentus.types import Case, Volume

COLOURS = ("#ffab1a", "#5cc0fb", "#2fd39c", "#f5ea52", "#f092c6", "#ff7f3f", "#94a8ff")
PAPER, INK, SOFT, FAULT = "#ffffff", "#17212b", "#586673", "#a3261b"
CELL, CAPTION, TITLE, LEGEND, EDGE, GAP = 2.3, 0.44, 0.6, 0.3, 0.35, 0.16
"""Sizes on the sheet, inches: picture, its caption, title, a line of the legend, margin, space between pictures."""
DPI = 120
FINEST = 512
"""Pixels kept of a slice along its longer side, at most about twice as many."""
LEGEND_LABELS = 24
"""Labels named in the legend at most."""


def describe_case(case: Case, dataset: Dataset) -> dict[str, Any]:
    """Facts of a case for a table; the same keys for every case.

    Args:
        case: any case of the dataset.
        dataset: names the labels.

    Returns:
        case, shape (z, y, x), spacing_mm (z, y, x), orientation as stored, channels, range (least and greatest finite
        value), labels (name to ml, those that occur), error ("" or why something cannot be read).
    """
    facts: dict[str, Any] = {"case": case.id, "shape": [], "spacing_mm": [], "orientation": "", "channels": 0}
    facts |= {"range": [], "labels": {}, "error": ""}
    try:
        image = io.read_case(case)
        finite = image.array[np.isfinite(image.array)]
        facts |= {
            "shape": list(image.grid.shape),
            "spacing_mm": [round(s, 4) for s in image.grid.spacing],
            "orientation": (image.source.grid if image.source else image.grid).orientation,
            "channels": image.channels,
            "range": [float(finite.min()), float(finite.max())] if finite.size else [],
        }
        if case.label is not None:
            labels = io.read_labels(case.label)
            image.grid.require_match(labels.grid, case.id)
            facts["labels"] = _volumes(labels, dataset.labels)
    except AttentusError as error:
        where = f"{Path(error.path).name}: " if isinstance(error, BadFile) else ""
        facts["error"] = where + _reason(error, case)
    return facts


def contact_sheet(dataset: Dataset, out: Path, *, limit: int, overwrite: bool, progress: Progress) -> Path:
    """Draw every case as one axial slice, the one with the most labelled voxels, labels in colour.

    Only slices are kept: memory holds one volume at a time. A case that cannot be read is a red cell with the reason.

    Args:
        dataset: whose cases.
        out: PNG to write.
        limit: cases drawn at most, in the order of the dataset.
        overwrite: whether an existing file may be replaced.
        progress: shows the cases being read.

    Raises:
        BadFile: the name does not end in .png, the file exists, or it cannot be written.
    """
    if out.suffix.lower() != ".png":
        raise BadFile(out, "is no name of a PNG picture", "Choose a name that ends in .png.")
    with replacing(out, overwrite=overwrite) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the font lacks it; a box is drawn instead
        cells = [_cell(case) for case in track(progress, "drawing cases", list(dataset)[:limit])]
        _sheet(dataset, cells).savefig(temporary, format="png", dpi=DPI, facecolor=PAPER)
    return out


@dataclass(frozen=True, eq=False)
class _Cell:
    """One case on the sheet."""

    case: str
    caption: str = ""
    picture: NDArray[np.uint8] | None = None
    """Grey levels, (y, x); None if the image cannot be read."""
    labels: NDArray[np.integer] | None = None
    aspect: float = 1.0
    """Height of a voxel over its width."""
    fault: str = ""
    """What could not be read, or is missing."""
    values: tuple[int, ...] = field(default=())
    """Label values anywhere in the volume."""


def _cell(case: Case) -> _Cell:
    try:
        image = io.read_case(case)
    except AttentusError as error:
        return _Cell(case.id, fault=_reason(error, case))
    labels, fault = _labels(case, image)
    known = np.zeros(image.grid.shape, np.uint8) if labels is None else labels
    areas = (known > 0).sum(axis=(1, 2))
    index = int(areas.argmax()) if areas.any() else len(areas) // 2
    z, y, x = image.grid.spacing
    size = " × ".join(str(n) for n in image.grid.shape)
    spacing = f"{z:.3g} × {y:.3g} × {x:.3g} mm" if has_geometry(image) else "no spacing"
    step = max(1, max(image.grid.shape[1:]) // FINEST)
    return _Cell(
        case.id,
        f"{size}, {spacing}",
        grey(cut(image.array[0], AXIAL, index)[::step, ::step], display_range(image.array[0])),
        cut(known, AXIAL, index)[::step, ::step].copy(),
        y / x,
        fault or ("" if areas.any() else "nothing is labelled"),
        tuple(int(v) for v in np.unique(known) if v),
    )


def _labels(case: Case, image: Volume) -> tuple[NDArray[np.integer] | None, str]:
    """The labels of a case, or why there are none to draw."""
    if case.label is None:
        return None, "no labels"
    try:
        labels = io.read_labels(case.label)
        image.grid.require_match(labels.grid, case.id)
    except AttentusError as error:
        return None, f"labels: {_reason(error, case)}"
    return labels.array[0], ""


def _reason(error: AttentusError, case: Case) -> str:
    """What is wrong in one line, without the remedy, which `data check` gives."""
    return error.problem if isinstance(error, BadFile) else str(error).splitlines()[0].removeprefix(f"{case.id}: ")


def _volumes(labels: Volume, names: Mapping[str, int]) -> dict[str, float]:
    """Label name to ml."""
    counts = np.bincount(labels.array.ravel())
    known = {value: name for name, value in names.items()}
    return {
        known.get(value, f"label {value}"): round(int(counts[value]) * labels.grid.voxel_ml, 4)
        for value in range(1, len(counts))
        if counts[value]
    }


def _sheet(dataset: Dataset, cells: Sequence[_Cell]) -> Figure:
    """Lay the cells out: about one and a half times as wide as high, title above, legend below."""
    from matplotlib.figure import Figure

    columns = max(1, min(len(cells), math.ceil(math.sqrt(len(cells) * 1.5))))
    rows = math.ceil(len(cells) / columns)
    width = max(2 * EDGE + columns * (CELL + GAP) - GAP, 4.6)
    values = sorted({value for cell in cells for value in cell.values})
    colours = {value: COLOURS[k % len(COLOURS)] for k, value in enumerate(values)}
    legend = _legend(dataset, colours, width)
    height = 2 * EDGE + TITLE + rows * (CELL + CAPTION + GAP) + LEGEND * len(legend)
    figure = Figure(figsize=(width, height))
    _write(figure, (EDGE, height - EDGE), dataset.name, size=14, weight="bold")
    _write(figure, (EDGE, height - EDGE - 0.27), _counts(dataset, cells), size=9, color=SOFT)
    for number, cell in enumerate(cells):
        left = EDGE + number % columns * (CELL + GAP)
        top = height - EDGE - TITLE - number // columns * (CELL + CAPTION + GAP)
        axes = figure.add_axes((left / width, (top - CELL) / height, CELL / width, CELL / height))
        _draw(axes, cell, colours)
        _write(figure, (left, top - CELL - 0.07), shortened(cell.case, 34))
        _write(figure, (left, top - CELL - 0.24), cell.caption, size=6.8, color=SOFT)
    for number, line in enumerate(legend):
        y = EDGE + LEGEND * (len(legend) - 1 - number)
        for x, colour, name in line:
            _write(figure, (x, y), "■", size=11, color=colour, va="center")
            _write(figure, (x + 0.18, y), name, size=9, va="center")
    return figure


def _draw(axes: Axes, cell: _Cell, colours: Mapping[int, str]) -> None:
    """One picture, centred in a black square, or a red one with the reason."""
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(False)
    if cell.picture is None or cell.labels is None:
        axes.set_facecolor("#f8e4e1")
        words = textwrap.fill(cell.fault, 30, max_lines=8, placeholder="…")
        axes.text(0.5, 0.5, words, color=FAULT, fontsize=8, ha="center", va="center", parse_math=False)
        return
    rows, columns = cell.picture.shape
    height, width = rows * cell.aspect, float(columns)
    half = max(height, width) / 2
    axes.set_facecolor("#000000")
    smooth = "bilinear" if max(rows, columns) < CELL * DPI else "antialiased"
    axes.imshow(cell.picture, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), interpolation=smooth)
    axes.set(xlim=(width / 2 - half, width / 2 + half), ylim=(height / 2 + half, height / 2 - half))
    x, y = np.arange(-0.5, columns + 1), np.arange(-0.5, rows + 1) * cell.aspect  # centres, one voxel around
    for value in cell.values:
        mask = np.pad(cell.labels == value, 1).astype(float)
        if mask.any():
            axes.contourf(x, y, mask, levels=[0.5, 2], colors=[colours[value]], alpha=0.22)
            axes.contour(x, y, mask, levels=[0.5], colors=[colours[value]], linewidths=0.9)
    if cell.fault:
        words = textwrap.fill(cell.fault, 38, max_lines=3, placeholder="…")
        box = {"facecolor": "#f8e4e1", "edgecolor": "none", "pad": 3}
        axes.text(0.03, 0.03, words, color=FAULT, fontsize=7, transform=axes.transAxes, bbox=box, parse_math=False)


def _counts(dataset: Dataset, cells: Sequence[_Cell]) -> str:
    unread = sum(cell.picture is None for cell in cells)
    shown = f"{len(cells)} of {len(dataset)} cases" if len(cells) < len(dataset) else f"{len(cells)} cases"
    return f"{shown}, {unread} cannot be read" if unread else shown


def _legend(dataset: Dataset, colours: Mapping[int, str], width: float) -> list[list[tuple[float, str, str]]]:
    """Lines of (left edge in inches, colour, label name)."""
    known = {value: name for name, value in dataset.labels.items()}
    entries = [(colour, known.get(value, f"label {value}")) for value, colour in colours.items()][:LEGEND_LABELS]
    if len(colours) > LEGEND_LABELS:
        entries.append((PAPER, f"and {len(colours) - LEGEND_LABELS} more"))
    lines: list[list[tuple[float, str, str]]] = []
    x = math.inf
    for colour, name in entries:
        needed = 0.45 + 0.078 * len(name)
        if x + needed > width - EDGE / 2:
            lines.append([])
            x = EDGE
        lines[-1].append((x, colour, name))
        x += needed
    return lines


def _write(figure: Figure, at: tuple[float, float], words: str, **style: Any) -> None:
    """Text whose upper left corner lies at a place in inches from the lower left of the sheet; never maths."""
    width, height = figure.get_size_inches()
    usual: dict[str, Any] = {"size": 8, "color": INK, "va": "top", "ha": "left", "parse_math": False}
    figure.text(at[0] / width, at[1] / height, words, **(usual | style))
