"""Soft Dice losses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from attentus.losses.targets import one_hot

if TYPE_CHECKING:
    from collections.abc import Sequence


class DiceLoss(nn.Module):
    """One minus the Sørensen-Dice score over all classes, background included (Oktay 2018, section 3).

    Per sample and class `(2·Σ p·t + s) / (Σ p + Σ t + s)` on softmax probabilities p, then the mean: a number in
    0..1, and 0 for a class that neither prediction nor target holds.

    logits   (N, K, *spatial)
    target   (N, *spatial), integers 0..K-1
    returns  scalar

    Args:
        smooth: s; None takes 1e-5, or 0.01 in the release style.
        style: "plain", or "release" for the authors' published code, which doubles s in the numerator, so that a
            class absent from both scores 2.
        active: the classes that take part in softmax and mean; others get no gradient. None means all. Fine-tuning
            a net with more outputs than the data has labels uses this (the paper's AFT experiment).
        batch: sum over the batch before dividing, so that small structures absent from one patch do not disturb.
    """

    def __init__(
        self,
        *,
        smooth: float | None = None,
        style: Literal["plain", "release"] = "plain",
        active: Sequence[int] | None = None,
        batch: bool = False,
    ) -> None:
        super().__init__()
        self.smooth = smooth if smooth is not None else (0.01 if style == "release" else 1e-5)
        self.doubled = 2 if style == "release" else 1
        self.active = None if active is None else list(active)
        self.batch = batch

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of (N, K, *spatial) logits against (N, *spatial) integers."""
        truth = one_hot(target, logits.shape[1])
        if self.active is not None:
            logits, truth = logits[:, self.active], truth[:, self.active]
        probability = torch.softmax(logits.float(), dim=1)
        axes = [*([0] if self.batch else []), *range(2, logits.ndim)]
        both = (probability * truth).sum(axes)  # (N, K), or (K,) over the batch
        total = probability.sum(axes) + truth.sum(axes)
        score = (2 * both + self.doubled * self.smooth) / (total + self.smooth)
        return 1 - score.mean()
