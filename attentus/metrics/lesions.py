"""Lesions one by one: connected components, which of them belong together, and how well each was found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from attentus.metrics.components import label
from attentus.metrics.overlap import Overlap, check_masks, ratio
from attentus.metrics.rules import BRATS_MISSED, Rules
from attentus.metrics.surface import SurfaceDistances, around, eroded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from attentus.metrics.rules import Matching

    Mask = NDArray[np.bool_]
    Numbers = NDArray[np.integer]


class Group(NamedTuple):
    """Lesions that count as one detection: component numbers of both sides."""

    prediction: tuple[int, ...]
    reference: tuple[int, ...]


class Detected(NamedTuple):
    """What was detected at some IoU."""

    true_positive: int
    """Detections. The `lits` way subtracts a merged group that fails, so this can be below 0 there."""
    false_positive: int
    false_negative: int
    groups: tuple[Group, ...]
    """The detections, at a required IoU of 0.5 or more."""

    @property
    def precision(self) -> float:
        """TP / (TP + FP); nan without a predicted lesion."""
        return ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """TP / (TP + FN); nan without a reference lesion."""
        return ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float:
        """2·TP / (2·TP + FP + FN); nan without any lesion."""
        return ratio(2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative)


@dataclass(frozen=True, eq=False)
class Lesions:
    """Two masks as numbered components (1, 2, ...; neighbours share a face) and their overlaps."""

    prediction: Numbers
    reference: Numbers
    matching: Matching = "one-to-one"

    @classmethod
    def of(cls, prediction: Mask, reference: Mask, matching: Matching = "one-to-one") -> Lesions:
        """Take two masks of one shape apart.

        Args:
            prediction: boolean, 2D or 3D.
            reference: of the same shape.
            matching: "one-to-one": a predicted and a reference lesion belong together if their IoU exceeds the
                threshold (0.5 or more makes such pairs unique). "lits": the LiTS scorer, see `at`.
        """
        check_masks(prediction, reference)
        return cls(label(prediction, "faces"), label(reference, "faces"), matching)

    @cached_property
    def table(self) -> NDArray[np.int64]:
        """Voxels that predicted component (row) and reference component (column) share; background is number 0."""
        return _shared(self.prediction, self.reference)

    def at(self, overlap: float) -> Detected:
        """Count detections.

        Args:
            overlap: IoU a detected lesion has to exceed; 0 asks only that they touch.
        """
        shared = self.table[1:, 1:]
        sizes = self.table[1:].sum(axis=1), self.table[:, 1:].sum(axis=0)
        found = _merged(shared, sizes, overlap) if self.matching == "lits" else _paired(shared, sizes, overlap)
        count, groups = found
        return Detected(count, len(sizes[0]) - count, len(sizes[1]) - count, groups)

    def masks(self, group: Group) -> tuple[Mask, Mask]:
        """The lesions of a group as two masks, cut to their box."""
        window = around(
            [self.boxes[0][i - 1] for i in group.prediction] + [self.boxes[1][j - 1] for j in group.reference],
            self.reference.shape,
        )
        return _among(self.prediction[window], group.prediction), _among(self.reference[window], group.reference)

    @cached_property
    def boxes(self) -> tuple[list[tuple[slice, ...]], list[tuple[slice, ...]]]:
        """Where every component lies, of the prediction and of the reference."""
        from scipy.ndimage import find_objects

        return find_objects(self.prediction), find_objects(self.reference)


def _shared(first: Numbers, second: Numbers) -> NDArray[np.int64]:
    """Voxels that hold number i of the first and j of the second array, as a table."""
    rows, columns = int(first.max(initial=0)) + 1, int(second.max(initial=0)) + 1
    used = (first > 0) | (second > 0)
    codes = first[used].astype(np.int64) * columns + second[used]
    return np.bincount(codes, minlength=rows * columns).reshape(rows, columns)


def _among(numbers: Numbers, chosen: tuple[int, ...]) -> Mask:
    mask: Mask = numbers == chosen[0] if len(chosen) == 1 else np.isin(numbers, chosen)
    return mask


Sizes = tuple["NDArray[np.int64]", "NDArray[np.int64]"]


def _paired(shared: NDArray[np.int64], sizes: Sizes, overlap: float) -> tuple[int, tuple[Group, ...]]:
    """As many pairs as there can be, each lesion in one at most; above an IoU of 0.5 there is no choice."""
    unions = sizes[0][:, None] + sizes[1] - shared
    fit = shared > overlap * unions
    if overlap < 0.5:
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import maximum_bipartite_matching

        return int((maximum_bipartite_matching(csr_array(fit)) >= 0).sum()), ()
    return int(fit.sum()), tuple(Group((int(i) + 1,), (int(j) + 1,)) for i, j in np.argwhere(fit))


def _merged(shared: NDArray[np.int64], sizes: Sizes, overlap: float) -> tuple[int, tuple[Group, ...]]:
    """The way of the LiTS scorer, with the union computed as it was meant (as shipped it is wrong).

    Reference lesions that one predicted lesion bridges are merged (each joins the prediction that covers most of it),
    then predictions whose largest share lies on one merged group. Every group whose IoU exceeds the threshold is one
    detection; one that does not is subtracted as often as it has reference lesions.
    """
    bridged: dict[int, list[int]] = {}
    for j in np.flatnonzero(shared.any(axis=0)):
        bridged.setdefault(int(shared[:, j].argmax()), []).append(int(j))
    references = list(bridged.values())
    if not references:
        return 0, ()
    onto = np.stack([shared[:, group].sum(axis=1) for group in references], axis=1)
    predictions: dict[int, list[int]] = {}
    for i in np.flatnonzero(onto.any(axis=1)):
        predictions.setdefault(int(onto[i].argmax()), []).append(int(i))
    count, detected = len(predictions), []
    for g, found in predictions.items():
        both = int(onto[found, g].sum())
        union = int(sizes[0][found].sum() + sizes[1][references[g]].sum()) - both
        if both > overlap * union:
            detected.append(Group(tuple(i + 1 for i in found), tuple(j + 1 for j in references[g])))
        else:
            count -= len(references[g])
    return count, tuple(detected)


class LesionWise(NamedTuple):
    """BraTS 2023: means over the reference lesions and the invented ones, which count Dice 0 and 374 mm."""

    dice: float
    hd95: float
    """mm"""


def lesionwise(prediction: Mask, reference: Mask, spacing: Sequence[float], rules: Rules) -> LesionWise:
    """Score every lesion on its own.

    Reference components (sharing a corner) that touch after `rules.merge` dilations are one lesion; those of at most
    `rules.smallest_mm3` are left out. A lesion's prediction is every predicted component that touches its dilation; a
    predicted component that touches none is invented. Source: the organisers' description and published scorer
    (BraTS 2023); HD95 here is the larger directed percentile where theirs weighs the surface by area.

    Args:
        prediction: boolean, 3D (2D works alike).
        reference: of the same shape.
        spacing: per axis, mm.
        rules: merge, smallest_mm3, border, connectivity, hd95.

    Returns:
        Dice 1 and HD95 0 where nothing is left to score.
    """
    found, zones = label(prediction), label(_grown(reference, rules.merge))
    lesions = Lesions(found, np.where(reference, zones, 0))
    touching = _shared(found, zones)[1:, 1:] > 0
    invented = int((~touching.any(axis=1)).sum())
    dice, distances = [0.0] * invented, [BRATS_MISSED] * invented
    volumes = lesions.table.sum(axis=0)[1:] * math.prod(spacing)
    for place in np.flatnonzero(volumes > rules.smallest_mm3):
        group = Group(tuple(int(i) + 1 for i in np.flatnonzero(touching[:, place])), (int(place) + 1,))
        guess, truth = lesions.masks(group)
        dice.append(Overlap.of(guess, truth).dice)
        distances.append(_hd95(guess, truth, spacing, rules) if guess.any() else BRATS_MISSED)
    return LesionWise(float(np.mean(dice)), float(np.mean(distances))) if dice else LesionWise(1.0, 0.0)


def _grown(mask: Mask, times: int) -> Mask:
    """Dilation by the neighbours that share an edge."""
    outside = ~mask
    for _ in range(times):
        outside = eroded(outside, 2, outside=True)
    return ~outside


def _hd95(guess: Mask, truth: Mask, spacing: Sequence[float], rules: Rules) -> float:
    found = SurfaceDistances.of(guess, truth, spacing, border=rules.border, connectivity=rules.connectivity)
    return found.hd95(rules.hd95)
