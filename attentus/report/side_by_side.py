"""One case as several methods segmented it: the same slice, side by side, missed and false areas marked."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from attentus import io
from attentus.errors import AttentusError, BadFile, BadInput, UnknownName
from attentus.progress import track
from attentus.report.cases import image_of, roles, window_of
from attentus.report.charts import Chart
from attentus.report.comparison_charts import values_of
from attentus.report.pictures import Scene, draw_plane, view_of
from attentus.report.run import Run
from attentus.report.slices import AXIAL, CORONAL, SAGITTAL, display_range, has_geometry
from attentus.report.tables import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from attentus.metrics.comparison import Comparison
    from attentus.progress import Progress
    from attentus.report.methods import Method
    from attentus.types import Volume

PLANES = {plane.name: plane for plane in (AXIAL, CORONAL, SAGITTAL)}


@dataclass(frozen=True, eq=False)
class Sides:
    """A case with its reference and what several methods made of it."""

    image: Volume
    reference: NDArray[np.integer]
    """(z, y, x); structures are numbered from 1 in the order of `structures`."""
    found: Mapping[str, NDArray[np.integer]]
    """Title to labels (z, y, x), numbered like the reference."""
    structures: tuple[str, ...]
    window: tuple[float, float] | None = None
    """Values shown as black and white; None chooses."""


class Row(NamedTuple):
    """A case for the page."""

    case: str
    role: str
    """Best, Median or Worst."""
    panels: list[Chart]
    facts: str = ""
    """Where it was cut and what is black and white."""
    problem: str = ""
    """Why there are no pictures."""


def side_by_side(sides: Sides, plane: str = "axial", index: int | None = None) -> tuple[list[Chart], str]:
    """The reference and every method on one slice, all of one size.

    Args:
        sides: the case.
        plane: axial, coronal or sagittal.
        index: the slice, counted from 0 in the canonical orientation; None takes that in which the reference's
            structures are largest, each counting the same.

    Returns:
        Panels, and the slice and range of values in words.

    Raises:
        UnknownName: no such plane.
        BadInput: no such slice.
    """
    if plane not in PLANES:
        raise UnknownName("plane", plane, PLANES)
    chosen = PLANES[plane]
    values = tuple(range(1, len(sides.structures) + 1))
    base = Scene(
        sides.image.array[0], sides.reference, sides.reference, sides.image.grid, values, has_geometry(sides.image)
    )
    view = view_of(base, *sides.found.values(), planes=[chosen])
    if index is not None:
        count = base.grid.shape[chosen.normal]
        if not 0 <= index < count:
            raise BadInput(f"There is no {plane} slice {index}: the scan has {count}, counted from 0.")
        places = list(view.places)
        places[chosen.normal] = index
        view = view._replace(places=(places[0], places[1], places[2]))
    grey = display_range(base.image, sides.window)
    scenes = {"Reference": base} | {name: replace(base, prediction=labels) for name, labels in sides.found.items()}
    drawn = {name: draw_plane(scene, chosen, view, grey, name) for name, scene in scenes.items()}
    place = next(iter(drawn.values())).place
    facts = "; ".join(part for part in (f"{plane.capitalize()} {place}".strip(), grey.words) if part)
    return [Chart(name, picture.svg) for name, picture in drawn.items()], facts


def of_runs(runs: Mapping[str, Run], case: str, structures: Sequence[str]) -> Sides:
    """A held-back case as several runs segmented it.

    Args:
        runs: by name; the first one's dataset gives image and reference.
        case: its id.
        structures: names that every run has.

    Raises:
        AttentusError: something cannot be read, or no longer fits together.
    """
    from attentus.data.resolve import values_in
    from attentus.train.evaluate import reference

    first = next(iter(runs.values()))
    known, dataset, image = image_of(first, case)
    truth = _numbered(reference(known, dataset, first.recipe).array[0], values_in(first.recipe), structures)
    found = {}
    for name, run in runs.items():
        labels = io.read_labels(prediction_file(run.folder, case))
        image.grid.require_match(labels.grid, case, "image", f"prediction of {name}")
        found[name] = _numbered(labels.array[0], values_in(run.recipe), structures)
    return Sides(image, truth, found, tuple(structures), window_of(first.recipe))


def of_files(image: Path, reference: Path | None, masks: Mapping[str, Path]) -> Sides:
    """A scan with label files from anywhere; label values name the structures.

    Raises:
        BadInput: a file cannot be read, or lies on another grid than the image.
    """
    scan = io.read(image)
    volumes = {name: io.read_labels(file) for name, file in masks.items()}
    truth = None if reference is None else io.read_labels(reference)
    for name, labels in (*volumes.items(), *([] if truth is None else [("reference", truth)])):
        scan.grid.require_match(labels.grid, str(image), "image", name)
    arrays = {name: labels.array[0] for name, labels in volumes.items()}
    first = next(iter(arrays.values())) if truth is None else truth.array[0]
    present = sorted({int(v) for array in (first, *arrays.values()) for v in np.unique(array) if v})
    names = {str(value): (value,) for value in present}
    return Sides(
        scan,
        _numbered(first, names, list(names)),
        {name: _numbered(array, names, list(names)) for name, array in arrays.items()},
        tuple(names),
    )


def prediction_file(folder: Path, case: str) -> Path:
    """What a run, or one of several folds, wrote about a held-back case.

    Raises:
        BadFile: there is none.
    """
    name = f"{case}.nii.gz"
    places = [folder / "validation" / name, *sorted(folder.glob(f"*/validation/{name}"))]
    found = next((file for file in places if file.is_file()), None)
    if found is None:
        raise BadFile(folder, f"holds no prediction of '{case}'", "Name a case that was held back from training.")
    return found


def rows(found: Comparison, methods: Sequence[Method], progress: Progress) -> list[Row]:
    """The best, the median and the worst case of a comparison, by mean Dice over structures and methods.

    Methods without a run folder (a file of scores alone) have no pictures and are left out.
    """
    runs = {method.name: Run.open(method.home) for method in methods if method.home is not None}
    if not runs:
        return []
    drawn = []
    for case, role in track(progress, "drawing cases", list(choose(found, methods).items())):
        dice = {
            method.name: shown(_mean(method, case, found.structures), "dice")
            for method in methods
            if method.name in runs
        }
        try:
            sides = of_runs(_of_folds(runs, methods), case, found.structures)
            panels, facts = side_by_side(sides)
            titled = [panel._replace(title=_titled(panel.title, dice)) for panel in panels]
            drawn.append(Row(case, role, titled, facts))
        except AttentusError as error:
            drawn.append(Row(case, role, [], problem=f"No pictures: {next(iter(runs.values())).discreet(str(error))}"))
    return drawn if any(row.panels for row in drawn) else drawn[:1]


def choose(found: Comparison, methods: Sequence[Method]) -> dict[str, str]:
    """Case to role, by the mean over methods and structures of its Dice."""
    means = {}
    for case in found.cases:
        values = [_mean(method, case, found.structures) for method in methods]
        if all(math.isfinite(v) for v in values):
            means[case] = sum(values) / len(values)
    return roles(means)


def _mean(method: Method, case: str, structures: Sequence[str]) -> float:
    values = [v for name in structures for v in values_of(method.scores, [case], name, "dice").values()]
    known = [v for v in values if math.isfinite(v)]
    return sum(known) / len(known) if known else math.nan


def _titled(name: str, dice: Mapping[str, str]) -> str:
    return f"{name}, Dice {dice[name]}" if name in dice else name


def _of_folds(runs: Mapping[str, Run], methods: Sequence[Method]) -> dict[str, Run]:
    """The same runs, but looking for predictions in the folder of all folds where there are several."""
    folders = {method.name: method.folder for method in methods}
    return {name: replace(run, folder=folders[name] or run.folder) for name, run in runs.items()}


def _numbered(
    labels: NDArray[np.integer], values: Mapping[str, Sequence[int]], structures: Sequence[str]
) -> NDArray[np.uint8]:
    """Labels of a recipe as numbers of structures, later ones painted over those that hold them.

    Raises:
        UnknownName: a structure the recipe does not have.
    """
    painted = np.zeros(labels.shape, np.uint8)
    for number, name in enumerate(structures, start=1):
        if name not in values:
            raise UnknownName("structure", name, values)
        painted[np.isin(labels, values[name])] = number
    return painted
