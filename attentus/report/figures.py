"""Each kind of figure from runs and files; `attentus figure` is a thin face of these functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from attentus.data.resolve import values_in
from attentus.errors import BadInput, UnknownName
from attentus.metrics.comparison import compare, direction
from attentus.report import charts, comparison_charts, heat, histograms, levels, looking, side_by_side, surfaces
from attentus.report.cases import image_of, scene_of
from attentus.report.charts import Chart
from attentus.report.comparison_charts import Cohort
from attentus.report.figure import Figure, in_rows
from attentus.report.methods import named, open_methods
from attentus.report.run import Run
from attentus.report.run_figures import middle_case, prepare_of
from attentus.report.tables import heading

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from attentus.progress import Progress
    from attentus.report.comparison_charts import Together
    from attentus.report.methods import Method
    from attentus.report.pictures import Picture


def overlay(
    places: Sequence[str],
    case: str | None = None,
    *,
    image: Path | None = None,
    reference: Path | None = None,
    plane: str = "axial",
    index: int | None = None,
) -> Figure:
    """Several methods on one slice; see `side_by_side.side_by_side`.

    Args:
        places: [NAME=]PLACE of runs, or of label files if there is an image.
        case: of the runs; the first one's median case if none is named.
        image: a scan from anywhere.
        reference: its labels.
        plane: axial, coronal or sagittal.
        index: the slice, from 0.

    Raises:
        BadInput: what is named cannot be drawn.
    """
    found = named(places)
    if image is not None:
        sides, title = side_by_side.of_files(image, reference, found), image.name
    else:
        if reference is not None:
            raise BadInput("--reference goes with --image; of runs the dataset's own labels are taken.")
        runs = {name: Run.open(place) for name, place in found.items()}
        common = [
            name for name in next(iter(runs.values())).structures if all(name in r.structures for r in runs.values())
        ]
        if not common:
            raise BadInput("These runs have no structure of one name in common.")
        title = _case(next(iter(runs.values())), case)
        sides = side_by_side.of_runs(runs, title, common)
    panels, facts = side_by_side.side_by_side(sides, plane, index)
    return Figure(title, in_rows(panels if image is None or reference else panels[1:], 4), facts, keys=True)


def heatmap(
    folder: Path,
    case: str | None,
    structure: str | None,
    progress: Progress,
    *,
    values: Path | None = None,
    channel: int = 0,
) -> Figure:
    """Probabilities of a case, or values from a file, over the scan.

    Args:
        folder: of a run.
        case: a held-back one; the median if none is named.
        structure: whose probability; all if none is named.
        progress: shows the windows.
        values: a volume on the scan's grid to draw instead.
        channel: of that volume.

    Raises:
        BadInput: case, weights or file cannot be read, or do not fit.
    """
    run = Run.open(folder)
    case = _case(run, case)
    if values is not None:
        scene, facts = scene_of(run, case)
        array = heat.probability_file(values, channel)
        span = (float(array.min()), float(array.max()))
        rows = [_panels(heat.over(scene, array, span, values.name))]
        return Figure(f"{values.name} of {case}", (*rows, (heat.bar(*span, "value"),)), facts)
    names = [structure] if structure else run.structures
    drawn, facts = heat.probability(run, case, names, progress)
    rows = [_panels(pictures, f"{name}, ") for name, pictures in drawn.items()]
    return Figure(f"Probabilities of {case}", (*rows, (heat.bar(0.0, 1.0, "probability"),)), facts)


def surface(places: Sequence[str], case: str | None, structure: str | None) -> Figure:
    """Predicted surfaces of one case by one or several runs, on one colour scale.

    Args:
        places: [NAME=]RUN.
        case: a held-back one; the first run's median if none is named.
        structure: all that the runs have if none is named.

    Raises:
        BadInput: nothing to draw: not in three dimensions, or empty.
    """
    runs = {name: Run.open(place) for name, place in named(places).items()}
    first = next(iter(runs.values()))
    case = _case(first, case)
    found = {}
    for name, run in runs.items():
        scene, _ = scene_of(run, case)
        known = values_in(run.recipe)
        if structure and structure not in known:
            raise UnknownName("structure", structure, known)
        for part in [structure] if structure else known:
            mask, truth = (np.isin(labels, known[part]) for labels in (scene.prediction, scene.reference))
            if mask.any() and truth.any():
                found[name, part] = surfaces.surface(mask, truth, scene.grid)
    if not found:
        raise BadInput(f"{case}: prediction or reference hold no {structure or 'structure'}, so there is no distance.")
    end = surfaces.limit([one.distance for one in found.values()])
    panels = [
        surfaces.panel(one, end, part if len(runs) == 1 else f"{name}, {part}", f"{part} of {case}, {name}")
        for (name, part), one in found.items()
    ]
    note = "Signed distance of the predicted surface to the reference: red lies outside, blue inside."
    return Figure(f"Surfaces of {case}", in_rows(panels, 2), note)


def histogram(folder: Path, case: str | None) -> Figure:
    """Values before and after the window of a run's recipe; see `histograms.windowing`."""
    run = Run.open(folder)
    case = _case(run, case)
    _, _, image = image_of(run, case)
    drawn = histograms.windowing(image, prepare_of(run), run.recipe.channels)
    return Figure(f"Values of {case}", in_rows(drawn, 2), "Voxels per bin, on a logarithmic axis.")


def patches(folder: Path, case: str | None, count: int) -> Figure:
    """Patches of a run's training; see `looking.patches`.

    Raises:
        BadInput: the run is a cascade, or its patches hold whole scans.
    """
    run = Run.open(folder)
    if run.is_cascade:
        raise BadInput(f"{folder}: is a cascade. Name one of its stages, e.g. {folder / 'stages' / 'NAME' / 'fold0'}.")
    case = _case(run, case)
    _, dataset, _ = image_of(run, case)
    pictures, words = looking.patches(run.recipe, dataset, case, count)
    if not pictures:
        raise BadInput(f"{folder}: there is nothing to draw, {words}.")
    note = f"{words}. Dashed ones hold no structure."
    return Figure(f"Patches of {case}", (_panels(pictures),), note)


def box(folder: Path, case: str | None) -> Figure:
    """Boxes of a cascade's stages; see `looking.stage_boxes`."""
    run = Run.open(folder)
    case = _case(run, case)
    pictures, words = looking.stage_boxes(run, case)
    return Figure(f"Boxes of {case}", (_panels(pictures),), f"{words}.")


def curves(places: Sequence[str]) -> Figure:
    """Loss and validation Dice of one or several trainings.

    Raises:
        BadInput: a run has no steps yet.
    """
    runs = {name: Run.open(place) for name, place in named(places).items()}
    for run in runs.values():
        if not run.steps:
            raise BadInput(f"{run.folder}: has no steps yet, so there are no curves.")
    if len(runs) == 1:
        ((name, run),) = runs.items()
        drawn = [charts.loss_curve(run.steps)]
        if run.validations:
            drawn.append(charts.dice_curves(run.validations, run.structures, run.steps[-1]["step"]))
        return Figure(f"Training of {name}", (tuple(drawn),))
    losses = {name: run.steps for name, run in runs.items()}
    means = {name: run.validations for name, run in runs.items() if run.validations}
    drawn = [charts.losses(losses), *([charts.mean_dice(means)] if means else [])]
    return Figure("Trainings", (tuple(drawn),))


def prune(table: Path) -> Figure:
    """Levels of a net from the table of `attentus prune`; see `levels.bubbles`."""
    return Figure("", ((levels.bubbles(*levels.read(table)),),))


def bland_altman(places: Sequence[str], structure: str | None) -> Figure:
    """Agreement of volumes, a panel per method, a row per structure.

    Raises:
        BadInput: no method has volumes.
    """
    found, methods = _compared(places, structure, "volume_ml")
    rows: list[tuple[Chart, ...]] = []
    for name in found.structures:
        drawn = comparison_charts.volumes(found, methods, name)
        rows += in_rows([chart._replace(title=f"{chart.title}, {name}") for chart in drawn], 3)
    if not rows:
        raise BadInput("None of these scores has volumes (volume_ml, reference_ml); score the masks again.")
    return Figure("Agreement of volumes", tuple(rows), "Up: prediction minus reference, ml.")


def boxes(places: Sequence[str], structure: str | None, metric: str) -> Figure:
    """Paired box plots, a panel per structure.

    Raises:
        BadInput: no method has a finite value of the metric.
    """
    found, methods = _compared(places, structure, metric)
    each = {name: comparison_charts.pairs_of(found, methods, name, metric) for name in found.structures}
    panels = [chart._replace(title=f"{name}, {chart.title}") for name, chart in each.items() if chart]
    if not panels:
        raise BadInput(f"There is no finite value of '{metric}' to draw.")
    return Figure("", in_rows(panels, 3))


def pareto(places: Sequence[str], cost: str | None, metric: str) -> Figure:
    """Score against cost, a panel per cost.

    Raises:
        UnknownName: no such cost.
        BadInput: of no method both are known.
    """
    if cost is not None and cost not in comparison_charts.COSTS:
        raise UnknownName("cost", cost, comparison_charts.COSTS)
    found, methods = _compared(places, None, metric, priced=cost != "time")
    higher = direction(metric) != "lower"
    chosen = [cost] if cost else list(comparison_charts.COSTS)
    drawn = {name: comparison_charts.offers(found, methods, metric, name) for name in chosen}
    telling = {name: offers for name, offers in drawn.items() if cost or len(offers) > 1}
    panels = [comparison_charts.pareto(offers, metric, name, higher=higher) for name, offers in telling.items()]
    known = [panel for panel in panels if panel is not None]
    if not known:
        raise BadInput("What two of these methods cost is not known: only runs tell parameters, FLOPs and times.")
    return Figure("", in_rows(known, 3), f"{heading(metric)}: mean over {len(found.cases)} cases and all structures.")


def _compared(
    places: Sequence[str], structure: str | None, metric: str, *, priced: bool = False
) -> tuple[Together, list[Method]]:
    """Methods and what they have in common.

    Raises:
        BadInput: they were scored by different rules or have nothing in common.
        UnknownName: a single method lacks the structure.
    """
    methods = open_methods(places, priced=priced)
    wanted = [structure] if structure else None
    if len(methods) > 1:
        scores = {method.name: method.scores for method in methods}
        return compare(scores, metrics=[metric], structures=wanted), methods
    (one,) = methods
    if structure and structure not in one.scores.structures:
        raise UnknownName("structure", structure, one.scores.structures)
    return Cohort((one.name,), tuple(one.scores.cases), tuple(wanted or one.scores.structures)), methods


def _case(run: Run, case: str | None) -> str:
    """The named case, or the median one.

    Raises:
        BadInput: none is named and there are no scores to choose by.
    """
    chosen = case or middle_case(run)
    if chosen is None:
        raise BadInput(f"{run.folder}: has no scores, so there is no median case. Name one: --case ID.")
    return chosen


def _panels(pictures: Sequence[Picture], before: str = "") -> tuple[Chart, ...]:
    return tuple(
        Chart(f"{before}{picture.plane}{', ' + picture.place if picture.place else ''}", picture.svg)
        for picture in pictures
    )
