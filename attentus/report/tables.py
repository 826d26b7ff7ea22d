"""Scores as tables for people: one summary per structure, one line per case, the rules in words."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

from attentus.metrics.pooled import pooled
from attentus.metrics.summary import Detection, Summary, case_means, detections, headline, summarise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attentus.types import Scores

HEADINGS = {
    "dice": "Dice",
    "iou": "IoU",
    "voe": "VOE",
    "precision": "Precision",
    "recall": "Recall",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "rvd": "RVD",
    "ravd": "RAVD",
    "volume_ml": "Volume ml",
    "reference_ml": "Reference ml",
    "true_positive": "True positive voxels",
    "false_positive": "False positive voxels",
    "false_negative": "False negative voxels",
    "slice_dice": "Dice per slice",
    "slice_iou": "IoU per slice",
    "assd_mm": "ASSD mm",
    "masd_mm": "MASD mm",
    "rmsd_mm": "RMSD mm",
    "hd95_mm": "HD95 mm",
    "hd_mm": "HD mm",
    "msd_mm": "MSD mm",
    "s2s_mm": "S2S mm",
    "lesion_precision": "Lesion precision",
    "lesion_recall": "Lesion recall",
    "lesion_f1": "Lesion F1",
    "lesion_true_positive": "Lesions true positive",
    "lesion_false_positive": "Lesions false positive",
    "lesion_false_negative": "Lesions false negative",
    "lesion_touched": "Lesions touched",
    "lesion_detected": "Lesions detected",
    "detected_lesion_dice": "Detected lesions: Dice",
    "detected_lesion_iou": "Detected lesions: IoU",
    "detected_lesion_voe": "Detected lesions: VOE",
    "detected_lesion_rvd": "Detected lesions: RVD",
    "detected_lesion_assd_mm": "Detected lesions: ASSD mm",
    "detected_lesion_rmsd_mm": "Detected lesions: RMSD mm",
    "detected_lesion_msd_mm": "Detected lesions: MSD mm",
    "lesionwise_dice": "Dice per lesion",
    "lesionwise_hd95_mm": "HD95 per lesion mm",
    "burden": "Tumour burden",
    "reference_burden": "Tumour burden of the reference",
    "burden_rmse": "Tumour burden, RMSE",
    "burden_max_error": "Tumour burden, largest error",
}
"""Metrics as tables call them, with their units; see `heading`."""

REMARKS = {"empty_prediction": "missed", "empty_reference": "false alarm", "both_empty": "absent"}
"""Notes of scores in words."""

_BOTH_RIGHT = "A structure that prediction and reference both lack counts as right (Dice 1, distances 0);"
_WORDS = {
    ("empty", "default"): f"{_BOTH_RIGHT} one that only one of them has counts as wrong (Dice 0, distances infinite).",
    ("empty", "nnunet"): "A structure that prediction and reference both lack has no Dice and is left out; one that"
    " only one of them has counts as wrong (Dice 0, distances infinite).",
    ("empty", "brats"): f"{_BOTH_RIGHT} one that only one of them has gets Dice 0 and the diagonal of the scan as its"
    " distance.",
    ("empty", "lits"): f"{_BOTH_RIGHT} one that only one of them has gets Dice 0 and, as in the LiTS scorer, 9001 for"
    " distances and volume difference; lesions have infinite distances instead.",
    ("empty", "brats-2023"): f"{_BOTH_RIGHT} one that only one of them has gets Dice 0 and 374 mm.",
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
_FORMS = {
    "overlap": "The overlap (IoU) of a detected lesion exceeds {}.",
    "merge": "Lesion by lesion, reference lesions that touch after {} dilations are one.",
    "smallest_mm3": "Lesion by lesion, reference lesions of {} mm³ or less are left out.",
    "not scored": "Not scored, because only one side names it: {}.",
    "resampled": "Brought onto the grid of the reference: {}.",
}


_BRIEF = ("dice", "hd95_mm")


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
    """Mean, SD and median of what `headline` names, per structure."""
    metrics, summaries = headline(scores), {(s.structure, s.metric): s for s in summarise(scores)}
    return [
        StructureRow(
            found.structure, [_cell(summaries.get((found.structure, metric)), metric) for metric in metrics], found
        )
        for found in detections(scores)
    ]


def pooled_table(scores: Scores) -> tuple[list[str], dict[str, list[str]]]:
    """Headings of what is pooled over the cases, and the numbers of each structure; nothing for a single case."""
    numbers = {row[:2]: row.value for row in pooled(scores)} if len(scores.cases) > 1 else {}
    metrics = list(dict.fromkeys(metric for _, metric in numbers))
    structures = dict.fromkeys(structure for structure, _ in numbers)
    rows = {name: [shown(numbers.get((name, metric), math.nan), metric) for metric in metrics] for name in structures}
    return [heading(metric) for metric in metrics], rows


def case_metrics(scores: Scores) -> list[str]:
    """What the case table shows of each structure: less of each if there are many."""
    many = len(scores.structures) > 3
    wanted = _BRIEF if many else (*_BRIEF, "assd_mm", "rvd", "lesion_precision", "lesion_recall")
    measured = scores.metrics
    return [metric for metric in wanted if metric in measured] or headline(scores)[:2]


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
    return [
        _WORDS.get((name, choice)) or _FORMS.get(name, f"{name}: {{}}.").format(choice)
        for name, choice in rules.items()
    ]


def heading(metric: str) -> str:
    """What a metric is called in tables, with its unit."""
    if metric in HEADINGS:
        return HEADINGS[metric]
    if tolerance := re.fullmatch(r"nsd@(.+)mm", metric):
        return f"NSD at {tolerance[1]} mm"
    plain = re.sub(r"_(global|pooled)", "", metric)
    if plain in HEADINGS:
        return f"{HEADINGS[plain]}, {'global' if '_global' in metric else 'pooled'}"
    return re.sub(r"_(mm|ml)$", r" \1", metric).replace("_", " ")


def shown(value: float, metric: str) -> str:
    """A number with the digits its metric deserves; – where there is none."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞"
    if metric.endswith("_ml"):
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
        return f"{value:,.{digits}f}"
    if metric.endswith("_mm"):
        return f"{value:.2f}"
    if metric.endswith(("rvd", "rvd_pooled")):
        return f"{value:+.4f}".replace("-", "−")
    return f"{value:.4f}" if metric == "ravd" else f"{value:.3f}"


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
