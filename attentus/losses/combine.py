"""Sums of losses, and losses over the several outputs of a deeply supervised net."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from attentus.losses.cross_entropy import CrossEntropyLoss
from attentus.losses.dice import DiceLoss

if TYPE_CHECKING:
    from collections.abc import Sequence


class DiceCrossEntropyLoss(nn.Module):
    """Weighted sum of soft Dice and cross-entropy (nnU-Net's default; DPC-Net Eq. 10-12 in its plain form).

    logits   (N, K, *spatial)
    target   (N, *spatial), integers 0..K-1
    returns  scalar

    Args:
        dice: weight of the Dice loss.
        cross_entropy: weight of the cross-entropy.
        batch: see `DiceLoss`.
    """

    def __init__(self, *, dice: float = 1.0, cross_entropy: float = 1.0, batch: bool = False) -> None:
        super().__init__()
        self.shares = (dice, cross_entropy)
        self.dice = DiceLoss(batch=batch)
        self.cross_entropy = CrossEntropyLoss()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of (N, K, *spatial) logits against (N, *spatial) integers."""
        dice, cross_entropy = self.shares
        total: Tensor = dice * self.dice(logits, target) + cross_entropy * self.cross_entropy(logits, target)
        return total


class DeepSupervision(nn.Module):
    """The same loss on every output of a net, weighted and summed.

    logits   tuple of (N, K, *spatial), final one first
    target   (N, *spatial), integers
    returns  scalar

    Args:
        loss: what is asked of one output.
        weights: one weight per output; None halves from output to output and normalises to a sum of 1.
    """

    def __init__(self, loss: nn.Module, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.weights = weights

    def forward(self, logits: tuple[Tensor, ...], target: Tensor) -> Tensor:
        """Weighted sum over the outputs."""
        weights = self.weights or halving(len(logits))
        total = torch.zeros((), device=target.device)
        for weight, output in zip(weights, logits, strict=True):
            total = total + weight * self.loss(output, target)
        return total


def halving(outputs: int) -> list[float]:
    """1, 1/2, 1/4, ... divided by their sum."""
    raw = [0.5**k for k in range(outputs)]
    return [weight / sum(raw) for weight in raw]
