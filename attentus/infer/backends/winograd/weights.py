"""Weights as `kernels.c` reads them, with as many results in a block and channels in a word as `Kernels` says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

NEAR, FAR = 2 / 3, 3 / 2
"""As in `kernels.c`."""


def _at(point: float, other: float) -> tuple[float, float, float]:
    """What weights a line's three coefficients for its value at a point, scaled as Lagrange's formula wants it."""
    scale = 2 * point**2 * (point**2 - other**2)
    return 1 / scale, point / scale, point**2 / scale


# Values of a line at 0, ±NEAR, ±FAR and infinity, scaled: the matrix G of Lavin and Gray, "Fast Algorithms for
# Convolutional Neural Networks", 2016, section 4.3, who take 1 and 2.
POINTS = (
    (1 / (NEAR * FAR) ** 2, 0, 0),
    _at(NEAR, FAR),
    _at(-NEAR, FAR),
    _at(FAR, NEAR),
    _at(-FAR, NEAR),
    (0, 0, 1),
)


def packed(weight: Tensor, block: int, pair: int = 1) -> Tensor:
    """Weights (K, C, [z,] 3, 3) of a convolution as `convolve` reads them: (36, K / block, taps, C, block).

    With a pair of 2, here and below, C / 2 stands for C and the two channels of a word are one more axis, the last.
    """
    line = torch.tensor(POINTS, dtype=torch.float64 if pair == 1 else torch.float32)  # bf16 rounds far more than either
    planes = weight.detach().reshape(*weight.shape[:2], -1, 9).permute(3, 2, 1, 0)
    arranged = _in_words(_in_blocks(planes, block).permute(0, 3, 1, 2, 4), -2, pair)  # before they grow fourfold
    at_points = torch.kron(line, line) @ arranged.to(line.dtype).flatten(1)
    return _rounded(at_points.view(-1, *arranged.shape[1:]), pair)


def packed_direct(weight: Tensor, block: int, pair: int = 1) -> Tensor:
    """Weights (K, C, *kernel) as `halve` and `pointwise` read them: (K / block, *kernel, C, block)."""
    whole = weight.detach().float().flatten(2).permute(2, 1, 0)
    return _rounded(_in_words(_in_blocks(whole, block).permute(2, 0, 1, 3), -2, pair), pair)


def packed_doubling(weight: Tensor, block: int, pair: int = 1) -> Tensor:
    """Weights (C, K, [2,] 2, 2) of a transposed convolution: (K / half, taps, 2, C, half, 2), half being block / 2."""
    whole = weight.detach().float().reshape(*weight.shape[:2], -1, 2, 2).permute(2, 3, 0, 4, 1)
    return _rounded(_in_words(_in_blocks(whole, block // 2).permute(4, 0, 1, 2, 5, 3), -3, pair), pair)


def _in_words(weights: Tensor, axis: int, pair: int) -> Tensor:
    """With channels that go in, along an axis counted from the end, as products take them.

    In words of two, zeros behind, the two of a word are the last axis.
    """
    if pair == 1:
        return weights.contiguous()
    by_channel = _in_blocks(weights.movedim(axis, -1), pair)
    return by_channel.movedim(-2, axis - 1).contiguous()


def _rounded(weights: Tensor, pair: int) -> Tensor:
    """As products take them: bf16 in words of two."""
    return weights.bfloat16() if pair == 2 else weights.float()


def _in_blocks(weights: Tensor, block: int) -> Tensor:
    """(..., K) to (..., K / block, block), zeros behind."""
    lacking = -weights.shape[-1] % block
    filled = F.pad(weights, (0, lacking)) if lacking else weights
    return filled.reshape(*filled.shape[:-1], -1, block)
