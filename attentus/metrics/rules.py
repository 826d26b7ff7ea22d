"""The conventions a measurement depends on, made explicit: what is empty, what lies outside, which percentile."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from attentus.errors import BadInput, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attentus.metrics.surface import Border, Percentile

DISTANCES = ("assd_mm", "masd_mm", "rmsd_mm", "hd_mm", "msd_mm", "hd95_mm", "s2s_mm")

EmptyPolicy = Literal["default", "nnunet", "lits", "brats", "brats-2023"]
Matching = Literal["one-to-one", "lits"]

LITS_MISSED = 9001.0
"""Volume difference and distances of a missed structure in the LiTS scorer."""
BRATS_MISSED = 374.0
"""Distance of a missed or invented lesion in BraTS 2023, mm."""


@dataclass(frozen=True)
class Rules:
    """Conventions of a measurement. Every `Scores` carries them."""

    empty: EmptyPolicy = "default"
    """What a structure scores that one or both sides lack. "default": both empty is right (Dice 1, distances 0), one
    empty is wrong (Dice 0, distances infinite). "nnunet": both empty has no Dice. "brats": as default, but a missed
    structure is as far off as the scan's diagonal. "brats-2023": the same with 374 mm. "lits": as default, but a missed
    organ has distances and volume difference 9001 (in a preset, lesions are as in default)."""
    border: Border = "background"
    """What lies outside the array: "background" or "foreground"."""
    connectivity: int = 1
    """Neighbourhood of the surface: 1 faces, 2 edges (LiTS), 3 corners."""
    hd95: Percentile = "directed-max"
    """Which 95th percentile: "directed-max" or "pooled" (MedPy)."""
    matching: Matching = "one-to-one"
    """When a lesion counts as detected: "one-to-one" pairs lesions, "lits" merges what one lesion bridges first."""
    overlap: float = 0.5
    """IoU that a detected lesion has to exceed, 0.5 or more (below, pairs would not be unique)."""
    merge: int = 3
    """Lesion-wise scores (BraTS 2023): reference lesions are one if they touch after this many dilations."""
    smallest_mm3: float = 50.0
    """Lesion-wise scores: reference lesions of at most this volume are left out."""

    def __post_init__(self) -> None:
        allowed: dict[str, tuple[str | int, ...]] = {
            "empty": ("default", "nnunet", "lits", "brats", "brats-2023"),
            "border": ("background", "foreground"),
            "connectivity": (1, 2, 3),
            "hd95": ("directed-max", "pooled"),
            "matching": ("one-to-one", "lits"),
        }
        for name, choices in allowed.items():
            if (value := getattr(self, name)) not in choices:
                raise BadInput(f"The rule '{name}' cannot be '{value}'.{did_you_mean(str(value), map(str, choices))}")
        if not 0.5 <= self.overlap < 1:
            raise BadInput(f"The rule 'overlap' is an IoU from 0.5 to below 1, got {self.overlap}.")
        if self.merge < 0 or self.smallest_mm3 < 0:
            raise BadInput("The rules 'merge' and 'smallest_mm3' cannot be negative.")

    def describe(self) -> dict[str, str]:
        """Rule to choice, as text."""
        return {name: str(value) for name, value in asdict(self).items()}

    def when_empty(self, metric: str, situation: str, shape: Sequence[int], spacing: Sequence[float]) -> float | None:
        """The value a metric takes by decree when a mask is empty; None where the formula already gives one.

        Args:
            metric: e.g. "dice", "hd95_mm".
            situation: "both_empty", "empty_prediction" or "empty_reference".
            shape: of the whole scan.
            spacing: mm.
        """
        kind = metric.partition("@")[0]
        if situation == "both_empty":
            return _NOTHING.get(kind) if kind not in _AGREEMENT or self.empty != "nnunet" else math.nan
        if kind in DISTANCES:
            return self._missed(shape, spacing)
        if kind == "nsd" or (situation == "empty_prediction" and kind in ("precision", "lesion_precision")):
            return 0.0
        return LITS_MISSED if kind in ("rvd", "ravd") and self.empty == "lits" else None

    def _missed(self, shape: Sequence[int], spacing: Sequence[float]) -> float:
        """Distance of a structure that only one side has, mm."""
        if self.empty == "brats":
            return float(np.linalg.norm(np.multiply(shape, spacing)))
        return {"lits": LITS_MISSED, "brats-2023": BRATS_MISSED}.get(self.empty, math.inf)


_AGREEMENT = ("dice", "iou", "voe", "slice_dice", "slice_iou", "nsd")
"""What nnU-Net's rule leaves undefined where both masks are empty."""
_NOTHING = {
    **dict.fromkeys((*_AGREEMENT, "precision", "recall", "sensitivity"), 1.0),
    **dict.fromkeys(("lesion_precision", "lesion_recall", "lesion_f1"), 1.0),
    **dict.fromkeys((*DISTANCES, "voe", "rvd", "ravd"), 0.0),
}
"""What both masks empty score: nothing was there and nothing was found."""

DEFAULT = Rules()
"""The conventions used unless others are named."""
