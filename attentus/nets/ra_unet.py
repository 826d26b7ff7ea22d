"""RA-UNet (Jin et al., "RA-UNet: A hybrid deep attention-aware network", 2018; after Tables II, III and VIII).

A residual U-Net whose skips pass attention residual modules: a trunk that carries features, and beside it a small
hourglass that says where they matter. The module's output (1 + S) * F keeps the trunk alive where S is near zero
(Eq. 2). RA-UNet-I is the 2D net that finds the liver, RA-UNet-II the 3D net that outlines liver and tumours.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attentus.errors import BadInput
from attentus.nets.parts import AttentionTap, conv, max_pool, normalise

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTHS = {2: (16, 16, 32, 64, 128, 256), 3: (32, 32, 64, 128, 256, 512)}
"""Channels of Conv1, Res1, ... Res5: Table II for 2D, Table III for 3D."""
DEPTHS = (0, 1, 2, 3)
"""Long-range skips inside Att1 (on the coarsest skip) to Att4."""


class RAUNet(nn.Module):
    """Residual U-Net with attention residual modules on its skips.

    input    (N, in_channels, *spatial), every side a multiple of 32
    returns  a tuple with one tensor of logits, (N, out_channels, *spatial)

    Args:
        dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes; the paper's nets have one.
        widths: channels of Conv1 and Res1 to Res5, each at least 4; None takes RA-UNet-I in 2D, RA-UNet-II in 3D.
        depths: long-range skips inside the attention modules, from the coarsest skip to the finest.
        attention: False leaves the skips as they are (a residual U-Net, the ablation).
        momentum: share of a batch in the running means of the normalisation. Keras's, the default, needs some 500 steps
            to forget its beginning; a training of fewer steps takes more, such as 0.1.
    """

    multiple = 32

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        widths: Sequence[int] | None = None,
        depths: Sequence[int] = DEPTHS,
        attention: bool = True,
        momentum: float = 0.01,
    ) -> None:
        super().__init__()
        self.widths = tuple(_checked_widths(dims, widths))
        stem, *levels = self.widths
        if len(depths) != len(DEPTHS) or not all(0 <= depth <= 3 for depth in depths):
            raise BadInput(f"depths are four numbers from 0 to 3, coarsest skip first; got {list(depths)}.")
        self.pool = max_pool(dims)
        self.conv1 = _conv_bn_relu(dims, in_channels, stem)
        self.encoder = nn.ModuleList(Residual(dims, i, o) for i, o in pairwise([stem, *levels]))  # Res1 ... Res5
        self.bottom = Residual(dims, levels[-1], levels[-1])  # Res6
        skips = levels[-2::-1]  # of Res4, Res3, Res2, Res1
        self.attention = nn.ModuleList(
            AttentionResidual(dims, width, depth) if attention else nn.Identity()
            for width, depth in zip(skips, depths, strict=True)
        )  # Att1 ... Att4
        self.decoder = nn.ModuleList(Residual(dims, a + b, b) for a, b in pairwise([levels[-1], *skips]))  # Res7 ...
        self.conv2 = _conv_bn_relu(dims, levels[0] + stem, stem)
        self.conv3 = conv(dims, stem, out_channels, 3)
        _initialise(self)
        if not 0 < momentum <= 1:
            raise BadInput(f"momentum is above 0 and at most 1, got {momentum:g}.")
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                module.momentum = momentum

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, *spatial) to a tuple of one (N, out_channels, *spatial).

        Raises:
            BadInput: a side that is no multiple of 32; the message says what to pad to.
        """
        _refuse_odd(x.shape[2:], self.multiple)
        first = x = self.conv1(x)
        skips = []
        for block in self.encoder:
            x = block(self.pool(x))
            skips.append(x)
        skips.pop()
        x = self.bottom(x)
        for attend, block in zip(self.attention, self.decoder, strict=True):
            x = block(torch.cat([_up(x), attend(skips.pop())], dim=1))
        x = self.conv2(torch.cat([_up(x), first], dim=1))
        return (self.conv3(x),)


class AttentionResidual(nn.Module):
    """Attention residual module (Fig. 4, Eq. 2): (1 + S) * F, with F from a trunk and S in 0..1 from an hourglass.

    input    (N, C, *spatial), every side a multiple of 2^(depth + 1)
    returns  (N, C, *spatial)

    Args:
        dims: 2 or 3.
        channels: constant throughout.
        depth: long-range skips inside the hourglass, 0 to 3; it pools depth + 1 times.
    """

    def __init__(self, dims: int, channels: int, depth: int) -> None:
        super().__init__()
        self.pool = max_pool(dims)
        self.before = Residual(dims, channels, channels)
        self.trunk = nn.Sequential(Residual(dims, channels, channels), Residual(dims, channels, channels))
        self.down = nn.ModuleList(Residual(dims, channels, channels) for _ in range(depth + 1))
        self.across = nn.ModuleList(Residual(dims, channels, channels) for _ in range(depth))
        self.up = nn.ModuleList(Residual(dims, channels, channels) for _ in range(depth + 1))
        self.mask = nn.Sequential(conv(dims, channels, channels, 1), conv(dims, channels, channels, 1))
        self.alpha = AttentionTap("residual", made_by=["down", "across", "up", "mask"])
        self.after = Residual(dims, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Strengthen the features where the mask says they matter."""
        x = self.before(x)
        mask = None if self.alpha.left_out else torch.sigmoid(self.mask(self._hourglass(x)))  # S
        return self.after(self.alpha(mask, self.trunk(x)))  # type: ignore[no-any-return]

    def _hourglass(self, x: Tensor) -> Tensor:
        x = self.down[0](self.pool(x))
        skips = []
        for across, down in zip(self.across, list(self.down)[1:], strict=True):
            skips.append(across(x))
            x = down(self.pool(x))
        for up in list(self.up)[:-1]:
            x = _up(up(x)) + skips.pop()
        return _up(self.up[-1](x))


class Residual(nn.Module):
    """Bottleneck of 1-3-1 convolutions, each after normalisation and ReLU, plus a 1x1 convolution of the raw input.

    input    (N, in_channels, *spatial)
    returns  (N, out_channels, *spatial)

    The shortcut is a convolution even where the widths agree: the published 4 M and 12 M parameters need it.
    """

    def __init__(self, dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        inner = out_channels // 4
        steps = [(in_channels, inner, 1), (inner, inner, 3), (inner, out_channels, 1)]
        layers: list[nn.Module] = []
        for i, o, kernel in steps:
            layers += [_keras_norm(dims, i), nn.ReLU(inplace=True), conv(dims, i, o, kernel)]
        self.body = nn.Sequential(*layers)
        self.shortcut = conv(dims, in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both ways, nothing after it."""
        return self.body(x).add_(self.shortcut(x))  # type: ignore[no-any-return]


def _up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _conv_bn_relu(dims: int, in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        conv(dims, in_channels, out_channels, 3), _keras_norm(dims, out_channels), nn.ReLU(inplace=True)
    )


def _keras_norm(dims: int, channels: int) -> nn.Module:
    """Batch normalisation with the constants of the authors' framework."""
    norm: Any = normalise(dims, channels)
    norm.eps, norm.momentum = 1e-3, 0.01
    return norm  # type: ignore[no-any-return]


def _checked_widths(dims: int, widths: Sequence[int] | None) -> list[int]:
    if dims not in WIDTHS:
        raise BadInput(f"dims must be 2 or 3, got {dims}.")
    chosen = list(widths or WIDTHS[dims])
    if len(chosen) != len(WIDTHS[dims]) or min(chosen) < 4:
        raise BadInput(f"widths are six numbers of at least 4: Conv1, Res1, ... Res5; got {chosen}.")
    return chosen


def _refuse_odd(size: Sequence[int], multiple: int) -> None:
    if any(n % multiple for n in size):
        fitting = [-(-n // multiple) * multiple for n in size]
        raise BadInput(
            f"RA-UNet halves its input five times: every side must be a multiple of {multiple}."
            f" {list(size)} is not; pad it to {fitting}."
        )


def _initialise(net: nn.Module) -> None:
    """Glorot-uniform weights and zero biases, as the authors' framework starts them."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
