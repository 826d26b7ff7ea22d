"""R2U-Net (Alom et al. 2018) and its gated form: the classic U-Net with recurrent residual blocks.

A baseline of the ANU-Net paper. Recurrence deepens a block without adding weights: the same convolution is applied
t + 1 times, each time to the sum of the block's input and its own last output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from attentus.errors import BadInput
from attentus.nets.classic_unet import ClassicUNet
from attentus.nets.parts import conv, normalise

if TYPE_CHECKING:
    from attentus.nets.parts import Up


def r2u_net(
    dims: int,
    in_channels: int,
    out_channels: int,
    *,
    t: int = 2,
    width: int = 32,
    up: Up = "nearest",
    gated: bool = False,
    gate_floor: int = 1,
) -> ClassicUNet:
    """R2U-Net, or with `gated` Attention R2U-Net; further options as in `ClassicUNet`.

    Args:
        dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes.
        t: how often each unit listens to itself; t + 1 applications of its convolution.
        width: channels of the first level; the published code takes 64.
        up: see `parts.up_step`.
        gated: whether a same-grid gate stands on every skip.
        gate_floor: see `ClassicUNet`.
    """
    if t < 0:
        raise BadInput(f"t counts recurrences and cannot be negative, got {t}.")
    options: dict[str, Any] = {"width": width, "up": up, "gate_floor": gate_floor}
    gate: Any = "same-grid" if gated else "none"
    return ClassicUNet(
        dims, in_channels, out_channels, block=lambda d, i, o: RecurrentResidual(d, i, o, t), gate=gate, **options
    )


def attention_r2u_net(
    dims: int,
    in_channels: int,
    out_channels: int,
    *,
    t: int = 2,
    width: int = 32,
    up: Up = "nearest",
    gate_floor: int = 1,
) -> ClassicUNet:
    """Attention R2U-Net: `r2u_net` with a same-grid gate on every skip."""
    return r2u_net(dims, in_channels, out_channels, t=t, width=width, up=up, gated=True, gate_floor=gate_floor)


class RecurrentResidual(nn.Module):
    """x + Rec(Rec(x)), after a 1x1 convolution has set the width; nothing after the sum.

    input    (N, in_channels, *spatial)
    returns  (N, out_channels, *spatial)
    """

    def __init__(self, dims: int, in_channels: int, out_channels: int, t: int) -> None:
        super().__init__()
        self.widen = conv(dims, in_channels, out_channels, 1)
        self.units = nn.Sequential(Recurrent(dims, out_channels, t), Recurrent(dims, out_channels, t))

    def forward(self, x: Tensor) -> Tensor:
        """Two recurrent units with a way around them."""
        x = self.widen(x)
        return x + self.units(x)  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """y = C(x), then t times y = C(x + y); C is one 3x3(x3) convolution, normalised and rectified."""

    def __init__(self, dims: int, channels: int, t: int) -> None:
        super().__init__()
        self.t = t
        self.unit = nn.Sequential(conv(dims, channels, channels, 3), normalise(dims, channels), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) to the same shape."""
        y: Tensor = self.unit(x)
        for _ in range(self.t):
            y = self.unit(x + y)
        return y
