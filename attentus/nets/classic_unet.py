"""The 2D comparison nets of the ANU-Net paper: the classic U-Net, and the Attention U-Net with same-grid gates.

Here the gating signal has already been brought to the skip's grid, so the gate neither strides nor interpolates, and
all four skips are gated. Do not confuse it with the grid gates of Oktay et al. (`attention_unet.py`), which go by the
same name in tables: 7.86 M against 6.41 M parameters.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from attentus.errors import BadInput
from attentus.nets.parts import AttentionTap, batch_norm, conv, crop_to, double_conv, max_pool, pad_to_multiple

LEVELS = 5


class ClassicUNet(nn.Module):
    """U-Net of five levels with, if asked for, a same-grid gate on every skip.

    input    (N, in_channels, *spatial), any size: padded inside to multiples of 16 and cropped back
    returns  a tuple with one tensor of logits, (N, out_channels, *spatial)

    Args:
        dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes.
        width: channels of the first level; each further level doubles them.
        gated: whether the skips are gated (the Attention U-Net of the comparison).
        up: "transposed" is a 2x2 transposed convolution, "nearest" repeats voxels and convolves 3x3; both with
            batch normalisation and ReLU.
    """

    multiple = 16

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        width: int = 32,
        gated: bool = False,
        up: Literal["transposed", "nearest"] = "transposed",
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(LEVELS)]
        self.encoder = nn.ModuleList(double_conv(dims, i, o) for i, o in pairwise([in_channels, *widths]))
        self.pool = max_pool(dims)
        steps = list(pairwise(widths[::-1]))  # (coarse, fine) channels from the bottom up
        self.ups = nn.ModuleList(_up(dims, coarse, fine, up) for coarse, fine in steps)
        self.gates = nn.ModuleList(SameGridGate(dims, fine, fine // 2) for _, fine in steps if gated)
        self.decoder = nn.ModuleList(double_conv(dims, 2 * fine, fine) for _, fine in steps)
        self.head = conv(dims, width, out_channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, *spatial) to a tuple of one (N, out_channels, *spatial)."""
        size = x.shape[2:]
        x = pad_to_multiple(x, self.multiple)
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(self.pool(x) if level else x)
            skips.append(x)
        skips.pop()
        for step, (up, block) in enumerate(zip(self.ups, self.decoder, strict=True)):
            signal = up(x)  # (N, fine, *side of the skip)
            skip = self.gates[step](skips.pop(), signal) if self.gates else skips.pop()
            x = block(torch.cat([skip, signal], dim=1))
        return (crop_to(self.head(x), size),)


class SameGridGate(nn.Module):
    """Additive attention where skip and signal share a grid (ANU-Net Eq. 1-3, Fig. 3).

    skip, signal  (N, C, *spatial)
    returns       (N, C, *spatial), the skip times one coefficient in 0..1 per voxel
    """

    def __init__(self, dims: int, channels: int, inner: int) -> None:
        super().__init__()
        self.of_skip = nn.Sequential(conv(dims, channels, inner, 1), batch_norm(dims, inner))
        self.of_signal = nn.Sequential(conv(dims, channels, inner, 1), batch_norm(dims, inner))
        self.score = nn.Sequential(conv(dims, inner, 1, 1), batch_norm(dims, 1))
        self.alpha = AttentionTap()

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        """Weigh the skip by how well it agrees with the signal."""
        agreement = torch.relu(self.of_skip(skip) + self.of_signal(signal))  # (N, inner, *spatial)
        alpha: Tensor = self.alpha(torch.sigmoid(self.score(agreement)))  # (N, 1, *spatial)
        return skip * alpha


def _up(dims: int, in_channels: int, out_channels: int, how: str) -> nn.Sequential:
    if how == "transposed":
        kind = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
        rise: list[nn.Module] = [kind(in_channels, out_channels, 2, stride=2)]
    elif how == "nearest":
        rise = [nn.Upsample(scale_factor=2, mode="nearest"), conv(dims, in_channels, out_channels, 3)]
    else:
        raise BadInput(f"up is 'transposed' or 'nearest', got '{how}'.")
    return nn.Sequential(*rise, batch_norm(dims, out_channels), nn.ReLU(inplace=True))
