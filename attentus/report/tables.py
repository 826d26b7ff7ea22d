"""Scores as tables for people: one summary per structure, one line per case, the rules in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from attentus.metrics.summary import Detection, Summary, case_means, detections, summarise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attentus.types import Scores

SUMMARY = {
    "dice": "Dice",
    "iou": "IoU",
    "precision": "Precision",
    "recall": "Recall",
    "rvd": "RVD",
    "hd95_mm": "HD95 mm",
    "assd_mm": "ASSD mm",
    "volume_ml": "Volume ml",
    "reference_ml": "Reference ml",
}
"""Metrics of the summary and their headings."""

REMARKS = {"empty_prediction": "missed", "empty_reference": "false alarm", "both_empty": "absent"}
"""Notes of scores in words."""

_WORDS = {
    ("empty", "default"): "A structure that prediction and reference both lack counts as right (Dice 1, distances 0);"
    " one that only one of them has counts as wrong (Dice 0, distances infinite).",
    ("empty", "nnunet"): "A structure that prediction and reference both lack has no Dice and is left out; one that"
    " only one of them has counts as wrong (Dice 0, distances infinite).",
    ("empty", "brats"): "A structure that prediction and reference both lack counts as right (Dice 1, distances 0);"
    " one that only one of them has gets Dice 0 and the diagonal of the scan as its distance.",
    ("empty", "lits"): "A structure that prediction and reference both lack counts as right (Dice 1, distances 0); one"
    " that only one of them has gets Dice 0 and 9001 for distances and volume difference, as the LiTS scorer has it.",
    ("empty", "brats-2023"): "A structure that prediction and reference both lack counts as right (Dice 1, distances"
    " 0); one that only one of them has gets Dice 0 and 374 mm.",
    ("matching", "one-to-one"): "A lesion is detected if one predicted lesion overlaps it enough.",
    ("matching", "lits"): "Lesions that one lesion of the other side bridges are merged before they are matched.",
    ("border", "background"): "What lies outside the scan counts as background: a structure cut off by the border has"
    " a surface there.",
    ("border", "foreground"): "What lies outside the scan counts as part of the structure: where the border cuts it"
    " off it has no surface.",
    ("connectivity", "1"): "A voxel belongs to the surface if it shares a face with the outside.",
    ("connectivity", "2"): "A voxel belongs to the surface if it shares a face or an edge with the outside.",
    ("connectivity", "3"): "A voxel belongs to the surface if it shares a face, an edge or a corner with the outside.",
    ("hd95", "directed-max"): "HD95 is the larger of the 95th percentiles of the two directions.",
    ("hd95", "pooled"): "HD95 is the 95th percentile of the distances of both directions together.",
}


class Cell(NamedTuple):
    """Statistics of one metric of one structure."""

    mean: str
    sd: str
    interval: str
    """95 % bootstrap interval of the mean; "" where there is none."""
    median: str
    left_out: str
    """How many values were not finite, in words; "" if none."""


class StructureRow(NamedTuple):
    """One line of the summary."""

    name: str
    cells: list[Cell]
    found: Detection


class Value(NamedTuple):
    """One number of the case table: as shown, and for sorting (inf and nan at the end)."""

    shown: str
    exact: str


class CaseRow(NamedTuple):
    """One line of the case table: mean Dice, then what `case_metrics` names of each structure."""

    case: str
    mean: Value
    values: list[Value]
    remarks: list[str]


def summary_table(scores: Scores) -> list[StructureRow]:
    """Mean, SD and median of every metric in `SUMMARY`, per structure."""
    summaries = {(s.structure, s.metric): s for s in summarise(scores)}
    return [
        StructureRow(
            found.structure, [_cell(summaries.get((found.structure, metric)), metric) for metric in SUMMARY], found
        )
        for found in detections(scores)
    ]


def case_metrics(scores: Scores) -> list[str]:
    """What the case table shows of each structure: less of each if there are many."""
    return ["dice", "hd95_mm"] if len(scores.structures) > 3 else ["dice", "hd95_mm", "assd_mm", "rvd"]


def case_table(scores: Scores) -> list[CaseRow]:
    """Every scored case, in the order of the scores."""
    structures, metrics = scores.structures, case_metrics(scores)
    known = {row[:3]: row for row in scores}
    rows = []
    for case, mean in case_means(scores, "dice").items():
        keys = [(case, name, metric) for name in structures for metric in metrics]
        values = [_value(known[key].value if key in known else math.nan, key[2]) for key in keys]
        noted = {key[1]: known[key].note for key in keys if key in known and known[key].note}
        remarks = [f"{name} {REMARKS.get(note, note)}" for name, note in noted.items()]
        rows.append(CaseRow(case, _value(mean, "dice"), values, remarks))
    return rows


def overall_dice(scores: Scores) -> float:
    """Mean over the structures of their mean Dice."""
    means = [m for m in (scores.mean("dice", name) for name in scores.structures) if math.isfinite(m)]
    return sum(means) / len(means) if means else math.nan


def rules_in_words(rules: Mapping[str, str]) -> list[str]:
    """One sentence per convention the scores follow."""
    return [_WORDS.get((name, choice), f"{name}: {choice}.") for name, choice in rules.items()]


def shown(value: float, metric: str) -> str:
    """A number with the digits its metric deserves; – where there is none."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞"
    if metric.endswith("_ml"):
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
        return f"{value:,.{digits}f}"
    if metric.endswith("_mm"):
        return f"{value:.2f}"
    return f"{value:+.3f}".replace("-", "−") if metric == "rvd" else f"{value:.3f}"


def _cell(summary: Summary | None, metric: str) -> Cell:
    if summary is None:
        return Cell("–", "–", "", "–", "")
    kinds = ((summary.n_inf, "infinite"), (summary.n_nan, "undefined"))
    left_out = ", ".join(f"{count} {kind}" for count, kind in kinds if count)
    sd = "–" if math.isnan(summary.sd) else f"± {shown(summary.sd, metric).removeprefix('+')}"
    interval = "" if math.isnan(summary.low) else f"{shown(summary.low, metric)} to {shown(summary.high, metric)}"
    return Cell(shown(summary.mean, metric), sd, interval, shown(summary.median, metric), left_out)


def _value(value: float, metric: str) -> Value:
    return Value(shown(value, metric), repr(value))
