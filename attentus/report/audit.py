"""What `attentus audit` writes: every number, and a page with the verdicts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from attentus.explain.replace import CONTROLS
from attentus.explain.verdict import rule
from attentus.io.atomic import replacing_folder
from attentus.io.plain import json_text
from attentus.metrics.statistics import stars
from attentus.report.charts import Chart
from attentus.report.comparison import chance, signed
from attentus.report.page import render
from attentus.report.plot import Plot, padded, shortened
from attentus.report.tables import heading, rules_in_words

if TYPE_CHECKING:
    from pathlib import Path

    from attentus.explain.auditing import Audit, Row
    from attentus.explain.retrain import Retrained
    from attentus.explain.verdict import Change

FILE, TABLE, PAGE = "audit.json", "audit.csv", "index.html"
LINE = 30.0
"""Height of one module in the chart, px."""
TITLES = {
    "none": "Removed",
    "mean": "Own mean",
    "shuffled": "Shuffled",
    "channels": "Channels shuffled",
    "other": "Other patient's",
}
"""Replacements as column headings."""


class Cell(NamedTuple):
    """One change, ready to be shown."""

    change: str
    interval: str
    stars: str
    p: str


class Line(NamedTuple):
    """One row of the audit."""

    name: str
    kind: str
    parameters: str
    shared: int
    milliseconds: str
    verdict: str
    pattern: str
    cells: list[Cell | None]
    """One per replacement, None where it does not apply."""


class Trained(NamedTuple):
    """One arm of trainings with and without attention, ready to be shown."""

    name: str
    parameters: str
    steps: str
    dice: str
    """Seed by seed."""
    by_seed: str
    """Its difference from the arm with attention, seed by seed."""
    change: str
    interval: str
    p: str
    hd95: str
    """Change in HD95, mm."""
    verdict: str


def write_audit(found: Audit, out: Path, *, overwrite: bool = False) -> None:
    """Write a folder: audit.json, audit.csv with every case, index.html.

    Args:
        found: see `explain.audit`.
        out: the folder.
        overwrite: whether an earlier one may be replaced.

    Raises:
        BadFile: the folder exists and may not be replaced, or cannot be written to.
    """
    with replacing_folder(out, holds=FILE, overwrite=overwrite) as folder:
        (folder / FILE).write_text(json_text(found.facts()), encoding="utf-8")
        (folder / TABLE).write_text(found.to_csv(), encoding="utf-8")
        (folder / PAGE).write_text(to_html(found), encoding="utf-8")


def to_html(found: Audit) -> str:
    """The page."""
    controls = [name for name in CONTROLS if any(name in row.changes for row in found.rows)]
    plain = found.scores[""]
    return render(
        "audit.html.j2",
        found=found,
        verdict=sentence(found),
        titles=[TITLES[name] for name in controls],
        controls=[(TITLES[name], CONTROLS[name]) for name in controls],
        lines=lines(found, controls, "dice"),
        others=[(heading(metric), lines(found, controls, metric)) for metric in ("hd95_mm", "volume_ml")],
        chart=_chart(found),
        rule=rule(found.margin),
        rules=rules_in_words(plain.rules),
        dice=f"{_overall(found):.3f}",
        arms=arms(found.retrained) if found.retrained else [],
    )


def arms(found: Retrained) -> list[Trained]:
    """The arms of a retraining as text, that with attention first."""
    lines = []
    for result in found.results:
        dice = result.changes and _cell(result.changes["dice"])
        distance = result.changes and _cell(result.changes["hd95_mm"])
        lines.append(
            Trained(
                result.arm.name,
                f"{result.arm.parameters:,}",
                ", ".join(f"{steps:,}" for steps in dict.fromkeys(result.steps)),
                ", ".join(f"{value:.4f}" for value in result.dice),
                ", ".join(map(_four, result.by_seed)) or "–",
                dice.change if dice else "–",
                dice.interval if dice else "–",
                dice.p if dice else "–",
                distance.change if distance else "–",
                result.verdict or "–",
            )
        )
    return lines


def sentence(found: Audit) -> str:
    """The result in one sentence."""
    single = [row for row in found.rows if len(row.modules) == 1]
    counts = {name: sum(row.verdict == name for row in single) for name in dict.fromkeys(row.verdict for row in single)}
    listed = ", ".join(f"{count} {name}" for name, count in counts.items())
    return f"Of {len(single)} attention modules: {listed}."


def lines(found: Audit, controls: list[str], metric: str) -> list[Line]:
    """The rows of an audit as text, with the changes of one metric."""
    return [
        Line(
            row.name,
            row.kind,
            f"{row.parameters:,}",
            row.shared_with,
            f"{row.milliseconds:.2f}".replace("-", "−"),
            row.verdict,
            row.pattern if "mean" in row.changes else "–",
            [_cell(row.changes[name][metric]) if name in row.changes else None for name in controls],
        )
        for row in found.rows
    ]


def _cell(one: Change) -> Cell:
    low, high = signed(one.low, one.metric), signed(one.high, one.metric)
    digits = 4 if one.metric == "dice" else 2
    shown = f"{abs(one.difference):.{digits}f}" if math.isfinite(one.difference) else "–"
    if one.metric == "dice":
        low, high = (_four(value) for value in (one.low, one.high))
    sign = "−" if one.difference < 0 else "+"
    interval = "" if math.isnan(one.low) else f"{low} to {high}"
    change = shown if shown == "–" else sign + shown
    return Cell(change, interval, stars(one.p_holm), chance(one.p_holm))


def _four(value: float) -> str:
    return ("−" if value < 0 else "+") + f"{abs(value):.4f}" if math.isfinite(value) else "–"


def _overall(found: Audit) -> float:
    return next(iter(found.rows[0].changes.values()))["dice"].before


def _chart(found: Audit) -> Chart:
    """Change in Dice on removal (disc) and with the own mean (ring), with their intervals."""
    rows = [row for row in found.rows if not math.isnan(row.changes["none"]["dice"].low)]
    drawn = [one for row in rows for one in _pair(row)]
    low, high = padded([0.0, -found.margin, found.margin, *(v for one in drawn for v in (one.low, one.high))])
    shared = _shared([row.name for row in rows if len(row.modules) == 1])
    names = {row.name: shortened(row.name.removeprefix(shared), 26) for row in rows}
    longest = max(map(len, names.values()), default=0)
    plot = Plot(
        (low, high),
        (0.0, float(max(len(rows), 1))),
        height=LINE * max(len(rows), 1) + 50,
        left=14 + 6.6 * longest,
    )
    plot.grid("change in mean Dice", vertical=True)
    bottom = plot.height - plot.bottom
    for value, css in ((0.0, "axis"), (-found.margin, "best"), (found.margin, "best")):
        plot.path(f"M{plot.px(value):.1f} {plot.top:.1f}V{bottom:.1f}", css)
    for number, row in enumerate(rows):
        middle = plot.top + (number + 0.5) * LINE
        plot.text(plot.left - 8, middle + 4, names[row.name], anchor="end", css="name")
        for one, css, height in zip(_pair(row), ("solid s1", "solid s0 again"), (middle - 5, middle + 5), strict=False):
            plot.path(f"M{plot.px(one.low):.1f} {height:.1f}H{plot.px(one.high):.1f}", "whisker")
            title = f"{row.name}: {one.difference:+.4f}, {one.low:+.4f} to {one.high:+.4f}"
            plot.dot((plot.px(one.difference), height), css, title, radius=3.4)
    note = "Disc: removed. Ring: its own mean. Dotted: the smallest change that matters."
    return Chart("Change in mean Dice with its 95 % interval", plot.svg("Change in Dice per module"), note)


def _shared(names: list[str]) -> str:
    """What stands before the last dot, if it is the same in all names."""
    heads = {name.rpartition(".")[0] for name in names}
    return f"{heads.pop()}." if len(heads) == 1 and "" not in heads else ""


def _pair(row: Row) -> list[Change]:
    return [row.changes[name]["dice"] for name in ("none", "mean") if name in row.changes]
