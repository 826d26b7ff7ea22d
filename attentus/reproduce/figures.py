"""Figures of a reproduction, all in one place: those of the paper that can be drawn, and two for every table.

A new kind of figure is a function here and an entry in `KINDS`; papers name it in their file.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from attentus import io
from attentus.errors import AttentusError
from attentus.metrics.summary import case_means
from attentus.report.charts import boxes, loss_curve
from attentus.report.levels import bubbles, of
from attentus.report.pictures import Scene, draw
from attentus.report.plot import WIDTH, Plot, number, padded, shortened, ticks
from attentus.report.run import Run
from attentus.report.slices import has_geometry
from attentus.report.tables import heading, shown
from attentus.reproduce.results import MEASURED
from attentus.reproduce.work import predictions
from attentus.train.evaluate import reference
from attentus.train.levels import Level, sizes
from attentus.types import Scores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from markupsafe import Markup

    from attentus.report.charts import Chart
    from attentus.reproduce.paper import Figure
    from attentus.reproduce.plan import Plan
    from attentus.reproduce.results import TableResult
    from attentus.reproduce.work import Done


class Panel(NamedTuple):
    """One picture with what stands below it."""

    svg: Markup
    caption: str


class Drawn(NamedTuple):
    """A figure, or why there is none."""

    number: str
    about: str
    panels: tuple[Panel, ...]
    why: str = ""


def draw_figures(plan: Plan, done: Mapping[str, Done]) -> list[Drawn]:
    """The figures of the paper whose runs are there; those of other tables are left out."""
    drawn = []
    for name, figure in plan.paper.figures.items():
        if figure.kind is None:
            drawn.append(Drawn(name, figure.about, (), figure.why))
            continue
        runs = [done[key] for key in figure.runs if key in done]
        if not runs:
            if any(key in {step.key for step in plan.steps} for key in figure.runs):
                drawn.append(Drawn(name, figure.about, (), "none of its runs came to an end"))
            continue
        try:
            drawn.append(Drawn(name, figure.about, tuple(KINDS[figure.kind](plan, figure, runs))))
        except AttentusError as error:
            drawn.append(Drawn(name, figure.about, (), str(error)))
    return drawn


def charts_of(found: TableResult, done: Mapping[str, Done]) -> list[Chart]:
    """Of a table: box plots of its rows for every column measured by case, and what networks cost and are worth."""
    lines = [line for line in found.lines if line.state == MEASURED]
    charts = []
    for column in found.table.columns:
        if column.metric is None:
            continue
        rows = tuple(
            row._replace(structure=line.row.name)
            for line in lines
            for row in done[str(line.row.run)].scores.select(structure=column.structure, metric=column.metric)
        )
        scores = Scores(rows, {})
        title = f"{heading(column.metric)} of {column.structure}"
        chart = boxes(scores, column.metric, title, from_zero=column.metric.endswith("_mm")) if rows else None
        charts += [chart] if chart else []
    return charts


def cost_chart(found: TableResult, plan: Plan) -> Panel | None:
    """First column measured against the parameters of the nets as published; None with fewer than two nets."""
    place = next((k for k, column in enumerate(found.table.columns) if not column.cost), None)
    if place is None:
        return None
    column = found.table.columns[place]
    points = {
        line.row.name: (plan.step(str(line.row.run)).parameters, line.cells[place])
        for line in found.lines
        if line.state == MEASURED and math.isfinite(line.cells[place].value)
    }
    known = {name: (count / 1e6, cell) for name, (count, cell) in points.items() if count}
    if len({count for count, _ in known.values()}) < 2:
        return None
    printed = {name: cell.published.value for name, (_, cell) in known.items() if cell.published is not None}
    plot = Plot(
        padded([math.log10(count) for count, _ in known.values()], 0.12),
        padded([*(cell.value for _, cell in known.values()), *printed.values()], 0.08),
        right=100.0,
    )
    for y in ticks(*plot.y, 5):
        plot.path(f"M{plot.left:.1f} {plot.py(y):.1f}H{WIDTH - plot.right:.1f}", "grid")
        plot.text(plot.left - 7, plot.py(y) + 4, number(y), anchor="end")
    for name, (count, cell) in known.items():
        at = plot.px(math.log10(count)), plot.py(cell.value)
        if name in printed:
            plot.dot((at[0], plot.py(printed[name])), "point s0", f"{name}: published {printed[name]:g}", 2.6)
        plot.dot(at, "solid s1", f"{name}: {cell.value:.4g}, {count:.3g} M parameters", 4.0)
        plot.text(at[0] + 7, at[1] + 4, shortened(name, 16), css="name")
    plot.text(plot.left, plot.height - 8, f"{_span(known)} M parameters, logarithmic", css="name")
    caption = f"{column.name} against the size of the nets as published. Large dots: ours. Small dots: published."
    return Panel(plot.svg(f"{column.name} of every method against its parameters"), caption)


def _overlays(plan: Plan, figure: Figure, runs: Sequence[Done]) -> list[Panel]:
    """The same case by every run: the one in the middle of the first run's Dice."""
    case = _typical(runs[0].scores)
    panels = []
    for run in runs:
        found = next(((recipe, file) for recipe, file in predictions(run.folder) if _stem(file) == case), None)
        if case is None or found is None:
            continue
        recipe, file = found
        dataset = plan.dataset(plan.step(run.key))
        image, said = io.read_case(dataset[case]), io.read_labels(file)
        truth = reference(dataset[case], dataset, recipe)
        values = tuple(structure.value for structure in recipe.labels)
        scene = Scene(image.array[0], truth.array[0], said.array[0], image.grid, values, has_geometry(image))
        pictures, _ = draw(scene, f"Case {case}, {run.key}")
        dice = run.scores.select(case=case, metric="dice")
        each = ", ".join(f"{row.structure} {shown(row.value, 'dice')}" for row in dice)
        panels.append(Panel(pictures[0].svg, f"{figure.about}: {_row_name(plan, run.key)}, case {case}. Dice: {each}"))
    return panels


def _levels(plan: Plan, figure: Figure, runs: Sequence[Done]) -> list[Panel]:
    """Dice against time, the area being parameters, as `attentus prune --table` draws it."""
    whole = next((run for run in runs if plan.step(run.key).run.level is None), None)
    if whole is None:
        return []
    from attentus.infer.model import Model

    each = {one.level: one for one in sizes(Model.load(whole.folder / "fold0"))}
    measured: list[Level] = []
    for run in runs:
        cut = plan.step(run.key).run.level
        one = each[cut.level if cut else max(each)]
        measured.append(replace(one, scores=run.scores, seconds=run.forward or math.nan))
    chart = bubbles(of(measured), whole.hardware[0], "window")
    return [Panel(chart.svg, f"{figure.about}. {chart.note}")]


def _curves(plan: Plan, figure: Figure, runs: Sequence[Done]) -> list[Panel]:
    """The loss of every run over its steps."""
    panels = []
    for run in runs:
        steps = Run.open(run.folder / "fold0").steps
        if len(steps) > 1:
            chart = loss_curve(steps)
            panels.append(Panel(chart.svg, f"{_row_name(plan, run.key)}: {figure.about}, loss. {chart.note}"))
    return panels


KINDS: dict[str, Callable[[Plan, Figure, Sequence[Done]], list[Panel]]] = {
    "overlays": _overlays,
    "levels": _levels,
    "curves": _curves,
}
"""What draws each kind of figure that a paper's file names."""


def _typical(scores: Scores) -> str | None:
    """The case in the middle by mean Dice."""
    means = {case: dice for case, dice in case_means(scores, "dice").items() if math.isfinite(dice)}
    ranked = sorted(means, key=lambda case: (means[case], case))
    return ranked[len(ranked) // 2] if ranked else None


def _row_name(plan: Plan, key: str) -> str:
    """What tables call a run."""
    rows = (row for table in plan.paper.tables.values() for row in table.rows if row.run == key)
    return next((row.name for row in rows), key)


def _stem(file: Path) -> str:
    return file.name.removesuffix(".nii.gz")


def _span(known: Mapping[str, tuple[float, object]]) -> str:
    counts = [count for count, _ in known.values()]
    return f"{min(counts):.3g} to {max(counts):.3g}"
