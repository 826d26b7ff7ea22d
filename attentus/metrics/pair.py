"""One prediction beside one reference: everything that can be measured, each intermediate result computed once."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from attentus.errors import BadInput, UnknownName
from attentus.metrics.lesions import Detected, Lesions, LesionWise, lesionwise
from attentus.metrics.mesh import surface_to_surface
from attentus.metrics.overlap import Overlap, per_slice
from attentus.metrics.rules import DEFAULT, Rules
from attentus.metrics.surface import SurfaceDistances

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Pair:
    """Two masks of one structure and the rules to measure them by.

    Args:
        prediction: boolean, 2D or 3D.
        reference: of the same shape.
        spacing: per array axis, mm.
        rules: conventions.
        field: shape of the whole scan when the masks are crops of it that hold every foreground voxel and one
            voxel around them; counts of background and the scan's diagonal follow it.
    """

    prediction: NDArray[np.bool_]
    reference: NDArray[np.bool_]
    spacing: Sequence[float]
    rules: Rules = DEFAULT
    field: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.spacing) != self.prediction.ndim:
            raise BadInput(
                f"Spacing has one number per axis: {self.prediction.ndim} for shape {self.prediction.shape},"
                f" got {tuple(self.spacing)}."
            )

    @cached_property
    def overlap(self) -> Overlap:
        """Voxel counts over the whole scan."""
        counts = Overlap.of(self.prediction, self.reference)
        outside = math.prod(self.field) - self.prediction.size if self.field else 0
        return Overlap(counts.both, counts.only_prediction, counts.only_reference, counts.neither + outside)

    @cached_property
    def distances(self) -> SurfaceDistances:
        """Surface distances; only where neither mask is empty."""
        rules = self.rules
        return SurfaceDistances.of(
            self.prediction, self.reference, self.spacing, border=rules.border, connectivity=rules.connectivity
        )

    @cached_property
    def lesions(self) -> Lesions:
        """Both masks taken apart into lesions, and which of them belong together."""
        return Lesions.of(self.prediction, self.reference, self.rules.matching)

    @cached_property
    def detection(self) -> Detected:
        """How many lesions were found, missed and invented, at the overlap of the rules."""
        return self.lesions.at(self.rules.overlap)

    @cached_property
    def detected(self) -> tuple[Pair, ...]:
        """One pair of masks for each detected lesion, cut to its box."""
        groups = self.detection.groups
        return tuple(Pair(*self.lesions.masks(group), self.spacing, self.rules) for group in groups)

    @cached_property
    def lesionwise(self) -> LesionWise:
        """Dice and HD95 of every lesion on its own, as BraTS 2023 has it."""
        return lesionwise(self.prediction, self.reference, self.spacing, self.rules)

    def measure(self, metric: str) -> float:
        """One metric by name.

        Raises:
            UnknownName: no such metric.
        """
        how = metric_named(metric)
        situation = self.overlap.situation
        if situation != "usual":
            field = self.field or self.prediction.shape
            if (decreed := self.rules.when_empty(metric, situation, field, self.spacing)) is not None:
                return decreed
        return how.formula(self)

    def millilitres(self, voxels: int) -> float:
        """Volume of a number of voxels, ml (areas in 2D count as slices of 1 mm)."""
        return voxels * math.prod(self.spacing) / 1000


class Metric(NamedTuple):
    """How a metric is computed and read."""

    unit: str
    """"" for fractions, "mm", "ml", "voxels" or "lesions"."""
    better: str
    """"higher", "lower", or "" when neither is."""
    formula: Callable[[Pair], float]


def _lesions(count: str) -> Callable[[Pair], float]:
    """A count of lesions."""
    return lambda pair: float(getattr(pair.detection, count))


def _detected(metric: str) -> Callable[[Pair], float]:
    """Mean of a metric over the detected lesions of a case; nan where there is none."""

    def formula(pair: Pair) -> float:
        values = [lesion.measure(metric) for lesion in pair.detected]
        return sum(values) / len(values) if values else math.nan

    return formula


METRICS: dict[str, Metric] = {
    "dice": Metric("", "higher", lambda pair: pair.overlap.dice),
    "iou": Metric("", "higher", lambda pair: pair.overlap.iou),
    "voe": Metric("", "lower", lambda pair: 1 - pair.overlap.iou),
    "precision": Metric("", "higher", lambda pair: pair.overlap.precision),
    "recall": Metric("", "higher", lambda pair: pair.overlap.recall),
    "sensitivity": Metric("", "higher", lambda pair: pair.overlap.recall),
    "specificity": Metric("", "higher", lambda pair: pair.overlap.specificity),
    "rvd": Metric("", "", lambda pair: pair.overlap.rvd),
    "ravd": Metric("", "lower", lambda pair: abs(pair.overlap.rvd)),
    "volume_ml": Metric("ml", "", lambda pair: pair.millilitres(pair.overlap.prediction)),
    "reference_ml": Metric("ml", "", lambda pair: pair.millilitres(pair.overlap.reference)),
    "true_positive": Metric("voxels", "", lambda pair: float(pair.overlap.both)),
    "false_positive": Metric("voxels", "lower", lambda pair: float(pair.overlap.only_prediction)),
    "false_negative": Metric("voxels", "lower", lambda pair: float(pair.overlap.only_reference)),
    "slice_dice": Metric("", "higher", lambda pair: per_slice(pair.prediction, pair.reference, iou=False)),
    "slice_iou": Metric("", "higher", lambda pair: per_slice(pair.prediction, pair.reference, iou=True)),
    "assd_mm": Metric("mm", "lower", lambda pair: pair.distances.assd),
    "masd_mm": Metric("mm", "lower", lambda pair: pair.distances.masd),
    "rmsd_mm": Metric("mm", "lower", lambda pair: pair.distances.rmsd),
    "hd95_mm": Metric("mm", "lower", lambda pair: pair.distances.hd95(pair.rules.hd95)),
    "hd_mm": Metric("mm", "lower", lambda pair: pair.distances.hd),
    "msd_mm": Metric("mm", "lower", lambda pair: pair.distances.hd),
    "s2s_mm": Metric("mm", "lower", lambda pair: surface_to_surface(pair.prediction, pair.reference, pair.spacing)),
    "lesion_precision": Metric("", "higher", lambda pair: pair.detection.precision),
    "lesion_recall": Metric("", "higher", lambda pair: pair.detection.recall),
    "lesion_f1": Metric("", "higher", lambda pair: pair.detection.f1),
    "lesion_true_positive": Metric("lesions", "", _lesions("true_positive")),
    "lesion_false_positive": Metric("lesions", "lower", _lesions("false_positive")),
    "lesion_false_negative": Metric("lesions", "lower", _lesions("false_negative")),
    "lesion_touched": Metric("lesions", "", lambda pair: float(pair.lesions.at(0.0).true_positive)),
    "lesion_detected": Metric("lesions", "", lambda pair: float(len(pair.detected))),
    "detected_lesion_dice": Metric("", "higher", _detected("dice")),
    "detected_lesion_iou": Metric("", "higher", _detected("iou")),
    "detected_lesion_voe": Metric("", "lower", _detected("voe")),
    "detected_lesion_rvd": Metric("", "", _detected("rvd")),
    "detected_lesion_assd_mm": Metric("mm", "lower", _detected("assd_mm")),
    "detected_lesion_rmsd_mm": Metric("mm", "lower", _detected("rmsd_mm")),
    "detected_lesion_msd_mm": Metric("mm", "lower", _detected("msd_mm")),
    "lesionwise_dice": Metric("", "higher", lambda pair: pair.lesionwise.dice),
    "lesionwise_hd95_mm": Metric("mm", "lower", lambda pair: pair.lesionwise.hd95),
}
"""Every metric by the name it has in tables and files; besides, "nsd@Tmm" for any tolerance T, e.g. "nsd@2mm"."""

STANDARD = (
    *("dice", "iou", "voe", "precision", "recall", "specificity", "rvd", "ravd", "volume_ml", "reference_ml"),
    *("assd_mm", "masd_mm", "rmsd_mm", "hd95_mm", "hd_mm", "nsd@1mm"),
    *("true_positive", "false_positive", "false_negative"),
)
"""What is measured unless something else is asked for."""
DETECTION = tuple(name for name in METRICS if name.startswith("lesion_"))
"""Counts of lesions and what follows from them."""
DETECTED = tuple(name for name in METRICS if name.startswith("detected_"))
"""Quality of the lesions that were detected."""
LESIONWISE = tuple(name for name in METRICS if name.startswith("lesionwise_"))
"""BraTS 2023."""
_TOLERANCE = re.compile(r"nsd@(\d+(?:\.\d+)?)mm")


def metric_named(name: str) -> Metric:
    """How a metric is computed.

    Raises:
        UnknownName: no such metric.
    """
    if name in METRICS:
        return METRICS[name]
    if tolerance := _TOLERANCE.fullmatch(name):
        limit = float(tolerance[1])
        return Metric("", "higher", lambda pair: pair.distances.within(limit))
    raise UnknownName("metric", name, [*METRICS, "nsd@1mm"])
