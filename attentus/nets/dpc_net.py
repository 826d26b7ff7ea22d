"""DPC-Net (Zhang et al., "Deep Pyramid Correlation Network", 2022): a pyramid whose levels are correlated twice.

A U-Net whose every level predicts (the pyramid feature encoder, PFE). Spatial correlation (SpaCor, Eq. 4-6) weighs
each level's voxels by what it and the next finer level show; semantic correlation (SemCor, Eq. 7-9) weighs its
channels by what it and the next coarser level contain. Every map of every stage is supervised.

The paper contradicts itself about the two squeezes. `design="table4"` is the reading whose parameter counts agree
with Table 4 (+0.43 M, +0.09 M); `design="equations"` is the text taken word for word (docs/papers).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attentus.errors import BadInput
from attentus.nets.parts import (
    SLOPE,
    AttentionTap,
    conv,
    he_initialise,
    leaky_double_conv,
    one_of,
    pad_to_multiple,
    resize,
    transposed,
)
from attentus.nets.pyramid import Pyramid, crop_level, level_heads, plain_pyramid

if TYPE_CHECKING:
    from collections.abc import Sequence

PFE_WIDTHS = (32, 64, 128, 256, 320)
PLAIN_WIDTHS = (32, 64, 128, 256, 512)

Design = Literal["table4", "equations"]
Pools = tuple[str, ...]


class DPCNet(nn.Module):
    """Pyramid of features, correlated over space and over channels.

    input    (N, in_channels, *spatial), any size: padded inside to multiples of 2^(levels-1) and cropped back
    returns  a tuple of logits: in training one per supervised map, the one that inference reads first, the others
             from fine to coarse (`outputs` names them, level i has ceil(n / 2^i) voxels of a side of n); in
             evaluation the final one, (N, out_channels, *spatial)

    Args:
        dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes, background included; the paper has 3.
        design: how the correlations squeeze; see above.
        pfe: the paper's encoder (instance normalisation, strided convolutions); False takes the 3D U-Net baseline.
        spacor: whether levels are correlated over space.
        semcor: whether levels are correlated over channels.
        order: which comes first.
        recursive: whether a level is correlated with its already correlated neighbour.
        spa_pools, sem_pools: what the squeezes keep: "avg", "max" or both (Table 1).
        infer_from: "sem0", "pfe0", or "mean" of the finest maps of all stages; None takes the last refined map of
            full resolution, or the mean of "pfe0" and "spa1" where SpaCor is alone.
        widths: channels per level; None takes the paper's.
        down: how the PFE halves: "strided2" by a 2x2x2 convolution between levels, "strided3" by the first 3x3x3
            convolution of a level (nnU-Net's way).
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        design: Design = "table4",
        pfe: bool = True,
        spacor: bool = True,
        semcor: bool = True,
        order: Literal["spa_first", "sem_first"] = "spa_first",
        recursive: bool = False,
        spa_pools: Sequence[str] = ("avg", "max"),
        sem_pools: Sequence[str] = ("avg", "max"),
        infer_from: Literal["sem0", "pfe0", "mean"] | None = None,
        widths: Sequence[int] | None = None,
        down: Literal["strided2", "strided3"] = "strided2",
    ) -> None:
        super().__init__()
        one_of("design", design, ("table4", "equations"))
        one_of("order", order, ("spa_first", "sem_first"))
        one_of("infer_from", infer_from, ("sem0", "pfe0", "mean", None))
        one_of("down", down, ("strided2", "strided3"))
        if infer_from == "sem0" and not semcor:
            raise BadInput("infer_from='sem0' needs semcor=True: that is the map it reads.")
        widths = list(widths or (PFE_WIDTHS if pfe else PLAIN_WIDTHS))
        self.widths, last = tuple(widths), len(widths) - 1
        self.multiple = 2**last
        self.order, self.recursive = order, recursive
        self.pyramid = _pfe(dims, in_channels, widths, down) if pfe else plain_pyramid(dims, in_channels, widths)
        pairs = list(enumerate(pairwise(widths)))
        self.spacor = nn.ModuleDict(
            {f"level{i + 1}": SpaCor(dims, coarse, design, _pools(spa_pools)) for i, (_, coarse) in pairs if spacor}
        )
        self.semcor = nn.ModuleDict(
            {
                f"level{i}": SemCor(dims, fine, coarse, design, _pools(sem_pools))
                for i, (fine, coarse) in pairs
                if semcor
            }
        )
        self.heads = nn.ModuleDict({"pfe": level_heads(dims, widths, out_channels)})
        if spacor:
            self.heads["spa"] = level_heads(dims, widths[1:], out_channels)
        if semcor:
            self.heads["sem"] = level_heads(dims, widths[:-1], out_channels)
        self.infer_from = infer_from or ("sem0" if semcor else "mean" if spacor else "pfe0")
        self.outputs = self._outputs(last)
        self.supervision = tuple(1 / (2 ** int(name[3:]) * len(widths)) for name in self.outputs)  # Eq. 13
        he_initialise(self, SLOPE if pfe else 0.0)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, *spatial) to a tuple of (N, out_channels, *level)."""
        size = x.shape[2:]
        features = self.pyramid(pad_to_multiple(x, self.multiple))
        maps = {"pfe": features, **self._correlate(features)}
        if self.training:
            return tuple(crop_level(self._logits(maps, name), size, int(name[3:])) for name in self.outputs)
        return (crop_level(self._final(maps), size, 0),)

    def _correlate(self, features: list[Tensor]) -> dict[str, list[Tensor]]:
        """F^spa and F^sem; a level that a stage does not reach keeps what it had."""
        if self.order == "spa_first":
            spa = self._over_space(features)
            return {"spa": spa, "sem": self._over_channels(spa)}
        sem = self._over_channels(features)
        return {"sem": sem, "spa": self._over_space(sem)}

    def _over_space(self, features: list[Tensor]) -> list[Tensor]:
        refined = list(features)
        for i in range(1, len(features)):
            finer = refined[i - 1] if self.recursive else features[i - 1]
            refined[i] = self.spacor[f"level{i}"](features[i], finer) if self.spacor else features[i]
        return refined

    def _over_channels(self, features: list[Tensor]) -> list[Tensor]:
        refined = list(features)
        for i in reversed(range(len(features) - 1)):
            coarser = refined[i + 1] if self.recursive else features[i + 1]
            refined[i] = self.semcor[f"level{i}"](features[i], coarser) if self.semcor else features[i]
        return refined

    def _logits(self, maps: dict[str, list[Tensor]], name: str) -> Tensor:
        """Logits of a map by its name, "spa1"; SpaCor has no level 0, so its heads begin at 1."""
        stage, level = name[:3], int(name[3:])
        head = self.heads[stage][level - 1 if stage == "spa" else level]  # type: ignore[index]
        return head(maps[stage][level])  # type: ignore[no-any-return]

    def _final(self, maps: dict[str, list[Tensor]]) -> Tensor:
        if self.infer_from != "mean":
            return self._logits(maps, self.infer_from)
        finest = [f"{stage}{1 if stage == 'spa' else 0}" for stage in self.heads]
        full = maps["pfe"][0].shape[2:]
        shares = [resize(torch.softmax(self._logits(maps, name), 1), full) for name in finest]
        return torch.log(torch.stack(shares).mean(0).clamp_min(torch.finfo(shares[0].dtype).tiny))

    def _outputs(self, last: int) -> tuple[str, ...]:
        levels = {"pfe": range(last + 1), "spa": range(1, last + 1), "sem": range(last)}
        names = [f"{stage}{i}" for i in range(last + 1) for stage in ("sem", "spa", "pfe") if i in levels[stage]]
        existing = [name for name in names if name[:3] in self.heads]
        first = self.infer_from if self.infer_from in existing else "pfe0"
        return (first, *(name for name in existing if name != first))


class SpaCor(nn.Module):
    """Spatial correlation of a level with the next finer one (Eq. 4-6).

    level    (N, C, *spatial)
    finer    (N, any, *2 spatial)
    returns  (N, C, *spatial)

    The level is brought up, squeezed over channels together with the finer one, and a small convolutional net makes
    coefficients of the squeeze; the weighed features are averaged back down. As the repeated voxels are equal and g
    is a 1x1x1 convolution, that is g(level) times the averaged coefficients, which never needs the level's channels
    at the finer size twice.
    """

    def __init__(self, dims: int, channels: int, design: Design, pools: Pools) -> None:
        super().__init__()
        self.pools, self.stacked = pools, design == "table4"
        squeezed = len(pools) if self.stacked else 1
        self.net = nn.Sequential(
            conv(dims, squeezed, channels, 3), nn.LeakyReLU(SLOPE, inplace=True), conv(dims, channels, 1, 3)
        )
        self.g = conv(dims, channels, channels, 1)
        self.alpha = AttentionTap(made_by=["net"])

    def forward(self, level: Tensor, finer: Tensor) -> Tensor:
        """Weigh the voxels of the level."""
        alpha = None if self.alpha.left_out else self._coefficients(level, finer)
        return self.alpha(alpha, self.g(level))  # type: ignore[no-any-return]

    def _coefficients(self, level: Tensor, finer: Tensor) -> Tensor:
        """(N, 1, *spatial)."""
        alpha = torch.sigmoid(self.net(self._squeeze(level, finer)))  # (N, 1, *2 spatial)
        return F.avg_pool3d(alpha, 2) if alpha.ndim == 5 else F.avg_pool2d(alpha, 2)

    def _squeeze(self, level: Tensor, finer: Tensor) -> Tensor:
        """Mean and maximum over the channels of both, (N, 1 or 2, *2 spatial)."""
        squeezed = []
        if "avg" in self.pools:
            total = _double(level.sum(1, keepdim=True)) + finer.sum(1, keepdim=True)
            squeezed.append(total / (level.shape[1] + finer.shape[1]))
        if "max" in self.pools:
            squeezed.append(torch.maximum(_double(level.amax(1, keepdim=True)), finer.amax(1, keepdim=True)))
        return torch.cat(squeezed, dim=1) if self.stacked else torch.stack(squeezed).sum(0)


class SemCor(nn.Module):
    """Semantic correlation of a level with the next coarser one (Eq. 7-9).

    level    (N, C, *spatial)
    coarser  (N, any, *spatial / 2)
    returns  (N, C, *spatial)

    "table4": one small net for the means and the maxima of all channels, its two answers added, as in CBAM.
    "equations": one net for both at once, and a 1x1x1 convolution of what is weighed.
    """

    def __init__(self, dims: int, channels: int, coarser_channels: int, design: Design, pools: Pools) -> None:
        super().__init__()
        self.pools, self.shared = pools, design == "table4"
        both = channels + coarser_channels
        inner = max(1, channels // 4) if self.shared else channels
        self.net = nn.Sequential(
            nn.Linear(both if self.shared else len(pools) * both, inner),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Linear(inner, channels),
        )
        self.g = nn.Identity() if self.shared else conv(dims, channels, channels, 1)
        self.alpha = AttentionTap("channel", made_by=["net"])

    def forward(self, level: Tensor, coarser: Tensor) -> Tensor:
        """Weigh the channels of the level."""
        alpha = None if self.alpha.left_out else self._coefficients(level, coarser)
        return self.alpha(alpha, self.g(level))  # type: ignore[no-any-return]

    def _coefficients(self, level: Tensor, coarser: Tensor) -> Tensor:
        """(N, C, 1, ...)."""
        squeezed = [torch.cat([_POOLS[pool](x.flatten(2)) for x in (level, coarser)], dim=1) for pool in self.pools]
        score = torch.stack([self.net(s) for s in squeezed]).sum(0) if self.shared else self.net(torch.cat(squeezed, 1))
        return torch.sigmoid(score).view(*score.shape, *[1] * (level.ndim - 2))


def _mean(x: Tensor) -> Tensor:
    return x.mean(2)


def _maximum(x: Tensor) -> Tensor:
    return x.amax(2)


_POOLS = {"avg": _mean, "max": _maximum}


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _pools(chosen: Sequence[str]) -> Pools:
    pools = tuple(chosen)
    one_of("spa_pools or sem_pools", pools, (("avg",), ("max",), ("avg", "max")))
    return pools


def _pfe(dims: int, in_channels: int, widths: Sequence[int], down: str) -> Pyramid:
    """Pyramid feature encoder: instance normalisation, LeakyReLU, strided convolutions instead of pooling."""
    encoder: list[nn.Module] = []
    for level, (before, width) in enumerate(pairwise([in_channels, *widths])):
        halve = [conv(dims, before, before, 2, stride=2)] if level and down == "strided2" else []
        stride = 2 if level and down == "strided3" else 1
        encoder.append(nn.Sequential(*halve, leaky_double_conv(dims, before, width, stride)))
    steps = list(pairwise(widths[::-1]))
    ups = [transposed(dims, coarse, fine) for coarse, fine in steps]
    decoder = [leaky_double_conv(dims, 2 * fine, fine) for _, fine in steps]
    return Pyramid(encoder, ups, decoder, skip_first=False)
