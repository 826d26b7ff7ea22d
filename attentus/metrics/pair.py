"""One prediction beside one reference: everything that can be measured, each intermediate result computed once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from attentus.errors import BadInput, UnknownName
from attentus.metrics.overlap import Overlap
from attentus.metrics.rules import DEFAULT, DISTANCES, Rules
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

    def measure(self, metric: str) -> float:
        """One metric by name.

        Raises:
            UnknownName: no such metric.
        """
        if metric not in METRICS:
            raise UnknownName("metric", metric, METRICS)
        situation = self.overlap.situation
        if situation != "usual":
            field = self.field or self.prediction.shape
            if (decreed := self.rules.when_empty(metric, situation, field, self.spacing)) is not None:
                return decreed
            if metric in DISTANCES:
                return math.nan
        return METRICS[metric].formula(self)

    def millilitres(self, voxels: int) -> float:
        """Volume of a number of voxels, ml (areas in 2D count as slices of 1 mm)."""
        return voxels * math.prod(self.spacing) / 1000


class Metric(NamedTuple):
    """How a metric is computed and read."""

    unit: str
    """"" for fractions, "mm" or "ml"."""
    better: str
    """"higher", "lower", or "" when neither is."""
    formula: Callable[[Pair], float]


METRICS: dict[str, Metric] = {
    "dice": Metric("", "higher", lambda pair: pair.overlap.dice),
    "iou": Metric("", "higher", lambda pair: pair.overlap.iou),
    "voe": Metric("", "lower", lambda pair: 1 - pair.overlap.iou),
    "precision": Metric("", "higher", lambda pair: pair.overlap.precision),
    "recall": Metric("", "higher", lambda pair: pair.overlap.recall),
    "specificity": Metric("", "higher", lambda pair: pair.overlap.specificity),
    "rvd": Metric("", "", lambda pair: pair.overlap.rvd),
    "ravd": Metric("", "lower", lambda pair: abs(pair.overlap.rvd)),
    "volume_ml": Metric("ml", "", lambda pair: pair.millilitres(pair.overlap.prediction)),
    "reference_ml": Metric("ml", "", lambda pair: pair.millilitres(pair.overlap.reference)),
    "assd_mm": Metric("mm", "lower", lambda pair: pair.distances.assd),
    "masd_mm": Metric("mm", "lower", lambda pair: pair.distances.masd),
    "rmsd_mm": Metric("mm", "lower", lambda pair: pair.distances.rmsd),
    "hd95_mm": Metric("mm", "lower", lambda pair: pair.distances.hd95(pair.rules.hd95)),
    "hd_mm": Metric("mm", "lower", lambda pair: pair.distances.hd),
}
"""Every metric by the name it has in tables and files."""
