"""Measuring segmentations: single metrics on masks, `score` on volumes, files and cohorts.

The functions here take two boolean masks of one shape (2D or 3D, prediction first) and, for distances, the spacing in
array order. `Rules` collects the conventions; every function takes them as keywords.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attentus.metrics.pair import METRICS, STANDARD, Pair
from attentus.metrics.pooled import Pooled, pooled
from attentus.metrics.presets import PRESETS, Preset
from attentus.metrics.rules import DEFAULT, Rules
from attentus.metrics.scoring import score, score_many
from attentus.metrics.structures import Sides
from attentus.metrics.summary import Summary, from_json, summarise, to_csv, to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

__all__ = [
    "DEFAULT",
    "METRICS",
    "PRESETS",
    "STANDARD",
    "Pair",
    "Pooled",
    "Preset",
    "Rules",
    "Sides",
    "Summary",
    "assd",
    "dice",
    "from_json",
    "hd",
    "hd95",
    "iou",
    "masd",
    "nsd",
    "pooled",
    "precision",
    "ravd",
    "recall",
    "rmsd",
    "rvd",
    "s2s",
    "score",
    "score_many",
    "specificity",
    "summarise",
    "to_csv",
    "to_json",
    "voe",
]


def dice(prediction: Mask, reference: Mask, **rules: Any) -> float:
    """2·TP / (2·TP + FP + FN), 0..1."""
    return _measure("dice", prediction, reference, None, rules)


def iou(prediction: Mask, reference: Mask, **rules: Any) -> float:
    """TP / (TP + FP + FN), 0..1; the Jaccard index."""
    return _measure("iou", prediction, reference, None, rules)


def voe(prediction: Mask, reference: Mask, **rules: Any) -> float:
    """Volumetric overlap error, 1 - IoU, 0..1."""
    return _measure("voe", prediction, reference, None, rules)


def precision(prediction: Mask, reference: Mask, **rules: Any) -> float:
    """TP / (TP + FP), 0..1."""
    return _measure("precision", prediction, reference, None, rules)


def recall(prediction: Mask, reference: Mask, **rules: Any) -> float:
    """TP / (TP + FN), 0..1; the sensitivity."""
    return _measure("recall", prediction, reference, None, rules)


def specificity(prediction: Mask, reference: Mask, **rules: Any) -> float:
    """TN / (TN + FP), 0..1; depends on the field of view, so give whole volumes."""
    return _measure("specificity", prediction, reference, None, rules)


def rvd(prediction: Mask, reference: Mask, **rules: Any) -> float:
    """Relative volume difference (|P| - |R|) / |R|, signed."""
    return _measure("rvd", prediction, reference, None, rules)


def ravd(prediction: Mask, reference: Mask, **rules: Any) -> float:
    """Absolute value of `rvd`."""
    return _measure("ravd", prediction, reference, None, rules)


def assd(prediction: Mask, reference: Mask, spacing: Sequence[float], **rules: Any) -> float:
    """Average symmetric surface distance, mm: the mean over both surfaces pooled."""
    return _measure("assd_mm", prediction, reference, spacing, rules)


def masd(prediction: Mask, reference: Mask, spacing: Sequence[float], **rules: Any) -> float:
    """Mean of the two directed mean surface distances, mm."""
    return _measure("masd_mm", prediction, reference, spacing, rules)


def rmsd(prediction: Mask, reference: Mask, spacing: Sequence[float], **rules: Any) -> float:
    """Root mean square symmetric surface distance, mm."""
    return _measure("rmsd_mm", prediction, reference, spacing, rules)


def hd(prediction: Mask, reference: Mask, spacing: Sequence[float], **rules: Any) -> float:
    """Hausdorff (maximum symmetric surface) distance, mm."""
    return _measure("hd_mm", prediction, reference, spacing, rules)


def hd95(
    prediction: Mask, reference: Mask, spacing: Sequence[float], mode: str = "directed-max", **rules: Any
) -> float:
    """95th percentile of the surface distances, mm; `mode` is "directed-max" (MONAI) or "pooled" (MedPy)."""
    return _measure("hd95_mm", prediction, reference, spacing, {**rules, "hd95": mode})


def nsd(prediction: Mask, reference: Mask, spacing: Sequence[float], tolerance: float = 1.0, **rules: Any) -> float:
    """Normalised surface Dice, 0..1: share of both surfaces within `tolerance` mm of the other."""
    return _measure(f"nsd@{float(tolerance)}mm", prediction, reference, spacing, rules)


def s2s(prediction: Mask, reference: Mask, spacing: Sequence[float], **rules: Any) -> float:
    """Distance between the surfaces as meshes, mm, mean of both directions (Attention U-Net); 3D only."""
    return _measure("s2s_mm", prediction, reference, spacing, rules)


def _measure(
    metric: str, prediction: Mask, reference: Mask, spacing: Sequence[float] | None, rules: dict[str, Any]
) -> float:
    return Pair(prediction, reference, spacing or (1.0,) * prediction.ndim, Rules(**rules)).measure(metric)
