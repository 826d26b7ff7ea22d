"""Soft Dice and Tversky losses: ratios of what prediction and target have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

from attentus.errors import BadInput
from attentus.losses.targets import (
    ACTIVATIONS,
    Activation,
    activate,
    checked,
    class_weights,
    kept,
    mean,
    positive,
    precise,
    truth,
    weights_of,
)
from attentus.nets.parts import one_of

if TYPE_CHECKING:
    from collections.abc import Sequence

Denominator = Literal["plain", "squared"]
Reduce = Literal["class", "global"]
Style = Literal["plain", "release"]


class DiceLoss(nn.Module):
    """One minus the soft Sørensen-Dice score of probabilities p and target t (Oktay 2018, section 3, by default).

    Per sample and class `(2·Σ p·t + s) / (Σ p + Σ t + s)`, sums over voxels, then the mean: a number in 0..1, and 0
    for a class that neither prediction nor target holds.

    RA-UNet Eq. 3: `denominator="squared", batch=True, background=False`; the authors' code: `smooth=1` instead of
    "squared". DPC-Net Eq. 12: `denominator="squared", reduce="global"`. ANU-Net Eq. 5: `denominator="squared"`.

    logits   (N, K, *spatial)
    target   (N, *spatial), integers 0..K-1; or masks (N, K, *spatial) with "sigmoid"; 255 is ignored
    returns  scalar

    Args:
        smooth: s; None takes 1e-5, or 0.01 in the release style.
        style: "plain", or "release" for the code published with Attention U-Net, which doubles s in the numerator, so
            that a class absent from both scores 2.
        active: the classes that take part in softmax and mean; others get no gradient. None means all. Fine-tuning
            a net with more outputs than the data has labels uses this (Oktay's AFT experiment).
        batch: sum over the batch before dividing, so that small structures absent from one patch do not disturb.
        denominator: "plain" as above, or "squared": Σ p² + Σ t² (V-Net).
        reduce: "class" averages the scores of classes; "global" divides sums over all classes, once.
        background: whether class 0 is scored. Masks and single outputs have no class 0.
        weights: one weight per class in the mean, or in both sums if "global".
        activation: what turns logits into p: "softmax", or "sigmoid" for each output on its own.
    """

    weights: Tensor | None

    def __init__(
        self,
        *,
        smooth: float | None = None,
        style: Style = "plain",
        active: Sequence[int] | None = None,
        batch: bool = False,
        denominator: Denominator = "plain",
        reduce: Reduce = "class",
        background: bool = True,
        weights: Sequence[float] | None = None,
        activation: Activation = "softmax",
    ) -> None:
        super().__init__()
        one_of("style", style, ("plain", "release"))
        one_of("denominator", denominator, ("plain", "squared"))
        one_of("reduce", reduce, ("class", "global"))
        self.smooth = positive(smooth if smooth is not None else (0.01 if style == "release" else 1e-5))
        self.doubled = 2 if style == "release" else 1
        self.reduce = reduce
        self.count = Overlap(activation, batch, background, denominator == "squared", active)
        self.register_buffer("weights", class_weights(weights))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of (N, K, *spatial) logits against integers or masks."""
        both, said, true, share = self.count(logits, target, self.weights)
        above, below = 2 * both, said + true
        if self.reduce == "global":
            above, below = (above * share).sum(1), (below * share).sum(1)
            share = (share > 0).any(1)
        return mean(1 - (above + self.doubled * self.smooth) / (below + self.smooth), share)


class TverskyLoss(nn.Module):
    """One minus the Tversky index: Dice with a price for false alarms and another for misses (Salehi 2017).

    Per sample and class `(TP + s) / (TP + alpha·FP + beta·FN + s)` with TP = Σ p·t, FP = Σ p·(1-t), FN = Σ (1-p)·t,
    then the mean of (1 - index)^gamma. Both prices 0.5 give the Dice loss, both 1 the soft Jaccard (IoU) loss.

    logits   (N, K, *spatial)
    target   (N, *spatial), integers 0..K-1; or masks (N, K, *spatial) with "sigmoid"; 255 is ignored
    returns  scalar

    Args:
        alpha: price of false alarms.
        beta: price of misses; above alpha, it favours small structures.
        gamma: 1, or below 1 to dwell on classes that are almost right: 0.75 is Abraham & Khan 2019, Eq. 4, whose
            gamma of 4/3 is one over ours (focal Tversky).
        smooth: s.
        batch: sum over the batch before dividing.
        background: whether class 0 is scored. Masks and single outputs have no class 0.
        weights: one weight per class in the mean.
        activation: "softmax", or "sigmoid" for each output on its own.
    """

    weights: Tensor | None

    def __init__(
        self,
        *,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 1.0,
        smooth: float = 1e-5,
        batch: bool = False,
        background: bool = True,
        weights: Sequence[float] | None = None,
        activation: Activation = "softmax",
    ) -> None:
        super().__init__()
        if min(alpha, beta) < 0 or gamma <= 0:
            raise BadInput(f"alpha and beta are 0 or more, gamma above 0; got {alpha}, {beta} and {gamma}.")
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.smooth = positive(smooth)
        self.count = Overlap(activation, batch, background)
        self.register_buffer("weights", class_weights(weights))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of (N, K, *spatial) logits against integers or masks."""
        both, said, true, share = self.count(logits, target, self.weights)
        wrong = self.alpha * (said - both) + self.beta * (true - both)
        loss = 1 - (both + self.smooth) / (both + wrong + self.smooth)
        if self.gamma != 1:
            loss = loss.clamp(min=torch.finfo(loss.dtype).eps) ** self.gamma  # the slope of a root is infinite at 0
        return mean(loss, share)


class Counts(NamedTuple):
    """Soft numbers of voxels, (N, classes), or (1, classes) over the batch."""

    both: Tensor
    """Σ p·t."""
    said: Tensor
    """Σ p, or Σ p²."""
    true: Tensor
    """Σ t."""
    share: Tensor
    """Weight of the class in means; 0 if all its voxels are ignored."""


@dataclass(frozen=True)
class Overlap:
    """How to count; see `DiceLoss`."""

    activation: Activation
    batch: bool
    background: bool
    squared: bool = False
    active: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be counted."""
        one_of("activation", self.activation, ACTIVATIONS)
        if self.active is not None and not {*self.active} - (set() if self.background else {0}):
            raise BadInput("active leaves no class to score.")

    def __call__(self, logits: Tensor, target: Tensor, weights: Tensor | None) -> Counts:
        """Count the voxels that probabilities and target share.

        Raises:
            BadInput: the target or the number of weights does not go with the logits.
        """
        target = checked(logits, target, self.activation)
        logits, hit, counted = precise(logits), truth(logits, target), kept(logits, target)
        classes, weight = self._classes(logits.shape[1]), weights_of(weights, logits)
        if self.active is not None:
            logits, hit, weight = logits[:, classes], hit[:, classes], weight[classes]
            counted = counted[:, classes] if counted.shape[1] > 1 else counted
        p = activate(logits, self.activation) * counted
        sums = [part.flatten(2).sum(2, dtype=p.dtype) for part in (p * hit, p.square() if self.squared else p, hit)]
        share = weight * counted.flatten(2).any(2)
        if self.batch:
            sums, share = [part.sum(0, keepdim=True) for part in sums], share.amax(0, keepdim=True)
        of_classes = target.ndim < logits.ndim and len(classes) > 1
        first = 1 if of_classes and classes[0] == 0 and not self.background else 0
        both, said, true, share = (part[:, first:] for part in (*sums, share))
        return Counts(both, said, true, share)

    def _classes(self, outputs: int) -> list[int]:
        if self.active is None:
            return list(range(outputs))
        if not all(0 <= k < outputs for k in self.active):
            raise BadInput(f"active holds {list(self.active)}, but the net has outputs 0..{outputs - 1}.")
        return sorted({*self.active})
