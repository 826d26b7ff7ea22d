"""What runtimes other than torch have in common: they run the final output, on the processor, for one batch size."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


class FinalOutput(nn.Module):
    """The first of a net's outputs: what inference reads."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) to the final logits (N, K, *spatial)."""
        logits: tuple[Tensor, ...] = self.net(x)
        return logits[0]


class BlockwiseNorm(nn.Module):
    """Instance normalisation whose sums are taken block by block.

    OpenVINO adds up a whole map in single precision, one number after another: over 128 cubed voxels the variance is
    off by 1e-4, and after some layers logits are by 1e-3. Means of blocks first cost a tenth of the time and are 100
    times closer.

    Args:
        norm: what it stands for; affine or not.
    """

    def __init__(self, norm: nn.InstanceNorm2d | nn.InstanceNorm3d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial), each map to mean 0 and variance 1, then scaled and shifted."""
        centred = x - _mean(x)
        factor = torch.rsqrt(_mean(centred * centred) + self.norm.eps)
        if not self.norm.affine:
            return centred * factor
        along = (1, -1, *[1] * (x.ndim - 2))
        return centred * (factor * self.norm.weight.view(along)) + self.norm.bias.view(along)


def _mean(x: Tensor) -> Tensor:
    """Of each map, (N, C, 1, ...), by blocks of up to eight along every axis."""
    block = [math.gcd(n, 8) for n in x.shape[2:]]
    pool = F.avg_pool2d if x.ndim == 4 else F.avg_pool3d
    return pool(x, block).mean(tuple(range(2, x.ndim)), keepdim=True)


def sums_maps(module: nn.Module) -> TypeGuard[nn.InstanceNorm2d | nn.InstanceNorm3d]:
    """Whether a layer is an instance normalisation that takes its statistics from what it sees."""
    return isinstance(module, nn.InstanceNorm2d | nn.InstanceNorm3d) and not module.track_running_stats


def blockwise(net: nn.Module) -> nn.Module:
    """A copy of a net whose instance normalisations take their sums by blocks."""
    changed = copy.deepcopy(net)
    for module in list(changed.modules()):
        for name, child in list(module.named_children()):
            if sums_maps(child):
                setattr(module, name, BlockwiseNorm(child))
    return changed


def on_processor(net: nn.Module) -> nn.Module:
    """The net, or a copy on the processor if it is on a GPU."""
    return net if next(net.parameters()).device.type == "cpu" else copy.deepcopy(net).cpu()


def filled(windows: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
    """Windows (n, C, *spatial) with empty ones behind them until there are as many as a batch has."""
    lacking = [(0, batch - len(windows))] + [(0, 0)] * (windows.ndim - 1)
    return np.ascontiguousarray(np.pad(windows, lacking) if len(windows) < batch else windows)
