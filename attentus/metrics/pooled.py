"""Scores over all cases together: what is no mean over cases but a ratio of sums, or an error over the cohort."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from attentus.metrics.case import BURDEN
from attentus.metrics.pair import DETECTED
from attentus.metrics.presets import COUNTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from attentus.types import Scores

    Columns = Mapping[str, np.ndarray]


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

    Global Dice and IoU from voxel counts (large structures dominate); precision, recall and F1 of lesions from counts
    of lesions, 0 where nothing is there to count, as the LiTS scorer has it; means over all detected lesions; root
    mean square and largest absolute error of the tumour burden.
    """
    found = []
    for structure in scores.structures:
        columns: dict[str, np.ndarray] = {}
        for row in scores.select(structure=structure):
            columns[row.metric] = np.append(columns.get(row.metric, []), row.value)
        for needed, names, formula in _POOLED:
            if all(metric in columns for metric in needed):
                cases = len(columns[needed[0]])
                values = formula(columns)
                found += [Pooled(structure, name, value, "", cases) for name, value in zip(names, values, strict=True)]
        if "lesion_detected" in columns:
            found += _over_lesions(structure, columns)
    return found


def _overlap(columns: Columns) -> tuple[float, float]:
    both, extra, missed = (columns[name].sum() for name in COUNTS)
    return _ratio(2 * both, 2 * both + extra + missed), _ratio(both, both + extra + missed)


def _lesions(columns: Columns) -> tuple[float, float, float]:
    both, extra, missed = (columns[f"lesion_{name}"].sum() for name in COUNTS)
    return (
        _ratio(both, both + extra, 0.0),
        _ratio(both, both + missed, 0.0),
        _ratio(2 * both, 2 * both + extra + missed, 0.0),
    )


def _burden(columns: Columns) -> tuple[float, float]:
    error = columns[BURDEN[1]] - columns[BURDEN[0]]
    error = error[np.isfinite(error)]
    return (float(np.sqrt(np.square(error).mean())), float(np.abs(error).max())) if error.size else (math.nan, math.nan)


def _over_lesions(structure: str, columns: Columns) -> list[Pooled]:
    """Means over detected lesions: the means of the cases, weighted by their lesions."""
    weights = columns["lesion_detected"]
    used = weights > 0
    units = {True: "mm", False: ""}
    return [
        Pooled(
            structure,
            f"{metric.removesuffix('_mm')}_pooled{'_mm' if metric.endswith('_mm') else ''}",
            float((columns[metric][used] * weights[used]).sum() / weights.sum()) if used.any() else math.nan,
            units[metric.endswith("_mm")],
            len(weights),
        )
        for metric in DETECTED
        if metric in columns
    ]


def _ratio(part: float, whole: float, nothing: float = math.nan) -> float:
    return float(part / whole) if whole else nothing


_POOLED: tuple[tuple[tuple[str, ...], tuple[str, ...], Callable[[Columns], tuple[float, ...]]], ...] = (
    (COUNTS, ("dice_global", "iou_global"), _overlap),
    (
        tuple(f"lesion_{name}" for name in COUNTS),
        ("lesion_precision_pooled", "lesion_recall_pooled", "lesion_f1_pooled"),
        _lesions,
    ),
    (BURDEN, ("burden_rmse", "burden_max_error"), _burden),
)
"""Metrics needed, names of what follows, and how."""
