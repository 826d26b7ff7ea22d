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

DISTANCES = ("assd_mm", "masd_mm", "rmsd_mm", "hd_mm", "hd95_mm")

EmptyPolicy = Literal["default", "nnunet", "brats"]


@dataclass(frozen=True)
class Rules:
    """Conventions of a measurement. Every `Scores` carries them."""

    empty: EmptyPolicy = "default"
    """What a structure scores that one or both sides lack. "default": both empty is right (Dice 1, distances 0), one
    empty is wrong (Dice 0, distances infinite). "nnunet": both empty has no Dice. "brats": as default, but a missed
    structure is as far off as the scan's diagonal."""
    border: Border = "background"
    """What lies outside the array: "background" or "foreground"."""
    connectivity: int = 1
    """Neighbourhood of the surface: 1 faces, 2 edges (LiTS), 3 corners."""
    hd95: Percentile = "directed-max"
    """Which 95th percentile: "directed-max" or "pooled" (MedPy)."""

    def __post_init__(self) -> None:
        allowed: dict[str, tuple[str | int, ...]] = {
            "empty": ("default", "nnunet", "brats"),
            "border": ("background", "foreground"),
            "connectivity": (1, 2, 3),
            "hd95": ("directed-max", "pooled"),
        }
        for name, choices in allowed.items():
            if (value := getattr(self, name)) not in choices:
                raise BadInput(f"The rule '{name}' cannot be '{value}'.{did_you_mean(str(value), map(str, choices))}")

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
        if metric in DISTANCES:
            missed = float(np.linalg.norm(np.multiply(shape, spacing))) if self.empty == "brats" else math.inf
            return 0.0 if situation == "both_empty" else missed
        if situation == "both_empty":
            right = math.nan if self.empty == "nnunet" else 1.0
            agreed = {"dice": right, "iou": right, "voe": 1 - right}
            return {**agreed, "precision": 1.0, "recall": 1.0, "rvd": 0.0, "ravd": 0.0}.get(metric)
        return 0.0 if metric == "precision" and situation == "empty_prediction" else None


DEFAULT = Rules()
"""The conventions used unless others are named."""
