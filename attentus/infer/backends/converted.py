"""What runtimes other than torch have in common: they run the final output, on the processor, for one batch size."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
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


def on_processor(net: nn.Module) -> nn.Module:
    """The net, or a copy on the processor if it is on a GPU."""
    return net if next(net.parameters()).device.type == "cpu" else copy.deepcopy(net).cpu()


def filled(windows: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
    """Windows (n, C, *spatial) with empty ones behind them until there are as many as a batch has."""
    lacking = [(0, batch - len(windows))] + [(0, 0)] * (windows.ndim - 1)
    return np.ascontiguousarray(np.pad(windows, lacking) if len(windows) < batch else windows)
