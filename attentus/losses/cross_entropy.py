"""Voxel-wise cross-entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence


class CrossEntropyLoss(nn.Module):
    """Mean over voxels of minus the log of the softmax probability of the true class.

    logits   (N, K, *spatial)
    target   (N, *spatial), integers 0..K-1
    returns  scalar

    Args:
        weights: one weight per class, background first; the mean is then weighted, too.
    """

    weights: Tensor | None

    def __init__(self, *, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.register_buffer("weights", None if weights is None else torch.tensor(weights, dtype=torch.float32))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of (N, K, *spatial) logits against (N, *spatial) integers."""
        return F.cross_entropy(logits.float(), target.long(), self.weights)
