"""Methods side by side as papers print them: a block per structure, a line per method, columns of scores and costs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from attentus.report.tables import heading, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attentus.metrics.comparison import Column, Comparison
    from attentus.report.methods import Method

ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}


class Cell(NamedTuple):
    """One metric of one method, ready to be shown."""

    mean: str
    sd: str
    """With its sign, "± 0.04"; "" where there is none."""
    interval: str
    """95 % bootstrap interval of the mean; "" where there is none."""
    stars: str
    best: bool
    left_out: str
    """In how many cases the method has no finite number, in words; "" if none."""


NOTHING = Cell("–", "", "", "", best=False, left_out="")
"""A metric that is not measured on a structure."""


class Line(NamedTuple):
    """One method in a block."""

    method: str
    cells: list[Cell]
    costs: list[str]


class Block(NamedTuple):
    """All methods on one structure."""

    structure: str
    lines: list[Line]


class Layout(NamedTuple):
    """A comparison as it is printed."""

    metrics: list[str]
    """Headings with their units; an arrow says which way is better."""
    costs: list[str]
    """Headings of the costs that are known of any method."""
    blocks: list[Block]
    notes: list[str]
    """What must be known to read it."""


class Seconds(NamedTuple):
    """Time per case over the compared cases."""

    median: float
    q1: float
    q3: float
    n: int


def lay_out(found: Comparison, methods: Sequence[Method]) -> Layout:
    """Bring a comparison into blocks, lines and columns."""
    costs = {method.name: _costs(method, found.cases) for method in methods}
    known = [name for name in ("M parameters", "GFLOPs", "s per case") if any(cost[name] for cost in costs.values())]
    headings = {column.metric: heading(column.metric) + ARROWS[column.better] for column in found.columns}
    blocks = []
    for structure in found.structures:
        columns = {column.metric: column for column in found.columns if column.structure == structure}
        lines = []
        for place, name in enumerate(found.methods):
            cells = [_cell(columns[metric], place) if metric in columns else NOTHING for metric in headings]
            lines.append(Line(name, cells, [costs[name][cost] or "–" for cost in known]))
        blocks.append(Block(structure, lines))
    return Layout(list(headings.values()), known, blocks, [*found.notes(), *_about_costs(found, methods)])


def seconds(method: Method, cases: Sequence[str]) -> Seconds | None:
    """Median and quartiles of a method's time per case; None where none of the cases was timed."""
    taken = [method.seconds[case] for case in cases if case in method.seconds]
    if not taken:
        return None
    q1, median, q3 = (float(q) for q in np.percentile(taken, [25, 50, 75]))
    return Seconds(median, q1, q3, len(taken))


def signed(value: float, metric: str) -> str:
    """A difference with its sign and the digits of its metric."""
    if not math.isfinite(value):
        return "–"
    return ("−" if value < 0 else "+") + shown(abs(value), metric).removeprefix("+")


def chance(p: float) -> str:
    """A p value as papers print it."""
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def plain(value: float) -> str:
    """A number without a unit, two decimals."""
    return f"{value:.2f}".replace("-", "−") if math.isfinite(value) else "–"


def _cell(column: Column, place: int) -> Cell:
    entry = column.entries[place]
    kinds = ((entry.n_inf, "infinite"), (entry.n_nan, "undefined"))
    low, high = (shown(value, column.metric) for value in (entry.low, entry.high))
    return Cell(
        shown(entry.mean, column.metric),
        "" if math.isnan(entry.sd) else f"± {shown(entry.sd, column.metric).removeprefix('+')}",
        "" if math.isnan(entry.low) else f"{low} to {high}",
        "" if entry.versus is None else entry.versus.stars,
        entry.best,
        ", ".join(f"{count} {kind}" for count, kind in kinds if count),
    )


def _costs(method: Method, cases: Sequence[str]) -> dict[str, str]:
    price, took = method.price, seconds(method, cases)
    return {
        "M parameters": "" if price is None else _three_digits(price.parameters / 1e6),
        "GFLOPs": "" if price is None else _three_digits(price.flops / 1e9),
        "s per case": "" if took is None else _three_digits(took.median),
    }


def _three_digits(value: float) -> str:
    """1,234 or 12.3 or 0.0123."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _about_costs(found: Comparison, methods: Sequence[Method]) -> list[str]:
    """What the cost columns count."""
    notes = []
    priced = [(method.name, method.price) for method in methods if method.price is not None]
    if priced:
        windows = ", ".join(f"{name} {' × '.join(map(str, price.window))}" for name, price in priced)
        notes.append(f"GFLOPs are of one window, two operations per multiply-add (GMACs are half): {windows}.")
    timed = [method for method in methods if seconds(method, found.cases) is not None]
    machines = {method.name: " and ".join(method.hardware) or "unknown hardware" for method in timed}
    if len(set(machines.values())) > 1:
        each = "; ".join(f"{name} on {machine}" for name, machine in machines.items())
        notes.append(f"Times come from different hardware and cannot be compared: {each}.")
    elif timed:
        notes.append(f"Time per case: median from scan file to label file, on {machines[timed[0].name]}.")
    return notes
