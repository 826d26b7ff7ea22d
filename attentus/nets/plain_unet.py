"""Modern references: nnU-Net's plain encoder-decoder and its residual-encoder variant (Isensee et al. 2021, 2024).

Written out here because the published library pulls in packages for photographs; with the same weights the outputs
are equal, bit for bit. Instance normalisation, LeakyReLU, strided convolutions, an output per level of the decoder.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from attentus.errors import BadInput
from attentus.nets.parts import SLOPE, conv, he_initialise, leaky_double_conv, normalise, pad_to_multiple, transposed
from attentus.nets.pyramid import Pyramid, crop_level, level_heads

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTHS = {2: (32, 64, 128, 256, 512, 512), 3: (32, 64, 128, 256, 320, 320)}
BLOCKS = (1, 3, 4, 6, 6, 6)
"""Residual blocks per level of the encoder."""


class PlainUNet(nn.Module):
    """Encoder-decoder with an output on every level of the decoder.

    input    (N, in_channels, *spatial), any size: padded inside to multiples of 2^(levels-1) and cropped back
    returns  a tuple of logits, (N, out_channels, *spatial) first; in training one per level of the decoder, level i
             with ceil(n / 2^i) voxels of a side of n

    Args:
        pyramid: encoder and decoder.
        dims: 2 or 3.
        widths: channels per level.
        out_channels: classes.
    """

    def __init__(self, pyramid: Pyramid, dims: int, widths: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.multiple = 2 ** (len(widths) - 1)
        self.pyramid = pyramid
        self.heads = level_heads(dims, widths[:-1], out_channels)  # the bottom of the U has none
        self.supervision = _halving_to_zero(len(self.heads))
        he_initialise(self, SLOPE)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, *spatial) to a tuple of (N, out_channels, *level)."""
        size = x.shape[2:]
        features = self.pyramid(pad_to_multiple(x, self.multiple))
        heads = list(self.heads) if self.training else [self.heads[0]]
        return tuple(
            crop_level(head(feature), size, level)
            for level, (head, feature) in enumerate(zip(heads, features, strict=False))
        )


def plain_unet(dims: int, in_channels: int, out_channels: int, *, widths: Sequence[int] | None = None) -> PlainUNet:
    """nnU-Net's plain encoder-decoder.

    Args:
        dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes.
        widths: channels per level; their number sets how often the grid is halved. None: six levels, 32 to 320 (3D)
            or 512 (2D), as nnU-Net plans for a patch of 128^3.
    """
    chosen = _checked_widths(dims, widths)
    encoder = [
        leaky_double_conv(dims, before, width, 2 if level else 1)
        for level, (before, width) in enumerate(pairwise([in_channels, *chosen]))
    ]
    return PlainUNet(_pyramid(dims, chosen, encoder, convolutions=2), dims, chosen, out_channels)


def resenc_unet(
    dims: int,
    in_channels: int,
    out_channels: int,
    *,
    widths: Sequence[int] | None = None,
    blocks: Sequence[int] = BLOCKS,
) -> PlainUNet:
    """nnU-Net's residual-encoder U-Net: many residual blocks on the way down, one convolution per level up.

    Args:
        dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes.
        widths: see `plain_unet`.
        blocks: residual blocks per level of the encoder.
    """
    chosen = _checked_widths(dims, widths)
    if len(blocks) != len(chosen) or min(blocks) < 1:
        raise BadInput(f"blocks is one number of at least 1 per level: {len(chosen)} levels, got {list(blocks)}.")
    stem = _conv_unit(dims, in_channels, chosen[0])
    encoder: list[nn.Module] = []
    for level, (before, width) in enumerate(pairwise([chosen[0], *chosen])):
        first = ResidualBlock(dims, before, width, 2 if level else 1)
        rest = [ResidualBlock(dims, width, width) for _ in range(blocks[level] - 1)]
        encoder.append(nn.Sequential(*([] if level else [stem]), first, *rest))
    return PlainUNet(_pyramid(dims, chosen, encoder, convolutions=1), dims, chosen, out_channels)


class ResidualBlock(nn.Module):
    """Two 3x3(x3) convolutions with normalisation and a way around them; rectified after the sum.

    input    (N, in_channels, *spatial)
    returns  (N, channels, *spatial / stride); the way around averages where the grid is halved
    """

    def __init__(self, dims: int, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.first = _conv_unit(dims, in_channels, channels, stride)
        self.second = nn.Sequential(conv(dims, channels, channels, 3), normalise(dims, channels, "instance"))
        pool = nn.AvgPool2d if dims == 2 else nn.AvgPool3d
        around: list[nn.Module] = [pool(stride)] if stride > 1 else []
        if in_channels != channels:
            widen = conv(dims, in_channels, channels, 1, bias=False)
            around += [widen, normalise(dims, channels, "instance")]
        self.around = nn.Sequential(*around)

    def forward(self, x: Tensor) -> Tensor:
        """Sum of both ways, rectified."""
        both = self.second(self.first(x)).add_(self.around(x))
        return F.leaky_relu(both, SLOPE, inplace=True)


def _conv_unit(dims: int, in_channels: int, channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        conv(dims, in_channels, channels, 3, stride=stride),
        normalise(dims, channels, "instance"),
        nn.LeakyReLU(SLOPE, inplace=True),
    )


def _pyramid(dims: int, widths: Sequence[int], encoder: Sequence[nn.Module], convolutions: int) -> Pyramid:
    steps = list(pairwise(widths[::-1]))
    block = leaky_double_conv if convolutions == 2 else _conv_unit
    ups = [transposed(dims, coarse, fine) for coarse, fine in steps]
    return Pyramid(encoder, ups, [block(dims, 2 * fine, fine) for _, fine in steps], skip_first=False)


def _halving_to_zero(outputs: int) -> tuple[float, ...]:
    """nnU-Net's weights: each half of the one before, none for the coarsest of several, sum 1."""
    raw = [0.5**i for i in range(outputs)]
    if outputs > 1:
        raw[-1] = 0.0
    return tuple(weight / sum(raw) for weight in raw)


def _checked_widths(dims: int, widths: Sequence[int] | None) -> list[int]:
    if dims not in WIDTHS:
        raise BadInput(f"dims must be 2 or 3, got {dims}.")
    chosen = list(widths or WIDTHS[dims])
    if len(chosen) < 2 or min(chosen) < 1:
        raise BadInput(f"widths are the channels of at least two levels; got {chosen}.")
    return chosen
