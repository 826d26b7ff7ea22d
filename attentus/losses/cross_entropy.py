"""Voxel-wise losses: cross-entropy, its binary form, and focal loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attentus.errors import BadInput
from attentus.losses.targets import (
    ACTIVATIONS,
    Activation,
    checked,
    class_weights,
    kept,
    mean,
    precise,
    truth,
    weights_of,
)
from attentus.nets.parts import one_of
from attentus.types import IGNORE

if TYPE_CHECKING:
    from collections.abc import Sequence


class CrossEntropyLoss(nn.Module):
    """Mean over voxels of minus the log of the softmax probability of the true class (DPC-Net Eq. 11).

    logits   (N, K, *spatial)
    target   (N, *spatial), integers 0..K-1; 255 is ignored
    returns  scalar

    Args:
        weights: one weight per class, background first; the mean is then weighted, too.
        activation: "softmax"; the cross-entropy of sigmoids is `bce`.
    """

    weights: Tensor | None

    def __init__(self, *, weights: Sequence[float] | None = None, activation: Literal["softmax"] = "softmax") -> None:
        super().__init__()
        if activation != "softmax":
            raise BadInput(f"cross-entropy has no activation {activation!r}; masks go with bce or dice-cross-entropy.")
        self.register_buffer("weights", class_weights(weights))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of (N, K, *spatial) logits against (N, *spatial) integers."""
        target = checked(logits, target, "softmax")
        return mean(surprise(logits, target), share_of(self.weights, logits, target))


class BinaryCrossEntropyLoss(nn.Module):
    """Mean over voxels and outputs of `-t·log p - (1-t)·log(1-p)` with p the sigmoid of the output (ANU-Net Eq. 6).

    logits   (N, K, *spatial)
    target   masks (N, K, *spatial); or integers (N, *spatial): 0 and 1 for one output, else each class against the
             rest; 255 is ignored
    returns  scalar

    Args:
        weights: one weight per output; the mean is then weighted, too.
        activation: "sigmoid"; with softmax it is `cross-entropy`.
    """

    weights: Tensor | None

    def __init__(self, *, weights: Sequence[float] | None = None, activation: Literal["sigmoid"] = "sigmoid") -> None:
        super().__init__()
        one_of("activation", activation, ("sigmoid",))
        self.register_buffer("weights", class_weights(weights))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of (N, K, *spatial) logits against masks or integers."""
        target = checked(logits, target, "sigmoid")
        wrong = against(precise(logits), truth(logits, target))
        return mean(F.softplus(wrong), each(self.weights, logits, target))


class FocalLoss(nn.Module):
    """Cross-entropy times (1-q)^gamma, q the probability given to the truth (Lin 2017, Eq. 4-5; ANU-Net Eq. 7).

    The surer and righter a voxel, the less it counts. Mean over voxels (and outputs, with "sigmoid").

    logits   (N, K, *spatial)
    target   (N, *spatial), integers 0..K-1; or masks (N, K, *spatial) with "sigmoid"; 255 is ignored
    returns  scalar

    Args:
        gamma: 0 is cross-entropy.
        alpha: factor of foreground voxels, with 1 - alpha for the background; None takes neither.
        weights: one weight per class or output; unlike alpha, they weigh the mean, too.
        activation: "softmax", or "sigmoid" for each output on its own.
    """

    weights: Tensor | None

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        alpha: float | None = None,
        weights: Sequence[float] | None = None,
        activation: Activation = "softmax",
    ) -> None:
        super().__init__()
        one_of("activation", activation, ACTIVATIONS)
        if gamma < 0 or not 0 <= (alpha or 0) <= 1:
            raise BadInput(f"gamma is 0 or more, alpha in 0..1; got {gamma} and {alpha}.")
        self.gamma, self.alpha, self.activation = gamma, alpha, activation
        self.register_buffer("weights", class_weights(weights))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of (N, K, *spatial) logits against integers or masks."""
        target = checked(logits, target, self.activation)
        if self.activation == "softmax":
            entropy, foreground = surprise(logits, target), (target != 0)[:, None]
            doubt, share = -torch.expm1(-entropy), share_of(self.weights, logits, target)
        else:
            foreground = truth(logits, target)
            wrong = against(precise(logits), foreground)
            entropy, doubt, share = F.softplus(wrong), torch.sigmoid(wrong), each(self.weights, logits, target)
        values = focus(doubt, self.gamma) * entropy
        if self.alpha is not None:
            values = values * sides(foreground, self.alpha, values.dtype)
        return mean(values, share)


def surprise(logits: Tensor, target: Tensor) -> Tensor:
    """(N, 1, *spatial): minus the log of the softmax probability of the true class, 0 where ignored."""
    return F.cross_entropy(precise(logits), target.long(), reduction="none", ignore_index=IGNORE)[:, None]


def against(logits: Tensor, hit: Tensor) -> Tensor:
    """Logits of being wrong: their sigmoid is 1-q, their softplus the binary cross-entropy -log q."""
    return torch.where(hit, -logits, logits)


def focus(doubt: Tensor, gamma: float) -> Tensor:
    """doubt^gamma, with a finite slope at 0."""
    return doubt.clamp(min=torch.finfo(doubt.dtype).eps) ** gamma


def sides(foreground: Tensor, alpha: float, dtype: torch.dtype) -> Tensor:
    """Alpha in the foreground, 1 - alpha in the background."""
    return foreground.to(dtype) * (2 * alpha - 1) + (1 - alpha)


def share_of(weights: Tensor | None, logits: Tensor, target: Tensor) -> Tensor:
    """(N, 1, *spatial): the weight of each voxel's class, 0 where ignored."""
    if weights is None:
        return kept(logits, target)
    table = F.pad(weights_of(weights, precise(logits)), (0, IGNORE + 1 - logits.shape[1]))
    return table[target.long()][:, None]


def each(weights: Tensor | None, logits: Tensor, target: Tensor) -> Tensor:
    """(N, 1 or K, *spatial): the weight of each output, 0 where ignored."""
    counted = kept(logits, target)
    if weights is None:
        return counted
    return counted * weights_of(weights, precise(logits)).view(-1, *[1] * (logits.ndim - 2))
