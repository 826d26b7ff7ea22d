"""Sums of losses, and losses over the several outputs of a deeply supervised net."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from attentus.errors import BadInput
from attentus.losses.cross_entropy import BinaryCrossEntropyLoss, CrossEntropyLoss
from attentus.losses.dice import Denominator, DiceLoss, Reduce
from attentus.losses.targets import Activation, regions

if TYPE_CHECKING:
    from collections.abc import Sequence


class DiceCrossEntropyLoss(nn.Module):
    """Weighted sum of soft Dice and cross-entropy.

    DPC-Net Eq. 10-12: `denominator="squared", reduce="global"`. nnU-Net: `background=False`.

    logits   (N, K, *spatial)
    target   (N, *spatial), integers 0..K-1; or masks (N, K, *spatial) with "sigmoid"; 255 is ignored
    returns  scalar

    Args:
        dice: weight of the Dice loss.
        cross_entropy: weight of the cross-entropy.
        batch: see `DiceLoss`, like the next three.
        denominator: "plain" or "squared".
        reduce: "class" or "global".
        background: whether Dice scores class 0; cross-entropy always sees it.
        smooth: keeps empty classes from being 0/0.
        weights: one weight per class, in both.
        activation: "softmax"; or "sigmoid" for each output on its own, with binary cross-entropy: what BraTS's nested
            regions need.
    """

    def __init__(
        self,
        *,
        dice: float = 1.0,
        cross_entropy: float = 1.0,
        batch: bool = False,
        denominator: Denominator = "plain",
        reduce: Reduce = "class",
        background: bool = True,
        smooth: float = 1e-5,
        weights: Sequence[float] | None = None,
        activation: Activation = "softmax",
    ) -> None:
        super().__init__()
        self.shares = (dice, cross_entropy)
        self.dice = DiceLoss(
            smooth=smooth,
            batch=batch,
            denominator=denominator,
            reduce=reduce,
            background=background,
            weights=weights,
            activation=activation,
        )
        entropy = CrossEntropyLoss if activation == "softmax" else BinaryCrossEntropyLoss
        self.cross_entropy = entropy(weights=weights)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of (N, K, *spatial) logits against integers or masks."""
        dice, cross_entropy = self.shares
        total: Tensor = dice * self.dice(logits, target) + cross_entropy * self.cross_entropy(logits, target)
        return total


class DeepSupervision(nn.Module):
    """The same loss on every output of a net, weighted and summed.

    logits   tuple of (N, K, *level), final one first; an output may be coarser than the target by a power of two
    target   (N, *spatial), integers, or masks (N, K, *spatial); coarser outputs are compared with every second,
             fourth, ... voxel of it
    returns  scalar

    A net's own weights are its `supervision`: ANU-Net sums its heads (Eq. 8), DPC-Net takes 1/(2^i · L) at level i of L
    in each of its three groups (Eq. 13).

    Args:
        loss: what is asked of one output.
        weights: one weight per output, 0 leaves it out; None halves from output to output and normalises to a sum
            of 1.
        table: turns integers into masks of regions before the loss sees them; see `targets.regions`.
    """

    table: Tensor | None

    def __init__(self, loss: nn.Module, weights: Sequence[float] | None = None, table: Tensor | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.weights = weights
        self.register_buffer("table", table)

    def forward(self, logits: tuple[Tensor, ...], target: Tensor) -> Tensor:
        """Weighted sum over the outputs.

        Raises:
            BadInput: as many weights as outputs are needed, or an output's size does not follow from the target's.
        """
        weights = self.weights or halving(len(logits))
        if len(weights) != len(logits):
            raise BadInput(f"The net has {len(logits)} outputs, but {len(weights)} weights are given (head_weights).")
        total = torch.zeros((), device=target.device)
        for weight, output in zip(weights, logits, strict=True):
            if weight:
                seen = coarser(target, output.shape[2:])
                total = total + weight * self.loss(output, seen if self.table is None else regions(seen, self.table))
        return total


def halving(outputs: int) -> list[float]:
    """1, 1/2, 1/4, ... divided by their sum."""
    raw = [0.5**k for k in range(outputs)]
    return [weight / sum(raw) for weight in raw]


def coarser(target: Tensor, size: Sequence[int]) -> Tensor:
    """Every 2^i-th voxel of (N, *spatial) or (N, K, *spatial), so that the sides become `size`.

    Raises:
        BadInput: no power of two leads to that size.
    """
    full, step = target.shape[-len(size) :], 1
    while step <= max(full):
        if all(-(-n // step) == m for n, m in zip(full, size, strict=True)):
            whole, strided = slice(None), slice(None, None, step)
            return target[(whole,) * (target.ndim - len(full)) + (strided,) * len(full)]
        step *= 2
    raise BadInput(f"An output of size {list(size)} is not a halved form of the target's {list(full)}.")
