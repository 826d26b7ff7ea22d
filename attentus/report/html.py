"""One HTML file about a run, finished or not. It holds all it needs: no network, no scripts but the table's sorting."""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from attentus.io.atomic import write_text
from attentus.metrics.summary import headline
from attentus.report import charts, run_figures
from attentus.report.cases import draw_cases
from attentus.report.film import make_film
from attentus.report.page import render
from attentus.report.pictures import colour
from attentus.report.run import Run
from attentus.report.tables import (
    case_metrics,
    case_table,
    heading,
    overall_dice,
    pooled_table,
    rules_in_words,
    shown,
    summary_table,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from attentus.progress import Progress
    from attentus.recipes import Split
    from attentus.report.charts import Chart
    from attentus.types import Scores

SIDES = {"train": "trained on", "validation": "held back", "test": "tested on"}
"""Sides of a split in data.json, as the report calls them."""


class Figure(NamedTuple):
    """One number at the top of the page."""

    name: str
    value: str
    detail: str = ""


def write_report(
    run: Path, out: Path, *, overwrite: bool, progress: Progress, probabilities: bool | None = None
) -> Path:
    """Write one HTML file about a training: scores, drawn cases, surfaces, curves, cohort, recipe.

    Args:
        run: folder of a training, finished or not; of an unfinished one, what is there is shown.
        out: the file to write.
        overwrite: whether an existing file may be replaced.
        progress: shows the cases being drawn.
        probabilities: whether to predict the median case again and draw its probabilities; None does if that is quick.

    Returns:
        The file written.

    Raises:
        BadFile: the folder holds no run, or the file cannot be written.
        RecipeError: the run's recipe is from a version this one cannot read.
    """
    found = Run.open(run)
    write_text(out, _page(found, progress, probabilities=probabilities), overwrite=overwrite)
    return out


def _page(run: Run, progress: Progress, *, probabilities: bool | None) -> str:
    scores = run.scores if run.scores is not None and len(run.scores) else None
    cases = draw_cases(run, progress)
    reachable = [case.case for case in cases if not case.problem]
    case = middle if (middle := run_figures.middle_case(run)) in reachable else next(iter(reachable), None)
    closer = run_figures.of_the_case(run, case, probabilities=probabilities, progress=progress) if case else []
    return render(
        "report.html.j2",
        run=run,
        about=run.discreet(run.recipe.about),
        verdict=_verdict(run, scores),
        figures=_figures(run, scores),
        **(measured(scores) if scores else {}),
        roles={case.case: case.role for case in cases},
        cases=cases,
        case=case,
        closer=closer,
        seen=run_figures.what_the_net_sees(run, case) if case else [],
        pruning=run_figures.pruning(run),
        curves=_curves(run),
        film=make_film(run),
        cohort=_cohort(run),
        stages=_stages(run),
        left_out=_discreet(run, run.data.get("left out", {})),
        failed=_discreet(run, {} if run.scores is None else run.scores.failures),
        yaml=run.discreet(run.file.read_text(encoding="utf-8")),
        colour=colour,
    )


def measured(scores: Scores) -> dict[str, Any]:
    """What the template of the scores shows of a cohort that is not empty."""
    table = case_table(scores)
    return {
        "metrics": [heading(metric) for metric in headline(scores)],
        "summary": summary_table(scores),
        "pooled": pooled_table(scores),
        "rules": rules_in_words(scores.rules),
        "score_charts": _score_charts(scores),
        "volume_charts": _volume_charts(scores),
        "case_metrics": [heading(metric) for metric in case_metrics(scores)],
        "table": table,
        "remarks": any(row.remarks for row in table),
    }


def _verdict(run: Run, scores: Scores | None) -> str:
    """The result in one sentence."""
    if scores is not None:
        return result(scores, " held back from training")
    if run.validations:
        best = max(run.validations, key=lambda line: float(line["mean"]))
        return f"No final scores yet. Best mean Dice so far {best['mean']:.3f}, on validation at step {best['step']:,}."
    return "No scores yet."


def result(scores: Scores, which: str = "") -> str:
    """A cohort's mean Dice in one sentence.

    Args:
        scores: of one case at least.
        which: what is said of the cases.
    """
    dice, structures = overall_dice(scores), len(scores.structures)
    cases = f"{_count(len(scores.cases), 'case')}{which}"
    over = f", averaged over {structures} structures" if structures > 1 else f" for {scores.structures[0]}"
    if math.isnan(dice):
        return f"Scored on {cases}; there is no Dice."
    return f"Mean Dice {shown(dice, 'dice')}{over}, on {cases}."


def _figures(run: Run, scores: Scores | None) -> list[Figure]:
    """The key figures, as far as they are known."""
    figures = []
    if scores is not None:
        distances = [row.value for row in scores.select(metric="hd95_mm")]
        known = [value for value in distances if math.isfinite(value)]
        few = "" if len(known) == len(distances) else f"{len(known)} finite of {len(distances)} values"
        if not math.isnan(dice := overall_dice(scores)):
            figures.append(Figure("Mean Dice", shown(dice, "dice"), "1 is perfect"))
        if known:
            figures.append(Figure("Median HD95", f"{median(known):.2f} mm", few or "all structures and cases"))
    sides = {SIDES[side]: len(run.data[side]) for side in SIDES if run.data.get(side)}
    if sides:
        figures.append(Figure("Cases", " + ".join(map(str, sides.values())), " + ".join(sides)))
    if "Parameters" in run.card:
        figures.append(
            Figure("Parameters", _short(run.card["Parameters"]), f"{run.recipe.net.name}, {run.recipe.net.dims}D")
        )
    if run.steps:
        detail = f"{len(run.steps):,} steps, {run.seconds / len(run.steps):.2g} s each"
        figures.append(Figure("Training time", _duration(run.seconds), detail))
    return figures


def _score_charts(scores: Scores) -> list[Chart]:
    drawn = [
        charts.boxes(scores, "dice", "Dice", from_zero=False),
        charts.boxes(scores, "hd95_mm", "HD95, mm", from_zero=True),
        charts.boxes(scores, "assd_mm", "ASSD, mm", from_zero=True),
    ]
    return [chart for chart in drawn if chart is not None]


def _volume_charts(scores: Scores) -> list[Chart]:
    if not {"volume_ml", "reference_ml"} <= set(scores.metrics):
        return []
    return [charts.agreement(scores, name) for name in scores.structures]


def _curves(run: Run) -> list[list[Chart]]:
    """The course of the training, in columns."""
    if not run.steps:
        return []
    columns = [[charts.loss_curve(run.steps)], [charts.rate_curve(run.steps), charts.time_curve(run.steps)]]
    if run.validations:
        columns.insert(1, [charts.dice_curves(run.validations, run.structures, run.steps[-1]["step"])])
    return columns


def _cohort(run: Run) -> dict[str, str]:
    """Facts about the data, for a list."""
    data, split = run.data, run.recipe.split
    if not data:
        return {}
    return {
        "Dataset": str(data.get("dataset", "")),
        **({"Trained on": _count(len(data["train"]), "case")} if data.get("train") else {}),
        "Held back": f"{_count(len(data.get('validation', {})), 'case')} ({_dealt(split, data.get('folds'))})",
        **({"Tested on": _count(len(data["test"]), "case")} if data.get("test") else {}),
        "Left out": _count(len(data.get("left out", {})), "case"),
        "Channels": ", ".join(run.recipe.channels),
        "Labels in the files": ", ".join(f"{value} {name}" for name, value in data.get("labels", {}).items()),
        "Segmented": ", ".join(_made_of(structure) for structure in run.recipe.labels),
    }


def _stages(run: Run) -> dict[str, str]:
    """What the card of a cascade says of its stages, for a list."""
    return {name: run.discreet(text) for name, text in run.card.items()} if run.is_cascade else {}


def _dealt(split: Split, folds: Mapping[str, Any] | None = None) -> str:
    """How cases came to be on their side."""
    if folds and len(folds) > 1:
        return f"each from one of {len(folds)} folds"
    if split.given:
        return f"split {split.fold} of the dataset"
    if split.file:
        return f"entry {split.fold} of {split.file.name}"
    if split.sizes:
        return f"dealt {' : '.join(f'{size:g}' for size in split.sizes)}, seed {split.seed}"
    return f"fold {split.fold} of {split.folds}"


def _made_of(structure: Any) -> str:
    parts = [part for part in structure.parts if part != structure.name]
    return f"{structure.name} ({' + '.join(structure.parts)})" if parts else str(structure.name)


def _discreet(run: Run, messages: Mapping[str, str]) -> dict[str, str]:
    return {case: run.discreet(message) for case, message in messages.items()}


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _short(parameters: str) -> str:
    """6,406,745 as 6.41 million."""
    number = float(parameters.replace(",", ""))
    return f"{number / 1e6:.3g} million" if number >= 1e6 else parameters


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
