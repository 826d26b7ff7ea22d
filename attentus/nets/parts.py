"""Building blocks that several networks share. Everything takes `dims` (2 or 3) instead of existing twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from attentus.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


def conv(
    dims: int, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, bias: bool = True
) -> nn.Module:
    """Convolution that keeps the size at stride 1 (padding kernel//2 for odd kernels, none for even ones)."""
    padding = kernel // 2 if kernel % 2 else 0
    return _CONV[_checked(dims)](in_channels, out_channels, kernel, stride=stride, padding=padding, bias=bias)


def batch_norm(dims: int, channels: int) -> nn.Module:
    """Batch normalisation."""
    return _NORM[_checked(dims)](channels)


def max_pool(dims: int) -> nn.Module:
    """2x2(x2) max pooling with stride 2."""
    return _POOL[_checked(dims)](2)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear or trilinear interpolation of (N, C, *spatial) to a spatial size; corners not aligned."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="trilinear" if x.ndim == 5 else "bilinear", align_corners=False)


def double_conv(dims: int, in_channels: int, out_channels: int) -> nn.Sequential:
    """Twice 3x3(x3) convolution with bias, batch normalisation, ReLU: the U-Net's block."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [conv(dims, channels, out_channels, 3), batch_norm(dims, out_channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class AttentionTap(nn.Identity):
    """Stands where attention coefficients pass by, changes nothing, and can be listened to (`nets.attention`)."""


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Repeat the far edges of (N, C, *spatial) until every side is a multiple; crop the result back with `crop_to`."""
    missing = [-n % multiple for n in x.shape[2:]]
    if not any(missing):
        return x
    widths = [w for n in reversed(missing) for w in (0, n)]
    return F.pad(x, widths, mode="replicate")


def crop_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """The first `size` elements of every spatial axis of (N, C, *spatial)."""
    for axis, n in enumerate(size, start=2):
        x = x.narrow(axis, 0, n)
    return x


def _checked(dims: int) -> int:
    if dims not in _CONV:
        raise BadInput(f"dims must be 2 or 3, got {dims}.")
    return dims
