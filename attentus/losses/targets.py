"""What losses compare logits with."""

from __future__ import annotations

import torch
from torch import Tensor


def one_hot(target: Tensor, classes: int) -> Tensor:
    """(N, *spatial) integers to (N, K, *spatial) float32 zeros and ones."""
    coded = torch.zeros((target.shape[0], classes, *target.shape[1:]), device=target.device)
    return coded.scatter_(1, target.long()[:, None], 1.0)
