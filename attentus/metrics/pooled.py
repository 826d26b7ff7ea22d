"""Scores over all cases together: what is no mean over cases but a ratio of sums, or an error over the cohort."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from attentus.metrics.case import BURDEN
from attentus.metrics.overlap import ratio
from attentus.metrics.pair import DETECTED, METRICS
from attentus.metrics.presets import COUNTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from attentus.types import Scores

    Column = NDArray[np.float64]


class Pooled(NamedTuple):
    """One number for a structure over the whole cohort."""

    structure: str
    metric: str
    value: float
    unit: str
    cases: int
    """That went into it."""


def pooled(scores: Scores) -> list[Pooled]:
    """Every pooled score that the measured metrics allow.

    Global Dice, IoU, precision and recall from voxel counts (large structures dominate); precision, recall and F1 of
    lesions from counts of lesions, 0 where nothing is there to count, as the LiTS scorer has it; means over all
    detected lesions; root mean square and largest absolute error of the tumour burden.
    """
    return [number for name in scores.structures for number in _of(name, _columns(scores.select(structure=name)))]


def _of(structure: str, columns: Mapping[str, Column]) -> list[Pooled]:
    found = []
    for needed, formula in _FORMULAS:
        if all(metric in columns for metric in needed):
            table = np.array([columns[metric] for metric in needed])
            table = table[:, np.isfinite(table).all(axis=0)]
            values = formula(*table).items()
            found += [Pooled(structure, metric, value, _unit(metric), table.shape[1]) for metric, value in values]
    return found


def _columns(scores: Scores) -> dict[str, Column]:
    """Metric to its values, one per case."""
    columns: dict[str, list[float]] = {}
    for row in scores:
        columns.setdefault(row.metric, []).append(row.value)
    return {metric: np.array(values) for metric, values in columns.items()}


def _overlap(both: Column, extra: Column, missed: Column) -> dict[str, float]:
    tp, fp, fn = (float(counts.sum()) for counts in (both, extra, missed))
    parts = {"dice": (2 * tp, 2 * tp + fp + fn), "iou": (tp, tp + fp + fn), "precision": (tp, tp + fp)}
    return {f"{name}_global": ratio(*part) for name, part in {**parts, "recall": (tp, tp + fn)}.items()}


def _lesions(both: Column, extra: Column, missed: Column) -> dict[str, float]:
    tp, fp, fn = (float(counts.sum()) for counts in (both, extra, missed))
    parts = {"precision": (tp, tp + fp), "recall": (tp, tp + fn), "f1": (2 * tp, 2 * tp + fp + fn)}
    return {f"lesion_{name}_pooled": ratio(*part) if part[1] else 0.0 for name, part in parts.items()}


def _burden(prediction: Column, reference: Column) -> dict[str, float]:
    error = reference - prediction
    if not error.size:
        return {"burden_rmse": math.nan, "burden_max_error": math.nan}
    return {"burden_rmse": float(np.sqrt(np.square(error).mean())), "burden_max_error": float(np.abs(error).max())}


def _over_lesions(metric: str) -> Callable[[Column, Column], dict[str, float]]:
    """Mean over detected lesions: the means of the cases that have some, weighted by their number."""
    return lambda counts, means: {_of_all(metric): ratio(float((counts * means).sum()), float(counts.sum()))}


def _of_all(metric: str) -> str:
    """The name of a pooled metric; the unit stays at its end."""
    plain = metric.removesuffix("_mm")
    return f"{plain}_pooled{metric.removeprefix(plain)}"


def _unit(metric: str) -> str:
    return "mm" if metric.endswith("_mm") else ""


_FORMULAS: tuple[tuple[tuple[str, ...], Callable[..., dict[str, float]]], ...] = (
    (COUNTS, _overlap),
    (tuple(f"lesion_{name}" for name in COUNTS), _lesions),
    *((("lesion_detected", metric), _over_lesions(metric)) for metric in DETECTED),
    (BURDEN, _burden),
)
"""Metrics needed, and what follows from them; cases without a finite number in one of them are left out."""

POOLED = {
    **{f"{name}_global": METRICS[name].better for name in ("dice", "iou", "precision", "recall")},
    **{_of_all(metric): METRICS[metric].better for metric in ("lesion_precision", "lesion_recall", "lesion_f1")},
    **{_of_all(metric): METRICS[metric].better for metric in DETECTED},
    "burden_rmse": "lower",
    "burden_max_error": "lower",
}
"""Every pooled score by name, and whether "higher" or "lower" is better."""
