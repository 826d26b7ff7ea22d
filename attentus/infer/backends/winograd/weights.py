"""Weights as `kernels.c` reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

# Values of a line at 0, ±1, ±2 and infinity, scaled: the matrix G of Lavin and Gray, "Fast Algorithms for Convolutional
# Neural Networks", 2016, section 4.3.
POINTS = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)


def packed(weight: Tensor, block: int) -> Tensor:
    """Weights (K, C, [z,] 3, 3) of a convolution as `convolve` reads them: (36, K / block, taps, C, block)."""
    points = torch.tensor(POINTS, dtype=torch.float64)
    whole = weight.detach().double().reshape(*weight.shape[:2], -1, 3, 3)
    at_points = torch.einsum("iy,jx,kczyx->ijzck", points, points, whole).flatten(0, 1)
    return _in_blocks(at_points, block).permute(0, 3, 1, 2, 4).float().contiguous()


def packed_direct(weight: Tensor, block: int) -> Tensor:
    """Weights (K, C, *kernel) as `halve` and `pointwise` read them: (K / block, *kernel, C, block)."""
    whole = weight.detach().float().flatten(2).permute(2, 1, 0)
    return _in_blocks(whole, block).permute(2, 0, 1, 3).contiguous()


def packed_doubling(weight: Tensor, block: int) -> Tensor:
    """Weights (C, K, [2,] 2, 2) of a transposed convolution: (K / half, taps, 2, C, half, 2), half being block / 2."""
    whole = weight.detach().float().reshape(*weight.shape[:2], -1, 2, 2).permute(2, 3, 0, 4, 1)
    return _in_blocks(whole, block // 2).permute(4, 0, 1, 2, 5, 3).contiguous()


def _in_blocks(weights: Tensor, block: int) -> Tensor:
    """(..., K) to (..., K / block, block), zeros behind."""
    filled = F.pad(weights, (0, -weights.shape[-1] % block))
    return filled.reshape(*filled.shape[:-1], -1, block)
