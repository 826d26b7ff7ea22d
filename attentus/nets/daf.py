"""DAF: the 3D U-Net with deep attentive features (after Wang et al., DAF3D, 2019), a baseline of the DPC-Net paper.

The four finest levels are brought to one width and to full resolution, fused, and each refined again by attention to
the fusion; dilated convolutions read the result. The widths (half of DAF3D's) are those that give the +0.68 M
parameters of Table 4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attentus.nets.parts import AttentionTap, conv, he_initialise, pad_to_multiple, resize
from attentus.nets.pyramid import crop_level, plain_pyramid

BASE_WIDTHS = (1, 2, 4, 8, 16)
DILATIONS = (1, 6, 12, 18)
GROUPS = 32
LEVELS = 4


class DAF(nn.Module):
    """3D U-Net with an attentive head over its four finest levels.

    input    (N, in_channels, *spatial), any size: padded inside to multiples of 16 and cropped back
    returns  a tuple of logits (N, out_channels, *spatial): the final one first; in training then those of the four
             attentive levels, of the four levels before attention, and of the U-Net itself

    Args:
        dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes.
        width: channels of the U-Net's first level.
        level_width: channels that every level is brought to.
        fused_width: channels of fusion and attention.
    """

    multiple = 16
    supervision = (1.0,) * 10

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        width: int = 32,
        level_width: int = 64,
        fused_width: int = 32,
    ) -> None:
        super().__init__()
        widths = [width * factor for factor in BASE_WIDTHS]
        self.pyramid = plain_pyramid(dims, in_channels, widths)
        self.head = conv(dims, width, out_channels, 1)
        self.daf = DeepAttentiveFeatures(dims, widths[:LEVELS], out_channels, level_width, fused_width)
        he_initialise(self, slope=0.0)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, *spatial) to a tuple of (N, out_channels, *spatial)."""
        size = x.shape[2:]
        features = self.pyramid(pad_to_multiple(x, self.multiple))
        outputs = self.daf(features[:LEVELS])
        if self.training:
            outputs = (*outputs, self.head(features[0]))
        return tuple(crop_level(output, size, 0) for output in outputs)


class DeepAttentiveFeatures(nn.Module):
    """The attentive head.

    input    four levels of features, (N, widths[i], *spatial / 2^i)
    returns  logits (N, out_channels, *spatial): the final ones; in training also those of the refined levels and of
             the levels as they came, finest first
    """

    def __init__(self, dims: int, widths: list[int], out_channels: int, level: int, fused: int) -> None:
        super().__init__()
        self.level = nn.ModuleList(_unit(dims, width, level, 1) for width in widths)
        self.fuse = nn.Sequential(_unit(dims, len(widths) * level, fused, 1), *_pair(dims, fused))
        self.attend = nn.ModuleList(
            nn.Sequential(
                _unit(dims, level + fused, fused, 1), _unit(dims, fused, fused, 3), conv(dims, fused, fused, 3)
            )
            for _ in widths
        )
        self.alpha = nn.ModuleList(AttentionTap(made_by=[f"attend.{n}"]) for n in range(len(widths)))
        self.refine = nn.ModuleList(
            nn.Sequential(_unit(dims, level + fused, fused, 1), *_pair(dims, fused)) for _ in widths
        )
        self.merge = _unit(dims, len(widths) * fused, fused, 1)
        self.dilated = nn.ModuleList(_dilated(dims, fused, rate) for rate in DILATIONS)
        self.gather = nn.Sequential(conv(dims, len(DILATIONS) * fused, fused, 1), nn.GroupNorm(_groups(fused), fused))
        self.level_heads = nn.ModuleList(conv(dims, level, out_channels, 1) for _ in widths)
        self.refined_heads = nn.ModuleList(conv(dims, fused, out_channels, 1) for _ in widths)
        self.head = conv(dims, fused, out_channels, 1)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, ...]:
        """Logits, the final ones first."""
        full = features[0].shape[2:]
        levels = self._levels(features)
        fused = self.fuse(torch.cat(levels, dim=1))
        refined = []
        for attend, tap, refine, level in zip(self.attend, self.alpha, self.refine, levels, strict=True):
            alpha = None if tap.left_out else torch.sigmoid(attend(torch.cat([level, fused], dim=1)))  # as fused
            refined.append(refine(torch.cat([level, tap(alpha, fused)], dim=1)))
        merged = self.merge(torch.cat(refined, dim=1))
        final = self.head(self.gather(torch.cat([branch(merged) for branch in self.dilated], dim=1)))
        if not self.training:
            return (final,)
        sides = [(self.refined_heads, refined), (self.level_heads, levels)]
        return (final, *(resize(head(x), full) for heads, maps in sides for head, x in zip(heads, maps, strict=True)))

    def _levels(self, features: list[Tensor]) -> list[Tensor]:
        """All levels in one width at full size, each with what the coarser ones know added."""
        total: list[Tensor] = []
        for unit, x in zip(list(self.level)[::-1], features[::-1], strict=True):
            level = unit(x)
            total.append(level + resize(total[-1], x.shape[2:]) if total else level)
        return [resize(level, features[0].shape[2:]) for level in total[::-1]]


def _unit(dims: int, in_channels: int, channels: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        conv(dims, in_channels, channels, kernel), nn.GroupNorm(_groups(channels), channels), nn.PReLU()
    )


def _pair(dims: int, channels: int) -> tuple[nn.Module, nn.Module]:
    return _unit(dims, channels, channels, 3), _unit(dims, channels, channels, 3)


def _dilated(dims: int, channels: int, rate: int) -> nn.Sequential:
    """3x3x3 convolution, dilated in the plane, and group normalisation."""
    spread = (1, rate, rate)[-dims:]
    return nn.Sequential(conv(dims, channels, channels, 3, dilation=spread), nn.GroupNorm(_groups(channels), channels))


def _groups(channels: int) -> int:
    """32 groups as in the paper; fewer where a small net has no 32 channels to group."""
    return max(n for n in range(1, GROUPS + 1) if channels % n == 0)
