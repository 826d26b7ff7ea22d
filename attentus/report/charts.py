"""The report's charts: scores of a cohort, and the course of a training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from attentus.report.pictures import COLOURS, colour
from attentus.report.plot import WIDTH, Plot, number, padded, shortened, spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

    from attentus.types import Scores

    Log = Sequence[Mapping[str, Any]]
    """Lines of a metrics.jsonl, all of one kind."""

Points = list[tuple[float, float]]

ROW = 40.0
"""Height of one structure among box plots, px."""
FEW = 5
"""With fewer cases the points and their median say more than a box."""
DETAIL = 300
"""Points a curve is drawn with at most; longer ones keep the extremes of each stretch."""
GOLDEN = 0.618034


class Chart(NamedTuple):
    """One chart with its title and, where needed, a remark."""

    title: str
    svg: Markup
    note: str = ""
    live: Markup | str = ""
    """What a page shows instead, if there is something to move or to turn."""


def boxes(scores: Scores, metric: str, title: str, *, from_zero: bool) -> Chart | None:
    """Box plots with all points, one row per structure; None where no value is finite.

    Box from quartile to quartile with the median, whiskers to the farthest points within 1.5 box lengths;
    only points and median for fewer than five.

    Args:
        scores: the cohort.
        metric: e.g. "dice".
        title: what the metric is called, with its unit.
        from_zero: whether the axis begins at zero, as distances do, or where the data do.
    """
    measured = scores.select(metric=metric)
    rows = {name: measured.select(structure=name).rows for name in measured.structures}
    finite = [row.value for group in rows.values() for row in group if math.isfinite(row.value)]
    if not finite:
        return None
    low, high = padded(finite)
    names = {name: shortened(name, 16) for name in rows}
    infinite = any(math.isinf(row.value) for group in rows.values() for row in group)
    plot = Plot(
        (0.0 if from_zero else low, high),
        (0.0, float(len(rows))),
        height=ROW * len(rows) + 36,
        left=14 + 6.4 * max(map(len, names.values())),
        right=44.0 if infinite else 14.0,
        bottom=26.0,
    )
    plot.grid(vertical=True)
    for k, (name, group) in enumerate(rows.items()):
        _box(plot, plot.top + (k + 0.5) * ROW, k, names[name], {row.case: row.value for row in group})
    note = "∞: no distance, because the structure is missing on one side." if infinite else ""
    return Chart(title, plot.svg(f"Box plots of {title} per structure; the table above has the numbers"), note)


class Agreement(NamedTuple):
    """How far predicted volumes agree with the reference (Bland and Altman 1986)."""

    pairs: dict[str, tuple[float, float]]
    """Case to predicted and reference volume, ml."""
    bias: float
    """Mean difference, ml."""
    around: float
    """Half the width of the limits of agreement: 1.96 standard deviations (n - 1) of the differences; nan for one."""

    @property
    def points(self) -> dict[str, tuple[float, float]]:
        """Case to mean and difference (prediction minus reference), ml."""
        return {case: ((p + r) / 2, p - r) for case, (p, r) in self.pairs.items()}

    @property
    def levels(self) -> dict[str, float]:
        """The lines of the plot, those that are known."""
        lines = {"bias": self.bias, "+1.96 SD": self.bias + self.around, "−1.96 SD": self.bias - self.around}
        return {name: level for name, level in lines.items() if math.isfinite(level)}


def agreement_of(scores: Scores, structure: str) -> Agreement:
    """Volumes of a structure against the reference, over the cases that have both."""
    cases = {row.case: row.value for row in scores.select(structure=structure, metric="volume_ml")}
    truth = {row.case: row.value for row in scores.select(structure=structure, metric="reference_ml")}
    pairs = {case: (cases[case], truth[case]) for case in cases if case in truth}
    off = np.array([p - r for p, r in pairs.values()])
    around = 1.96 * float(off.std(ddof=1)) if len(off) > 1 else math.nan
    return Agreement(pairs, float(off.mean()) if len(off) else math.nan, around)


def agreement(
    scores: Scores, structure: str, *, title: str = "", order: int | None = None, beside: Sequence[Agreement] = ()
) -> Chart:
    """Bland-Altman plot of volumes: difference against mean of prediction and reference, ml.

    Args:
        scores: the cohort; at least one case has both volumes of the structure.
        structure: which one.
        title: of the chart; the structure's name if it is empty.
        order: which colour; that of the structure if none is given.
        beside: others with which it shall share its axes.
    """
    found = agreement_of(scores, structure)
    together = (found, *beside)
    plot = Plot(
        padded([mean for one in together for mean, _ in one.points.values()], 0.08),
        padded(
            [0.0, *(v for one in together for v in (*one.levels.values(), *(d for _, d in one.points.values())))], 0.08
        ),
        height=200.0,
        left=52.0,
        right=88.0,
    )
    plot.grid("mean of prediction and reference, ml")
    plot.line([(plot.x[0], 0.0), (plot.x[1], 0.0)], "axis")
    heights = spread([plot.py(level) for level in found.levels.values()], 26, plot.height - plot.bottom)
    for (name, level), height in zip(found.levels.items(), heights, strict=True):
        plot.line([(plot.x[0], level), (plot.x[1], level)], "level" if name == "bias" else "level dashed")
        plot.text(WIDTH - plot.right + 6, height - 2, name, css="name")
        plot.text(WIDTH - plot.right + 6, height + 11, f"{number(float(f'{level:.3g}'))} ml")
    css = f"point {colour(scores.structures.index(structure) if order is None else order)}"
    for case, (mean, difference) in found.points.items():
        predicted, true = found.pairs[case]
        words = f"{case}: predicted {predicted:.4g} ml, reference {true:.4g} ml"
        plot.dot((plot.px(mean), plot.py(difference)), css, words)
    label = f"Bland-Altman plot of the volume of {structure}: bias {found.bias:.3g} ml, limits ±{found.around:.3g} ml"
    return Chart(title or structure, plot.svg(label))


def loss_curve(steps: Log) -> Chart:
    """Loss of every step, faint, and its running mean."""
    raw = [(float(line["step"]), float(line["loss"])) for line in steps]
    plot = Plot(_span(raw), padded([loss for _, loss in raw]))
    plot.grid("step")
    plot.line(_thinned(raw), "raw")
    plot.line(_thinned(_running_mean(raw)), "curve")
    return Chart(
        "Loss", plot.svg("Training loss over steps, raw and smoothed"), "Faint: every step. Bold: running mean."
    )


def dice_curves(validations: Log, names: Sequence[str], last_step: int) -> Chart:
    """Dice of each structure at every validation, and the step whose weights were kept."""
    curves = {name: [(float(v["step"]), float(v.get(f"dice {name}", math.nan))) for v in validations] for name in names}
    values = [value for curve in curves.values() for _, value in curve]
    words = {name: shortened(name, 15) for name in names}
    right = 14 + 7.5 * max(map(len, words.values()), default=0)
    plot = Plot((0.0, float(max(last_step, 1))), (max(padded(values)[0], 0.0), 1.0), right=right)
    plot.grid("step")
    best = max(validations, key=lambda v: float(v["mean"]))
    column = plot.px(best["step"])
    plot.path(f"M{column:.1f} {plot.top:.1f}V{plot.height - plot.bottom:.1f}", "best")
    ends = []
    for k, curve in enumerate(curves.values()):
        known = [(x, y) for x, y in curve if math.isfinite(y)]
        plot.line(curve, f"curve {colour(k)}")
        for x, y in known if len(known) <= 20 else known[-1:]:
            plot.dot((plot.px(x), plot.py(y)), f"solid {colour(k)}", f"step {x:.0f}: {y:.3f}")
        ends.append(plot.py(known[-1][1]) if known else plot.py(plot.y[0]))
    for k, (name, height) in enumerate(zip(names, spread(ends, 13, plot.height - plot.bottom), strict=True)):
        plot.text(WIDTH - plot.right + 8, height + 4, words[name], css=f"word {colour(k)}")
    note = f"Dotted: step {best['step']:,}, mean Dice {best['mean']:.3f}; its weights were kept."
    return Chart("Dice on validation", plot.svg("Validation Dice of each structure over steps"), note)


def over_training(title: str, curves: Mapping[str, Points], dotted: Points = ()) -> Chart | None:  # type: ignore[assignment]
    """A number of each attention module at the moments it was looked at; None where no value is known.

    Up to seven modules get colours and names; of more, all are drawn faint and their mean bold.

    Args:
        title: what is shown.
        curves: module to (step, value).
        dotted: the value that an even map would have.
    """
    known = {name: [point for point in curve if math.isfinite(point[1])] for name, curve in curves.items()}
    everything = [value for curve in (*known.values(), dotted) for _, value in curve]
    if not any(known.values()):
        return None
    few = len(known) <= COLOURS
    words = {name: shortened(name, 16) for name in known} if few else {}
    right = 14 + 6.6 * max(map(len, words.values()), default=0)
    low, high = padded(everything)
    last = max(step for curve in known.values() for step, _ in curve)
    plot = Plot((0.0, max(last, 1.0)), (max(low, 0.0), high), left=52.0, right=right)
    plot.grid("step")
    plot.line(dotted, "best")
    for k, (name, curve) in enumerate(known.items()):
        css = f"curve {colour(k)}" if few else "raw"
        plot.line(curve, css)
        for step, value in curve:
            place = (plot.px(step), plot.py(value))
            plot.dot(
                place, f"solid {colour(k)}" if few else "", f"{name}, step {step:,.0f}: {value:.3g}", 2.6 if few else 1
            )
    if few:
        ends = [plot.py(curve[-1][1]) if curve else plot.py(plot.y[0]) for curve in known.values()]
        for k, (name, height) in enumerate(zip(known, spread(ends, 12, plot.height - plot.bottom), strict=True)):
            plot.text(WIDTH - plot.right + 8, height + 4, words[name], css=f"word {colour(k)}")
    else:
        steps = sorted({step for curve in known.values() for step, _ in curve})
        plot.line(
            [(s, float(np.mean([v for curve in known.values() for t, v in curve if t == s]))) for s in steps], "curve"
        )
    notes = ["Faint: every module. Bold: their mean."] * (not few) + ["Dotted: what an even map would have."] * bool(
        dotted
    )
    return Chart(title, plot.svg(f"{title} of each attention module over the training"), " ".join(notes))


def losses(runs: Mapping[str, Log]) -> Chart:
    """Smoothed loss of several trainings."""
    return _several(
        {name: [(float(s["step"]), float(s["loss"])) for s in steps] for name, steps in runs.items()}, "Loss"
    )


def mean_dice(runs: Mapping[str, Log]) -> Chart:
    """Mean Dice of several trainings at every validation."""
    points = {name: [(float(v["step"]), float(v["mean"])) for v in log] for name, log in runs.items()}
    return _several(points, "Mean Dice on validation", smooth=False)


def _several(runs: Mapping[str, Points], title: str, *, smooth: bool = True) -> Chart:
    """A curve per run, named at its end."""
    drawn = {name: _thinned(_running_mean(points)) if smooth else points for name, points in runs.items()}
    words = {name: shortened(name, 15) for name in drawn}
    every = [point for points in drawn.values() for point in points]
    right = 14 + 7.5 * max(map(len, words.values()))
    plot = Plot((0.0, max(x for x, _ in every)), padded([y for _, y in every]), right=right)
    plot.grid("step")
    for k, points in enumerate(drawn.values()):
        plot.line(points, f"curve {colour(k)}")
    heights = spread([plot.py(points[-1][1]) for points in drawn.values()], 13, plot.height - plot.bottom)
    for k, (name, height) in enumerate(zip(drawn, heights, strict=True)):
        plot.text(WIDTH - plot.right + 8, height + 4, words[name], css=f"word {colour(k)}")
    return Chart(title, plot.svg(f"{title} of several trainings over steps"))


def rate_curve(steps: Log) -> Chart:
    """Learning rate."""
    points = [(float(line["step"]), float(line["lr"])) for line in steps]
    plot = Plot(_span(points), (0.0, max(max(rate for _, rate in points) * 1.05, 1e-12)), height=122.0, left=48.0)
    plot.grid("step")
    plot.line(_thinned(points), "curve")
    return Chart("Learning rate", plot.svg("Learning rate over steps"))


def time_curve(steps: Log) -> Chart:
    """Seconds per step, and how much of them was spent waiting for data (medians of neighbouring steps)."""
    seconds = _medians([(float(line["step"]), float(line["seconds"])) for line in steps])
    wait = _medians([(float(line["step"]), float(line["wait"])) for line in steps])
    plot = Plot(_span(seconds), (0.0, max(max(s for _, s in seconds) * 1.1, 1e-6)), height=122.0, left=48.0)
    plot.grid("step")
    plot.area(wait, "waiting")
    plot.line(seconds, "curve")
    share = sum(float(line["wait"]) for line in steps) / max(sum(float(line["seconds"]) for line in steps), 1e-9)
    note = f"Filled: waiting for data, {100 * share:.1f} % of the time."
    return Chart("Seconds per step", plot.svg("Seconds per step over steps"), note)


def _box(plot: Plot, height: float, order: int, name: str, values: Mapping[str, float]) -> None:
    """One row of box plots around a height in px."""
    plot.text(plot.left - 10, height + 4, name, anchor="end")
    known = np.array([v for v in values.values() if math.isfinite(v)])
    if known.size >= FEW:
        q1, q3 = (float(q) for q in np.percentile(known, [25, 75]))
        inside = known[(known >= q1 - 1.5 * (q3 - q1)) & (known <= q3 + 1.5 * (q3 - q1))]
        low, high = plot.px(float(inside.min())), plot.px(float(inside.max()))
        left, right = plot.px(q1), plot.px(q3)
        plot.path(f"M{low:.1f} {height:.1f}H{left:.1f}M{right:.1f} {height:.1f}H{high:.1f}", "whisker")
        plot.path(f"M{left:.1f} {height - 12:.1f}H{right:.1f}v24H{left:.1f}Z", f"box {colour(order)}")
    for k, (case, value) in enumerate(values.items()):
        if math.isfinite(value):
            jitter = (k * GOLDEN % 1 - 0.5) * 18
            plot.dot((plot.px(value), height + jitter), f"point {colour(order)}", f"{case}: {value:.4g}", 2.0)
    if known.size:
        plot.path(f"M{plot.px(float(np.median(known))):.1f} {height - 12:.1f}v24", "median")
    if infinite := sum(math.isinf(v) for v in values.values()):
        plot.text(WIDTH - plot.right + 8, height + 4, f"∞ × {infinite}")


def _span(points: Points) -> tuple[float, float]:
    return 0.0, max(points[-1][0], 1.0)


def _stretches(points: Points, count: int) -> list[Points]:
    """The points in about that many stretches of equal length."""
    length = max(1, math.ceil(len(points) / count))
    return [points[k : k + length] for k in range(0, len(points), length)]


def _thinned(points: Points) -> Points:
    """At most two points, the lowest and the highest, of each stretch, so that no spike is lost."""
    if len(points) <= 2 * DETAIL:
        return points
    ends = ((min(s, key=lambda p: p[1]), max(s, key=lambda p: p[1])) for s in _stretches(points, DETAIL))
    return [point for pair in ends for point in sorted(pair)]


def _medians(points: Points) -> Points:
    """The median of each stretch."""
    stretches = _stretches(points, 60)
    return [(s[len(s) // 2][0], float(np.median([value for _, value in s]))) for s in stretches]


def _running_mean(points: Points) -> Points:
    """Each value averaged with its neighbours, a thirtieth of the curve in all; fewer at the ends."""
    reach = len(points) // 60
    sums = np.cumsum([0.0, *(value for _, value in points)])
    smooth = []
    for k, (x, _) in enumerate(points):
        around = min(reach, k, len(points) - 1 - k)
        smooth.append((x, float(sums[k + around + 1] - sums[k - around]) / (2 * around + 1)))
    return smooth
