"""Several methods on the same cases, as the papers' tables set them side by side: means, intervals, tests, ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from attentus.errors import BadInput, UnknownName
from attentus.metrics.pair import metric_named
from attentus.metrics.pooled import POOLED, Pooled, pooled
from attentus.metrics.statistics import (
    TESTS,
    Effect,
    PairedTest,
    Ranking,
    bootstrap_interval,
    effect,
    holm,
    paired_test,
    rank_methods,
    stars,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from attentus.types import Scores

USUAL = ("dice", "precision", "recall", "hd95_mm", "assd_mm")
"""Metrics compared unless others are named."""


@dataclass(frozen=True)
class Versus:
    """One method against the reference on the same cases; differences are method minus reference."""

    test: PairedTest
    effect: Effect
    p_holm: float = math.nan
    """p after Holm's correction over all tests of the comparison."""

    @property
    def stars(self) -> str:
        """Significance after the correction."""
        return stars(self.p_holm)


@dataclass(frozen=True)
class Entry:
    """One method in one column. Mean, SD, median and interval are over the cases where every method has a number."""

    method: str
    mean: float
    sd: float
    low: float
    """95 % bootstrap interval of the mean."""
    high: float
    median: float
    n_nan: int
    """Compared cases in which this method has no number."""
    n_inf: int
    """Compared cases in which it is infinitely far off."""
    best: bool
    """Whether the mean is the best of the column; several can be, none is where all are alike or nothing is better."""
    versus: Versus | None = None
    """None for the reference itself."""


@dataclass(frozen=True)
class Column:
    """One metric of one structure."""

    structure: str
    metric: str
    unit: str
    better: str
    """"higher", "lower", or "" where neither is."""
    n: int
    """Cases in which every method has a finite number."""
    entries: tuple[Entry, ...]
    """In the order of the methods."""
    ranking: Ranking | None
    """By mean rank over the cases, infinite distances last; None where neither direction is better."""


@dataclass(frozen=True)
class Comparison:
    """Methods side by side."""

    methods: tuple[str, ...]
    reference: str
    """The method all others are tested against."""
    test: str
    """Key of `statistics.TESTS`."""
    cases: tuple[str, ...]
    """Those every method scored."""
    left_out: Mapping[str, tuple[str, ...]]
    """Case to the methods that did not score it."""
    rules: Mapping[str, str]
    columns: tuple[Column, ...]
    missing: tuple[str, ...] = field(default=())
    """Structures that not every method scored."""

    @property
    def structures(self) -> list[str]:
        """Compared structures."""
        return list(dict.fromkeys(column.structure for column in self.columns))

    @property
    def tests(self) -> int:
        """Tests that Holm's correction counts."""
        return sum(not math.isnan(versus.p_holm) for _, _, versus in self.each_versus())

    def each_versus(self) -> list[tuple[Column, str, Versus]]:
        """Every test with its column and method."""
        return [(c, e.method, e.versus) for c in self.columns for e in c.entries if e.versus is not None]

    def notes(self) -> list[str]:
        """What a reader of the table must know, in sentences."""
        return [*_about_cases(self), *_about_columns(self), *_about_tests(self)]


def compare(
    methods: Mapping[str, Scores],
    *,
    metrics: Sequence[str] | None = None,
    structures: Sequence[str] | None = None,
    reference: str | None = None,
    test: str = "wilcoxon",
) -> Comparison:
    """Compare methods on the cases that all of them scored.

    Every other method is tested against the reference, paired by case; p values are corrected after Holm over all
    tests of the comparison. Cases without a finite number in one of the two are left out of a test and counted.

    Args:
        methods: name to scores, two at least, all made by the same rules.
        metrics: names of metrics, also of pooled ones (`POOLED`, e.g. "dice_global"); None takes those of `USUAL` that
            all methods have.
        structures: names; None takes those that all methods have.
        reference: name of the method to test against; None takes the first.
        test: "wilcoxon" or "t".

    Raises:
        BadInput: fewer than two methods, scores made by different rules, nothing in common, or an empty list of names.
        UnknownName: no such reference, test, metric or structure.
    """
    names = list(methods)
    if len(names) < 2:
        raise BadInput(f"A comparison takes two methods at least, got {len(names)}.")
    reference = reference or names[0]
    if reference not in methods:
        raise UnknownName("method", reference, names)
    if test not in TESTS:
        raise UnknownName("paired test", test, TESTS)
    rules = _common_rules(methods)
    cases, left_out = _common_cases(methods)
    all_structures, missing = _shared({name: scores.structures for name, scores in methods.items()}, "structure")
    all_metrics, _ = _shared({name: scores.metrics for name, scores in methods.items()}, "metric")
    table = _Table(methods, cases, reference, test)
    usual = [metric for metric in USUAL if metric in all_metrics] or all_metrics
    chosen = _chosen(metrics, usual, [*all_metrics, *table.pooled_metrics()], "metric")
    wanted = _chosen(structures, all_structures, all_structures, "structure")
    columns = [table.column(name, metric) for name in wanted for metric in chosen if table.has(name, metric)]
    if not columns:
        raise BadInput(f"{', '.join(chosen)}: not measured on {', '.join(wanted)}.")
    return Comparison(
        tuple(names), reference, test, tuple(cases), left_out, rules, _corrected(columns), missing=tuple(missing)
    )


def direction(metric: str) -> str:
    """Whether "higher" or "lower" is better, "" where neither is or nothing is known."""
    if metric in POOLED:
        return POOLED[metric]
    try:
        return metric_named(metric).better
    except UnknownName:
        return ""


class _Table:
    """The values of all methods on the compared cases."""

    def __init__(self, methods: Mapping[str, Scores], cases: Sequence[str], reference: str, test: str) -> None:
        self.names, self.cases, self.reference, self.test = list(methods), cases, reference, test
        self.values = {name: {row[:3]: row.value for row in scores} for name, scores in methods.items()}
        self.units = {row.metric: row.unit for row in methods[self.names[0]]}
        self.pooled = {name: _pooled(scores, cases) for name, scores in methods.items()}
        self.measured = {row[1:3] for scores in methods.values() for row in scores}

    def pooled_metrics(self) -> list[str]:
        """Scores over all cases together that every method has."""
        has = [{metric for _, metric in numbers} for numbers in self.pooled.values()]
        return [metric for metric in POOLED if all(metric in metrics for metrics in has)]

    def has(self, structure: str, metric: str) -> bool:
        """Whether a metric is measured on a structure; those of lesions are not on organs."""
        return (structure, metric) in self.measured or any((structure, metric) in n for n in self.pooled.values())

    def column(self, structure: str, metric: str) -> Column:
        """Everything about one metric of one structure."""
        better = direction(metric)
        if metric in POOLED:
            return self._pooled_column(structure, metric, better)
        values = np.array(
            [[self.values[n].get((case, structure, metric), math.nan) for n in self.names] for case in self.cases]
        )
        common = values[np.isfinite(values).all(axis=1)]
        means = common.mean(axis=0) if len(common) else np.full(len(self.names), math.nan)
        against = values[:, self.names.index(self.reference)]
        entries = []
        for place, name in enumerate(self.names):
            own = values[:, place]
            itself = name == self.reference
            tested = None if itself else Versus(paired_test(own, against, self.test), effect(own, against))
            entries.append(_entry(name, own, common[:, place], best=_is_best(means, place, better), versus=tested))
        ranking = rank_methods(values, better) if better else None
        return Column(structure, metric, self.units[metric], better, len(common), tuple(entries), ranking)

    def _pooled_column(self, structure: str, metric: str, better: str) -> Column:
        """One number for each method: nothing to test, and no cases to rank."""
        found = [self.pooled[name].get((structure, metric)) for name in self.names]
        values = np.array([math.nan if number is None else number.value for number in found])
        entries = tuple(
            Entry(name, float(value), *_NO_SPREAD, 0, 0, _is_best(values, place, better))
            for place, (name, value) in enumerate(zip(self.names, values, strict=True))
        )
        unit = next((number.unit for number in found if number is not None), "")
        return Column(structure, metric, unit, better, len(self.cases), entries, None)


_NO_SPREAD = (math.nan, math.nan, math.nan, math.nan)
"""SD, interval and median of what is one number."""


def _pooled(scores: Scores, cases: Sequence[str]) -> dict[tuple[str, str], Pooled]:
    """Scores over some of the cases together, by structure and metric."""
    wanted = set(cases)
    rows = tuple(row for row in scores if row.case in wanted)
    return {(number.structure, number.metric): number for number in pooled(replace(scores, rows=rows))}


def _entry(
    name: str, own: NDArray[np.float64], common: NDArray[np.float64], *, best: bool, versus: Versus | None
) -> Entry:
    interval = bootstrap_interval(common)
    n = len(common)
    return Entry(
        name,
        float(common.mean()) if n else math.nan,
        float(common.std(ddof=1)) if n > 1 else math.nan,
        interval.low,
        interval.high,
        float(np.median(common)) if n else math.nan,
        int(np.isnan(own).sum()),
        int(np.isinf(own).sum()),
        best,
        versus,
    )


def _is_best(means: NDArray[np.float64], place: int, better: str) -> bool:
    if not better or np.isnan(means).any() or means.min() == means.max():
        return False
    return bool(means[place] == (means.max() if better == "higher" else means.min()))


def _corrected(columns: Sequence[Column]) -> tuple[Column, ...]:
    """The columns with Holm's correction over all their tests."""
    raw = [entry.versus.test.p for column in columns for entry in column.entries if entry.versus is not None]
    corrected = iter(holm(raw))

    def entry(found: Entry) -> Entry:
        versus = found.versus
        return found if versus is None else replace(found, versus=replace(versus, p_holm=next(corrected)))

    return tuple(replace(column, entries=tuple(entry(found) for found in column.entries)) for column in columns)


def _common_rules(methods: Mapping[str, Scores]) -> Mapping[str, str]:
    """The rules all scores were made by."""
    first, *others = methods
    for other in others:
        here, there = methods[first].rules, methods[other].rules
        apart = [name for name in {**here, **there} if here.get(name) != there.get(name)]
        if apart:
            lines = [f"  {rule}: {here.get(rule, 'not told')} / {there.get(rule, 'not told')}" for rule in apart]
            raise BadInput(
                f"'{first}' and '{other}' were scored by different rules, so their numbers cannot be compared:\n"
                + "\n".join(lines)
                + "\n  Score one of them again with the rules of the other (`attentus score`)."
            )
    return dict(methods[first].rules)


def _common_cases(methods: Mapping[str, Scores]) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """The cases every method scored, in the order of the first, and who lacks the others."""
    scored = {name: set(scores.cases) for name, scores in methods.items()}
    order = dict.fromkeys(case for scores in methods.values() for case in [*scores.cases, *sorted(scores.failures)])
    lacking = {case: tuple(name for name in methods if case not in scored[name]) for case in order}
    cases = [case for case, names in lacking.items() if not names]
    if not cases:
        counts = ", ".join(f"{name} {len(found)}" for name, found in scored.items())
        raise BadInput(
            f"There is no case that all methods scored (cases: {counts}).\n"
            "  Methods are compared case by case: train them with the same split, or score them on the same scans."
        )
    return cases, {case: names for case, names in lacking.items() if names}


def _shared(names: Mapping[str, Sequence[str]], kind: str) -> tuple[list[str], list[str]]:
    """What all methods have, and what only some have."""
    order = dict.fromkeys(name for found in names.values() for name in found)
    shared = [name for name in order if all(name in found for found in names.values())]
    if not shared:
        each = "\n".join(f"  {method}: {', '.join(found)}" for method, found in names.items())
        raise BadInput(f"The methods have no {kind} in common:\n{each}\n  Structures are matched by name.")
    return shared, [name for name in order if name not in shared]


def _chosen(wanted: Sequence[str] | None, usual: list[str], known: list[str], kind: str) -> list[str]:
    if wanted is None:
        return usual
    if not wanted:
        raise BadInput(f"Name one {kind} at least, or none to take the usual ones.")
    for name in wanted:
        if name not in known:
            raise UnknownName(f"{kind} that all methods have", name, known)
    return list(dict.fromkeys(wanted))


def _about_cases(found: Comparison) -> list[str]:
    notes = [f"Means are over the {len(found.cases)} case(s) that every method scored."]
    for name in found.methods:
        lacking = [case for case, names in found.left_out.items() if name in names]
        if lacking:
            notes.append(f"Left out, because {name} did not score them: {_some(lacking)}.")
    if found.missing:
        notes.append(f"Not every method has these structures: {', '.join(found.missing)}.")
    return notes


def _about_columns(found: Comparison) -> list[str]:
    """Where a mean is over fewer cases, and because of whom."""
    notes = []
    for column in found.columns:
        if column.n == len(found.cases):
            continue
        who = [
            f"{entry.method} {count} {kind}"
            for entry in column.entries
            for count, kind in ((entry.n_inf, "infinite"), (entry.n_nan, "undefined"))
            if count
        ]
        notes.append(
            f"{column.structure}, {column.metric}: over {column.n} of {len(found.cases)} cases ({', '.join(who)})."
        )
    together = dict.fromkeys(column.metric for column in found.columns if column.metric in POOLED)
    if together:
        notes.append(f"Over all cases together, hence without SD and test: {', '.join(together)}.")
    return notes


def _about_tests(found: Comparison) -> list[str]:
    if not found.each_versus():
        return []
    test = {"wilcoxon": "Wilcoxon's signed-rank test", "t": "the paired t-test"}[found.test]
    over = f", corrected after Holm over {found.tests} tests" if found.tests > 1 else ""
    notes = [
        f"Stars: different from {found.reference} by {test}, two-sided{over}: * p < 0.05, ** p < 0.01, *** p < 0.001."
    ]
    least = found.tests * 2.0 ** (1 - len(found.cases))  # every difference on one side
    if found.test == "wilcoxon" and least >= 0.05:
        notes.append(
            f"With {len(found.cases)} case(s) no corrected p can be below {min(least, 1.0):.2g}: no star is possible."
        )
    return notes


def _some(names: Sequence[str]) -> str:
    """The names, or the first of many."""
    return ", ".join(names) if len(names) <= 5 else f"{', '.join(names[:5])} and {len(names) - 5} more"
