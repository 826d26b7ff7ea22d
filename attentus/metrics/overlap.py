"""Overlap and volume: voxels are counted once, every score is a ratio of the counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus.errors import BadInput

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of two masks. Ratios with an empty denominator are nan; `Rules` says what becomes of them."""

    both: int
    """In prediction and reference (true positives)."""
    only_prediction: int
    """False positives."""
    only_reference: int
    """False negatives."""
    neither: int
    """True negatives; depends on the field of view."""

    @classmethod
    def of(cls, prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> Overlap:
        """Count two boolean masks of one shape."""
        check_masks(prediction, reference)
        both = int(np.count_nonzero(prediction & reference))
        predicted, referred = int(np.count_nonzero(prediction)), int(np.count_nonzero(reference))
        return cls(both, predicted - both, referred - both, prediction.size - predicted - referred + both)

    @property
    def prediction(self) -> int:
        """Voxels of the prediction."""
        return self.both + self.only_prediction

    @property
    def reference(self) -> int:
        """Voxels of the reference."""
        return self.both + self.only_reference

    @property
    def situation(self) -> str:
        """Which side is empty ("both_empty", "empty_prediction", "empty_reference"), "usual" if neither is."""
        if not self.prediction:
            return "empty_prediction" if self.reference else "both_empty"
        return "usual" if self.reference else "empty_reference"

    @property
    def dice(self) -> float:
        """2·TP / (2·TP + FP + FN), 0..1."""
        return ratio(2 * self.both, self.prediction + self.reference)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN), 0..1: the Jaccard index."""
        return ratio(self.both, self.both + self.only_prediction + self.only_reference)

    @property
    def precision(self) -> float:
        """TP / (TP + FP), 0..1."""
        return ratio(self.both, self.prediction)

    @property
    def recall(self) -> float:
        """TP / (TP + FN), 0..1: the sensitivity."""
        return ratio(self.both, self.reference)

    @property
    def specificity(self) -> float:
        """TN / (TN + FP), 0..1, over the whole field of view."""
        return ratio(self.neither, self.neither + self.only_prediction)

    @property
    def rvd(self) -> float:
        """(prediction - reference) / reference in voxels, signed: positive is too much (DPC-Net Eq. 14)."""
        return ratio(self.prediction - self.reference, self.reference)


def per_slice(prediction: NDArray[np.bool_], reference: NDArray[np.bool_], *, iou: bool) -> float:
    """Mean Dice (or IoU) of the axial slices in which either mask has a voxel; nan if no slice has one.

    Some papers on 2D nets average so; the number is not the Dice of the volume and has a name of its own.
    """
    masks = [mask[None] if mask.ndim == 2 else mask for mask in (prediction, reference)]
    found, truth = (np.count_nonzero(mask, axis=(1, 2)) for mask in masks)
    both = np.count_nonzero(masks[0] & masks[1], axis=(1, 2))
    used = found + truth > 0
    if not used.any():
        return math.nan
    dice = 2 * both[used] / (found + truth)[used]
    return float((dice / (2 - dice) if iou else dice).mean())


def check_masks(prediction: NDArray[Any], reference: NDArray[Any]) -> None:
    """Refuse what is no pair of masks.

    Raises:
        BadInput: not boolean, not 2D or 3D, or of different shapes.
    """
    for name, mask in (("prediction", prediction), ("reference", reference)):
        if mask.dtype != np.bool_:
            raise BadInput(f"The {name} must be a boolean mask, got {mask.dtype}; write for example `labels == 1`.")
        if mask.ndim not in (2, 3):
            raise BadInput(f"The {name} must have two or three axes, got shape {mask.shape}.")
    if prediction.shape != reference.shape:
        raise BadInput(f"The prediction has shape {prediction.shape}, the reference {reference.shape}.")


def ratio(part: float, whole: float) -> float:
    """One number over another; nan where there is nothing to divide by."""
    return part / whole if whole else math.nan
