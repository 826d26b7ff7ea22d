"""Building blocks that several networks share. Everything takes `dims` (2 or 3) instead of existing twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attentus.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

Norm = Literal["batch", "instance", "none"]
Up = Literal["transposed", "transposed-plain", "nearest"]
Kind = Literal["gate", "residual", "channel", "received"]
Coefficients = Tensor | tuple[Tensor, ...]

SLOPE = 0.01
"""Of every LeakyReLU (nnU-Net, DPC-Net)."""

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_INSTANCE_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


def conv(
    dims: int,
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    bias: bool = True,
    dilation: tuple[int, ...] | None = None,
) -> nn.Module:
    """Convolution that keeps the size at stride 1: padded around odd kernels, not around even ones."""
    kind: Any = _CONV[checked_dims(dims)]
    spread = dilation or (1,) * dims
    padding = tuple(d * (kernel // 2) if kernel % 2 else 0 for d in spread)
    made: nn.Module = kind(
        in_channels, out_channels, kernel, stride=stride, padding=padding, dilation=spread, bias=bias
    )
    return made


def transposed(dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """2x2(x2) transposed convolution with stride 2 and bias: doubles every side."""
    return _TRANSPOSED[checked_dims(dims)](in_channels, out_channels, 2, stride=2)


def normalise(dims: int, channels: int, kind: Norm = "batch") -> nn.Module:
    """Batch normalisation, instance normalisation with learned scale and shift, or nothing."""
    if kind == "batch":
        return _BATCH_NORM[checked_dims(dims)](channels)
    if kind == "instance":
        return _INSTANCE_NORM[checked_dims(dims)](channels, affine=True)
    return nn.Identity()


def max_pool(dims: int) -> nn.Module:
    """2x2(x2) max pooling with stride 2."""
    return _POOL[checked_dims(dims)](2)


def double_conv(dims: int, in_channels: int, out_channels: int, norm: Norm = "batch") -> nn.Sequential:
    """Twice 3x3(x3) convolution with bias, normalisation, ReLU: the U-Net's block."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += _layer(dims, conv(dims, channels, out_channels, 3), out_channels, norm)
    return nn.Sequential(*layers)


def leaky_double_conv(dims: int, in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Twice 3x3(x3) convolution with bias, instance normalisation, LeakyReLU; the first may halve the grid."""
    layers: list[nn.Module] = []
    for channels, step in ((in_channels, stride), (out_channels, 1)):
        layers += [
            conv(dims, channels, out_channels, 3, stride=step),
            normalise(dims, out_channels, "instance"),
            nn.LeakyReLU(SLOPE, inplace=True),
        ]
    return nn.Sequential(*layers)


def up_step(dims: int, in_channels: int, out_channels: int, how: Up = "transposed", norm: Norm = "batch") -> nn.Module:
    """Double every side.

    Args:
        dims: 2 or 3.
        in_channels: of the coarse features.
        out_channels: of the fine ones.
        how: "transposed" is a 2x2 transposed convolution, normalised and rectified; "transposed-plain" the same
            without; "nearest" repeats voxels, convolves 3x3, normalises and rectifies.
        norm: which normalisation.
    """
    if how == "transposed-plain":
        return transposed(dims, in_channels, out_channels)
    if how == "transposed":
        return nn.Sequential(*_layer(dims, transposed(dims, in_channels, out_channels), out_channels, norm))
    wide = nn.Upsample(scale_factor=2, mode="nearest")
    return nn.Sequential(wide, *_layer(dims, conv(dims, in_channels, out_channels, 3), out_channels, norm))


def _layer(dims: int, convolution: nn.Module, channels: int, norm: Norm) -> list[nn.Module]:
    between = [] if norm == "none" else [normalise(dims, channels, norm)]
    return [convolution, *between, nn.ReLU(inplace=True)]


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear or trilinear interpolation of (N, C, *spatial) to a spatial size; corners not aligned."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="trilinear" if x.ndim == 5 else "bilinear", align_corners=False)


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


class Resize(nn.Module):
    """`resize` as a layer, so that what runs a net may do it in its own way."""

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """(N, C, *spatial) to (N, C, *size)."""
        return resize(x, size)


class Concatenate(nn.Module):
    """Features one behind the other, as a layer, so that what runs a net may do without the joint copy."""

    def forward(self, *parts: Tensor) -> Tensor:
        """(N, C_i, *spatial) of the same size to (N, sum of C_i, *spatial)."""
        return torch.cat(parts, dim=1)


class AttentionTap(nn.Module):
    """Where coefficients meet the features they weigh; there they can be heard, replaced, left out (`nets.attention`).

    coefficients  as `kind` says; None stands for no attention at all
    features      (N, C, *spatial)
    returns       the features weighed, same shape

    Args:
        kind: how the features are weighed. "gate": times factors in 0..1 per voxel, (N, 1 or C, *spatial).
            "residual": times one plus such factors. "channel": times factors in 0..1 per channel, (N, C, 1, ...).
            "received": otherwise, see the module; what is heard is the share of all attention that falls on a voxel.
        made_by: parts that serve only to make the coefficients, as paths from the module that holds the tap (lists
            and dicts of modules do not count as such).
    """

    def __init__(self, kind: Kind = "gate", made_by: Sequence[str] = ()) -> None:
        super().__init__()
        self.kind, self.made_by = kind, tuple(made_by)
        self.left_out = False

    def forward(self, coefficients: Coefficients | None, features: Tensor) -> Tensor:
        """Weigh the features."""
        return self.plain(features) if coefficients is None else self.weigh(coefficients, features)

    def plain(self, features: Tensor) -> Tensor:
        """What comes out without attention."""
        return features

    def weigh(self, coefficients: Coefficients, features: Tensor) -> Tensor:
        """What comes out with it."""
        factors = cast("Tensor", coefficients)
        return (1 + factors) * features if self.kind == "residual" else factors * features

    def shown(self, coefficients: Coefficients) -> Tensor:
        """What is heard of the coefficients: (N, maps, *spatial)."""
        return cast("Tensor", coefficients)


def he_initialise(net: nn.Module, slope: float) -> None:
    """He-normal weights for (leaky) rectifiers of that slope, zero biases, in every convolution of a net."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(module.weight, a=slope)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def one_of(option: str, value: object, allowed: Sequence[object]) -> None:
    """Refuse a value that an option does not take.

    Raises:
        BadInput: naming the option and what it takes.
    """
    if value not in allowed:
        taken = ", ".join(repr(a) for a in allowed)
        raise BadInput(f"{option} is one of {taken}; got {value!r}.")


def checked_dims(dims: int) -> int:
    """The same number.

    Raises:
        BadInput: neither 2 nor 3.
    """
    if dims not in _CONV:
        raise BadInput(f"dims must be 2 or 3, got {dims}.")
    return dims
