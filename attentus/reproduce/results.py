"""Our numbers beside the published ones: differences, tests against the paper's method, order of the rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from attentus.metrics.comparison import compare
from attentus.metrics.pooled import pooled
from attentus.metrics.statistics import holm, stars
from attentus.metrics.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attentus.reproduce.paper import Column, Published, Row, Table
    from attentus.reproduce.plan import Plan, Step
    from attentus.reproduce.work import Done

MEASURED, FAILED, PRINTED = "measured", "failed", "published only"
"""States of a row."""
ORDERED = 3
"""Rows with both numbers from which an order can be compared."""


@dataclass(frozen=True)
class Test:
    """One column of a method against that of the paper's method, paired by case."""

    against: str
    """A run."""
    difference: float
    """Mean over the cases, method minus the paper's, in the paper's unit."""
    p: float
    pairs: int
    p_holm: float = math.nan
    """After Holm's correction over the tests of the table."""

    @property
    def stars(self) -> str:
        """* p < 0.05, ** p < 0.01, *** p < 0.001, corrected."""
        return stars(self.p_holm)


@dataclass(frozen=True)
class Cell:
    """One number of ours beside the published one; in the paper's unit."""

    column: Column
    published: Published | None
    value: float = math.nan
    """What is set beside it."""
    mean: float = math.nan
    """Over the cases, where `value` is not that itself."""
    sd: float = math.nan
    n: int = 0
    """Cases with a finite number."""
    left_out: int = 0
    """Cases without."""
    note: str = ""
    test: Test | None = None

    @property
    def difference(self) -> float:
        """Ours minus the published; nan where one is missing."""
        return math.nan if self.published is None else self.value - self.published.value


@dataclass(frozen=True)
class Line:
    """A row with its numbers."""

    row: Row
    state: str
    why: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class TableResult:
    """A table with our numbers."""

    number: str
    table: Table
    lines: tuple[Line, ...]
    order: tuple[float | None, ...]
    """For each column Kendall's tau between the published order of the rows and ours; None for too few."""
    tests: int
    """That Holm's correction counts."""

    @property
    def measured(self) -> int:
        """Rows with numbers of ours."""
        return sum(line.state == MEASURED for line in self.lines)

    def facts(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "table": self.number,
            "title": self.table.title,
            "method": self.table.method,
            "test": self.table.test,
            "tests": self.tests,
            "notes": list(self.table.notes),
            "columns": [
                {"name": column.name, "structure": column.structure, "order_tau": tau}
                for column, tau in zip(self.table.columns, self.order, strict=True)
            ],
            "rows": [
                {
                    "name": line.row.name,
                    "run": line.row.run,
                    "state": line.state,
                    "why": line.why,
                    "cells": [cell_facts(cell) for cell in line.cells],
                }
                for line in self.lines
            ],
        }


def cell_facts(cell: Cell) -> dict[str, Any]:
    """One cell as plain values; None for what is not known."""
    printed, test, column = cell.published, cell.test, cell.column
    return {
        "column": column.name,
        "structure": column.structure or None,
        "metric": column.metric or column.pooled or column.cost,
        "ours": _known(cell.value),
        "mean": _known(cell.mean),
        "sd": _known(cell.sd),
        "n": cell.n,
        "left_out": cell.left_out,
        "published": printed and printed.value,
        "published_sd": printed and printed.sd,
        "difference": _known(cell.difference),
        "against": test and test.against,
        "mean_difference": test and _known(test.difference),
        "p": test and _known(test.p),
        "p_holm": test and _known(test.p_holm),
        "pairs": test and test.pairs,
        "note": cell.note,
    }


def fill(number: str, plan: Plan, done: Mapping[str, Done], failed: Mapping[str, str]) -> TableResult:
    """A table with our numbers as far as there are any.

    Args:
        number: of the table.
        plan: that was carried out.
        done: what there is, by run.
        failed: run to why it failed.
    """
    table = plan.tables[number]
    lines = [_line(row, table, plan, done, failed) for row in table.rows]
    lines = [_relative(line, lines[0]) for line in lines]
    tested, count = _tested(table, lines, done)
    return TableResult(number, table, tuple(tested), tuple(_order(tested, k) for k in range(len(table.columns))), count)


def _line(row: Row, table: Table, plan: Plan, done: Mapping[str, Done], failed: Mapping[str, str]) -> Line:
    pairs = list(zip(table.columns, row.published, strict=True))
    if row.run is None or row.run not in done:
        state = PRINTED if row.run is None else FAILED
        why = row.why or failed.get(str(row.run)) or plan.step(str(row.run)).why
        if row.run and plan.step(row.run).why:
            state = PRINTED  # it could not be done from the start
        return Line(row, state, why, tuple(Cell(column, published) for column, published in pairs))
    found, step = done[row.run], plan.step(row.run)
    cells = (_cost(column, p, found, step) if column.cost else _measured(column, p, found) for column, p in pairs)
    return Line(row, MEASURED, "", tuple(cells))


def _cost(column: Column, published: Published | None, found: Done, step: Step) -> Cell:
    if column.cost == "parameters":
        exact = step.parameters
        value = math.nan if exact is None else exact * column.factor
        here = "" if found.parameters in (None, exact) else f"{found.parameters:,} in the net trained here"
        return Cell(column, published, value, note=here)
    value = math.nan if found.forward is None else found.forward * column.factor
    size = " × ".join(map(str, found.window[1:] if found.window[:1] == (1,) else found.window))
    return Cell(column, published, value, note=f"{size} voxels, {' and '.join(found.hardware)}" if size else "")


def _measured(column: Column, published: Published | None, found: Done) -> Cell:
    own = found.scores.select(structure=column.structure, metric=column.metric) if column.metric else None
    summary = next(iter(summarise(own)), None) if own else None
    cell = Cell(column, published)
    if summary is not None and summary.n:
        mean, sd = summary.mean * column.factor, summary.sd * column.factor
        cell = replace(cell, value=mean, mean=mean, sd=sd, n=summary.n, left_out=summary.n_nan + summary.n_inf)
    elif summary is not None:
        cell = replace(cell, left_out=summary.n_nan + summary.n_inf)
    if column.pooled is None:
        missing = not len(found.scores.select(structure=column.structure))
        note = "not segmented" if missing else "not measured here" if summary is None else ""
        return replace(cell, note=note)
    whole = found.scores.select(structure=column.structure)
    together = {number.metric: number.value for number in pooled(whole)}
    value = together.get(column.pooled, math.nan) * column.factor
    cases = len(whole.cases)
    return replace(cell, value=value, n=cell.n or cases, note="" if cases else "not segmented")


def _relative(line: Line, first: Line) -> Line:
    """Where the paper prints what comes on top of the first row, so do we."""
    cells = [
        replace(cell, value=cell.value - base.value) if cell.published is not None and cell.published.more else cell
        for cell, base in zip(line.cells, first.cells, strict=True)
    ]
    return replace(line, cells=tuple(cells))


def _tested(table: Table, lines: list[Line], done: Mapping[str, Done]) -> tuple[list[Line], int]:
    """Every method against its reference, column by column; p corrected over the table."""
    found: dict[tuple[int, int], Test] = {}
    for i, line in enumerate(lines):
        against = line.row.against or table.method
        if line.state != MEASURED or against is None or against not in done or against == line.row.run:
            continue
        for k, column in enumerate(table.columns):
            test = _test(column, done[str(line.row.run)], done[against], table.test)
            if test is not None:
                found[i, k] = test
    known = [place for place, test in found.items() if not math.isnan(test.p)]
    for place, p in zip(known, holm([found[place].p for place in known]), strict=True):
        found[place] = replace(found[place], p_holm=p)
    tested = [
        replace(line, cells=tuple(replace(cell, test=found.get((i, k))) for k, cell in enumerate(line.cells)))
        for i, line in enumerate(lines)
    ]
    return tested, len(known)


def _test(column: Column, own: Done, other: Done, how: str) -> Test | None:
    """One test; None where nothing is measured case by case, or no case is common."""
    if column.metric is None:
        return None
    sides = [side.scores.select(structure=column.structure, metric=column.metric) for side in (own, other)]
    if not (sides[0] and sides[1]) or not {*sides[0].cases} & {*sides[1].cases}:
        return None
    found = compare({"other": sides[1], "own": sides[0]}, metrics=[column.metric], reference="other", test=how)
    [(_, _, versus)] = found.each_versus()
    return Test(other.key, versus.effect.difference * column.factor, versus.test.p, versus.test.n)


def _order(lines: list[Line], place: int) -> float | None:
    """Kendall's tau (b) of the published numbers of a column and ours."""
    from scipy.stats import kendalltau

    if not lines or lines[0].cells[place].column.cost:  # what a net costs is no result
        return None
    cells = [line.cells[place] for line in lines if line.state == MEASURED]
    pairs = [(c.published.value, c.value) for c in cells if c.published is not None and math.isfinite(c.value)]
    if len(pairs) < ORDERED or len({ours for _, ours in pairs}) == 1:
        return None
    tau = float(kendalltau([published for published, _ in pairs], [ours for _, ours in pairs]).statistic)
    return tau if math.isfinite(tau) else None


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
