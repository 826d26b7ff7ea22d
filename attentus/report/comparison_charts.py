"""Charts of several methods on the same cases: paired box plots, agreement of volumes, what accuracy costs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from attentus.report.charts import FEW, Chart, agreement, agreement_of
from attentus.report.comparison import seconds
from attentus.report.pictures import colour
from attentus.report.plot import WIDTH, Plot, number, padded, shortened, spread, ticks
from attentus.report.tables import heading

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from attentus.report.methods import Method
    from attentus.types import Scores

BAND = 62.0
"""Height of one method among paired box plots, px."""
COSTS = {"parameters": "M parameters", "flops": "GFLOPs of one window", "time": "s per case"}
"""What a method costs, and what the axis is called."""
WIDE = 10.0
"""From this ratio of the largest cost to the smallest the axis is logarithmic."""
LINES = 400
"""Cases joined by lines at most; more would be a grey surface."""
VOLUMES = (
    "Predicted minus reference volume of every case (Bland–Altman). The solid line is the mean difference, the"
    " dashed ones hold 95\N{NO-BREAK SPACE}% of cases if differences are normally distributed."
)
FROM_ZERO = ("_mm", "voe")
"""Ends of metrics whose axis begins at zero."""


class Together(Protocol):
    """What is compared: a `Comparison`, or a `Cohort`."""

    @property
    def methods(self) -> tuple[str, ...]:
        """Their names."""

    @property
    def cases(self) -> tuple[str, ...]:
        """Those that every method scored."""

    @property
    def structures(self) -> Sequence[str]:
        """Those that every method has."""


class Cohort(NamedTuple):
    """A single method, which no comparison takes."""

    methods: tuple[str, ...]
    cases: tuple[str, ...]
    structures: tuple[str, ...]


class Offer(NamedTuple):
    """What a method costs and how good it is."""

    method: str
    cost: float
    score: float


def paired(values: Mapping[str, Mapping[str, float]], title: str, *, from_zero: bool = False) -> Chart | None:
    """Box plots of methods, one below the other, and a line for every case from each method to the next.

    Args:
        values: method to case to value; boxes count finite values, lines join what is finite on both sides.
        title: what was measured, with its unit.
        from_zero: whether the axis begins at zero.

    Returns:
        The chart; None where nothing is finite.
    """
    known = {name: {case: v for case, v in cases.items() if math.isfinite(v)} for name, cases in values.items()}
    finite = [v for cases in known.values() for v in cases.values()]
    if not finite:
        return None
    low, high = padded(finite)
    names = {name: shortened(name, 16) for name in known}
    missing = {name: len(values[name]) - len(cases) for name, cases in known.items()}
    plot = Plot(
        (0.0 if from_zero else low, high),
        (0.0, float(len(known))),
        height=BAND * len(known) + 36,
        left=14 + 6.4 * max(map(len, names.values())),
        right=48.0 if any(missing.values()) else 14.0,
        bottom=26.0,
    )
    plot.grid(vertical=True)
    middles = {name: plot.top + (k + 0.5) * BAND for k, name in enumerate(known)}
    for (upper, here), (lower, there) in zip(list(known.items())[:-1], list(known.items())[1:], strict=True):
        for case in [case for case in here if case in there][:LINES]:
            ends = f"M{plot.px(here[case]):.1f} {middles[upper]:.1f}L{plot.px(there[case]):.1f} {middles[lower]:.1f}"
            plot.path(ends, "pair")
    for k, (name, cases) in enumerate(known.items()):
        plot.text(plot.left - 10, middles[name] + 4, names[name], anchor="end")
        _box(plot, middles[name], f"{colour(k)}", cases)
        if missing[name]:
            plot.text(WIDTH - plot.right + 8, middles[name] + 4, f"∞ × {missing[name]}")
    joined = "Lines join the same case." if len(known) > 1 else ""
    lost = " ∞: no finite number, because the structure is missing on one side." if any(missing.values()) else ""
    return Chart(title, plot.svg(f"Box plots of {title} per method, cases joined by lines"), (joined + lost).strip())


def sections(found: Together, methods: Sequence[Method]) -> list[tuple[str, str, list[Chart]]]:
    """The charts of a comparison in groups: (title, what they show, charts); groups without a chart are left out."""
    measured = [metric for metric in ("dice", "hd95_mm", "assd_mm") if metric in _metrics(found, methods)]
    groups = []
    for name in found.structures:
        drawn = [pairs_of(found, methods, name, metric) for metric in measured]
        title = "Case by case" if len(found.structures) == 1 else f"Case by case: {name}"
        groups.append((title, "The compared cases; lines join the same case in neighbouring methods.", drawn))
    priced = {cost: offers(found, methods, "dice", cost) for cost in COSTS}
    costs = [pareto(drawn, "dice", cost) for cost, drawn in priced.items() if len(drawn) > 1]
    groups.append(("What accuracy costs", "Mean Dice over cases and structures against what a method needs.", costs))
    for name in found.structures:
        title = "Volumes" if len(found.structures) == 1 else f"Volumes: {name}"
        groups.append((title, VOLUMES, list(volumes(found, methods, name))))
    kept = [(title, words, [chart for chart in drawn if chart]) for title, words, drawn in groups]
    return [group for group in kept if group[2]]


def pairs_of(found: Together, methods: Sequence[Method], structure: str, metric: str) -> Chart | None:
    """Paired box plots of one metric of one structure over the compared cases."""
    known = {method.name: method.scores for method in methods}
    values = {name: values_of(known[name], found.cases, structure, metric) for name in found.methods}
    return paired(values, heading(metric), from_zero=metric.endswith(FROM_ZERO))


def volumes(found: Together, methods: Sequence[Method], structure: str) -> list[Chart]:
    """A Bland-Altman plot of each method that has volumes of a structure, on common axes."""
    cases = set(found.cases)
    cohorts = {method.name: _of(method.scores, cases) for method in methods}
    each = {name: agreement_of(scores, structure) for name, scores in cohorts.items()}
    each = {name: one for name, one in each.items() if one.pairs}
    return [
        agreement(cohorts[name], structure, title=name, order=k, beside=list(each.values()))
        for k, name in enumerate(found.methods)
        if name in each
    ]


def offers(found: Together, methods: Sequence[Method], metric: str, cost: str) -> list[Offer]:
    """Cost and mean score, structures averaged, of the methods of which both are known.

    Args:
        found: the comparison.
        methods: what was compared.
        metric: e.g. "dice".
        cost: one of `COSTS`.
    """
    drawn = []
    for method in methods:
        means = [_mean(values_of(method.scores, found.cases, name, metric).values()) for name in found.structures]
        price = _cost(method, found.cases, cost)
        score = _mean(means)
        if price and math.isfinite(score):
            drawn.append(Offer(method.name, price, score))
    return drawn


def front(drawn: Sequence[Offer], *, higher: bool) -> list[Offer]:
    """Those that no other beats: none is as cheap and better, or as good and cheaper. Cheapest first."""
    kept: list[Offer] = []
    for one in sorted(drawn, key=lambda o: (o.cost, -o.score if higher else o.score)):
        if not kept or (one.score > kept[-1].score if higher else one.score < kept[-1].score):
            kept.append(one)
    return kept


def pareto(drawn: Sequence[Offer], metric: str, cost: str, *, higher: bool = True) -> Chart | None:
    """Score against cost; a line along the methods that no other beats. None where nothing is known.

    Args:
        drawn: see `offers`.
        metric: what the score is.
        cost: one of `COSTS`.
        higher: whether more is better.
    """
    if not drawn:
        return None
    costs = [one.cost for one in drawn]
    logarithmic = max(costs) / min(costs) >= WIDE
    scaled = {one.method: math.log10(one.cost) if logarithmic else one.cost for one in drawn}
    x = padded(scaled.values(), 0.16) if logarithmic else (0.0, 1.18 * max(costs))
    plot = Plot(x, padded([one.score for one in drawn], 0.14), height=220.0, left=48.0, right=20.0)
    plot.grid(COSTS[cost] + (", logarithmic" if logarithmic else ""), columns=_decades(x) if logarithmic else None)
    best = front(drawn, higher=higher)
    plot.line([(scaled[one.method], one.score) for one in best], "level dashed")
    heights = spread([plot.py(one.score) - 8 for one in drawn], 12, plot.height - plot.bottom)
    for k, (one, height) in enumerate(zip(drawn, heights, strict=True)):
        at = plot.px(scaled[one.method]), plot.py(one.score)
        words = f"{one.method}: {heading(metric)} {one.score:.4g}, {one.cost:.4g} {COSTS[cost]}"
        plot.dot(at, f"solid {colour(k)}" if one in best else f"solid {colour(k)} again", words, 4.5)
        over = at[0] > WIDTH / 2
        plot.text(
            at[0] - 8 if over else at[0] + 8, height, shortened(one.method, 24), anchor="end" if over else "start"
        )
    note = "Dashed: the best for their cost. Rings: another method is as cheap and better."
    return Chart(f"{heading(metric)} against {COSTS[cost]}", plot.svg(f"{heading(metric)} over {COSTS[cost]}"), note)


def values_of(scores: Scores, cases: Sequence[str], structure: str, metric: str) -> dict[str, float]:
    """Case to value, in the order of the cases."""
    known = {row.case: row.value for row in scores.select(structure=structure, metric=metric)}
    return {case: known[case] for case in cases if case in known}


def _metrics(found: Together, methods: Sequence[Method]) -> set[str]:
    """What every method measured."""
    return set.intersection(*(set(method.scores.metrics) for method in methods if method.name in found.methods))


def _of(scores: Scores, cases: set[str]) -> Scores:
    return replace(scores, rows=tuple(row for row in scores if row.case in cases))


def _mean(values: Iterable[float]) -> float:
    known = [v for v in values if math.isfinite(v)]
    return sum(known) / len(known) if known else math.nan


def _cost(method: Method, cases: Sequence[str], cost: str) -> float | None:
    if cost == "time":
        took = seconds(method, cases)
        return None if took is None else took.median
    if method.price is None:
        return None
    return method.price.parameters / 1e6 if cost == "parameters" else method.price.flops / 1e9


def _decades(x: tuple[float, float]) -> dict[float, str]:
    """Ticks of a logarithmic axis: 1, 2 and 5 times powers of ten."""
    powers = range(math.floor(x[0]), math.ceil(x[1]) + 1)
    places = {math.log10(k * 10.0**power): number(k * 10.0**power) for power in powers for k in (1, 2, 5)}
    inside = {place: words for place, words in places.items() if x[0] <= place <= x[1]}
    whole = {place: words for place, words in inside.items() if abs(place - round(place)) < 1e-9}
    return whole if len(whole) >= 3 else inside or {t: number(10**t) for t in ticks(*x, 3)}


def _box(plot: Plot, height: float, css: str, values: Mapping[str, float]) -> None:
    """A box from quartile to quartile and a point for each case; for few cases only points and median."""
    known = np.array(list(values.values()))
    if known.size >= FEW:
        q1, q3 = (float(q) for q in np.percentile(known, [25, 75]))
        plot.path(f"M{plot.px(q1):.1f} {height - 14:.1f}H{plot.px(q3):.1f}v28H{plot.px(q1):.1f}Z", f"box {css}")
    for case, value in values.items():
        plot.dot((plot.px(value), height), f"point {css}", f"{case}: {value:.4g}", 2.2)
    if known.size:
        plot.path(f"M{plot.px(float(np.median(known))):.1f} {height - 14:.1f}v28", "median")
