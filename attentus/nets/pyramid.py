"""The frame that most U-Nets share: down through an encoder, up through a decoder, skips across, gated or not."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor, nn

from attentus.nets.parts import Concatenate, conv, crop_to, double_conv, max_pool, transposed

if TYPE_CHECKING:
    from collections.abc import Sequence


class Pyramid(nn.Module):
    """Encoder and decoder with skips; gives the features of every level.

    input    (N, C, *spatial), every side a multiple of 2^(levels - 1)
    returns  features F_0 (finest) ... F_last (bottom of the U), each half as large as the one before

    Args:
        encoder: one module per level, finest first; each but the first halves its input itself.
        ups: one per step up, from the bottom; each doubles its input.
        decoder: one per step up, from the bottom; each takes skip and upsampled features, concatenated.
        gates: by level ("level1" is the second finest); each is called with (skip, signal) and returns the skip
            weighed. Levels without a gate pass their skip on.
        gating: makes one gating signal for all gates from the bottom of the U; None lets every gate listen to the
            upsampled features that its skip will meet.
        skip_first: whether the concatenation begins with the skip.
    """

    def __init__(
        self,
        encoder: Sequence[nn.Module],
        ups: Sequence[nn.Module],
        decoder: Sequence[nn.Module],
        *,
        gates: dict[str, nn.Module] | None = None,
        gating: nn.Module | None = None,
        skip_first: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(encoder)
        self.ups = nn.ModuleList(ups)
        self.decoder = nn.ModuleList(decoder)
        self.gates = nn.ModuleDict(gates or {})
        self.gating = gating
        self.skip_first = skip_first
        self.join = Concatenate()

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, *spatial) to the features of all levels, finest first."""
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        features = [skips.pop()]  # the bottom
        signal = self.gating(x) if self.gating is not None else None
        for up, block in zip(self.ups, self.decoder, strict=True):
            features.append(block(self._join(f"level{len(skips) - 1}", skips.pop(), up(features[-1]), signal)))
        return features[::-1]

    def _join(self, level: str, skip: Tensor, risen: Tensor, signal: Tensor | None) -> Tensor:
        """What a block of the decoder sees. Apart from `forward`, so that neither part outlives the joint copy."""
        if level in self.gates:
            skip = self.gates[level](skip, risen if signal is None else signal)
        joint: Tensor = self.join(skip, risen) if self.skip_first else self.join(risen, skip)
        return joint


def level_heads(dims: int, widths: Sequence[int], out_channels: int) -> nn.ModuleList:
    """A 1x1 convolution to the classes for every level, finest first."""
    return nn.ModuleList(conv(dims, width, out_channels, 1) for width in widths)


def crop_level(x: Tensor, size: Sequence[int], level: int) -> Tensor:
    """Crop the output of a level of a padded input back to what belongs to the input of that spatial size.

    Level i keeps ceil(n / 2^i) voxels of a side of n, as many as `labels[::2^i]` has.
    """
    return crop_to(x, [-(-n // 2**level) for n in size])


def plain_pyramid(dims: int, in_channels: int, widths: Sequence[int]) -> Pyramid:
    """The body of the 3D U-Net baseline: batch normalisation, ReLU, max pooling."""
    first, *others = (double_conv(dims, i, o) for i, o in pairwise([in_channels, *widths]))
    steps = list(pairwise(widths[::-1]))
    return Pyramid(
        [first, *(nn.Sequential(max_pool(dims), block) for block in others)],
        [transposed(dims, coarse, fine) for coarse, fine in steps],
        [double_conv(dims, 2 * fine, fine) for _, fine in steps],
    )
