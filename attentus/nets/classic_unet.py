"""The classic U-Net and its relatives in the papers' comparisons: same-grid gates, recurrent blocks, 3D with gates.

Five levels, each half as fine and twice as wide as the one above, two convolutions per level, skips concatenated.
The comparison nets of the ANU-Net and MSConvLSTM-Att papers and the 3D U-Net of the DPC-Net paper are this one net:

- `classic-unet`: plain, or with a same-grid gate on every skip (the "Attention U-Net" of the ANU-Net tables; not
  the grid gates of Oktay et al. in `attention_unet.py`, which go by the same name: 7.86 M against 6.41 M parameters);
- `r2u-net`, `attention-r2u-net`: the same with recurrent residual blocks (`r2u_net.py`);
- `unet-3d`: width 32, plain transposed convolutions, with heads on all levels or grid gates if asked for.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from attentus.nets.anu_net import SameGridGate
from attentus.nets.attention_unet import GridGate, gating_signal
from attentus.nets.parts import Norm, Up, double_conv, max_pool, one_of, pad_to_multiple, up_step
from attentus.nets.pyramid import Pyramid, crop_level, level_heads

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

LEVELS = 5

Gate = Literal["none", "same-grid", "grid"]
Heads = Literal["finest", "pyramid"]


class ClassicUNet(nn.Module):
    """U-Net of five levels.

    input    (N, in_channels, *spatial), any size: padded inside to multiples of 16 and cropped back
    returns  a tuple of logits, (N, out_channels, *spatial) first; with pyramid heads, in training, one per level,
             each half as fine as the one before

    Args:
        dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes.
        block: makes the block of a level from (dims, in_channels, out_channels).
        width: channels of the first level.
        up: see `parts.up_step`.
        norm: normalisation after every convolution; "none" leaves it out.
        gate: "same-grid" gates every skip; "grid" gates all but the finest, by a signal from the bottom of the U.
        gate_floor: smallest inner width of a same-grid gate, which is otherwise half the width of its skip.
        heads: "finest" reads one output; "pyramid" supervises an output of every level.
    """

    multiple = 2 ** (LEVELS - 1)

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        block: Callable[[int, int, int], nn.Module],
        width: int,
        up: Up,
        norm: Norm = "batch",
        gate: Gate = "none",
        gate_floor: int = 1,
        heads: Heads = "finest",
    ) -> None:
        super().__init__()
        one_of("gate", gate, ("none", "same-grid", "grid"))
        one_of("heads", heads, ("finest", "pyramid"))
        one_of("up", up, ("transposed", "transposed-plain", "nearest"))
        one_of("norm", norm, ("batch", "instance", "none"))
        widths = [width * 2**level for level in range(LEVELS)]
        steps = list(pairwise(widths[::-1]))  # (coarse, fine) channels from the bottom up
        encoder = [block(dims, i, o) for i, o in pairwise([in_channels, *widths])]
        self.pyramid = Pyramid(
            [encoder[0], *(nn.Sequential(max_pool(dims), stage) for stage in encoder[1:])],
            [up_step(dims, coarse, fine, up, norm) for coarse, fine in steps],
            [block(dims, 2 * fine, fine) for _, fine in steps],
            gates=_gates(dims, widths, gate, gate_floor),
            gating=gating_signal(dims, widths[-1], widths[-2]) if gate == "grid" else None,
        )
        self.heads = level_heads(dims, widths if heads == "pyramid" else widths[:1], out_channels)
        self.supervision = tuple(1 / (2**i * LEVELS) for i in range(LEVELS)) if heads == "pyramid" else (1.0,)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, *spatial) to a tuple of (N, out_channels, *spatial), coarser levels after it."""
        size = x.shape[2:]
        features = self.pyramid(pad_to_multiple(x, self.multiple))
        heads = list(self.heads) if self.training else [self.heads[0]]
        return tuple(
            crop_level(head(feature), size, level)
            for level, (head, feature) in enumerate(zip(heads, features, strict=False))
        )


def classic_unet(
    dims: int,
    in_channels: int,
    out_channels: int,
    *,
    width: int = 32,
    up: Up = "transposed",
    norm: Norm = "batch",
    gated: bool = False,
    gate_floor: int = 1,
) -> ClassicUNet:
    """The plain U-Net, or with `gated` the Attention U-Net of the comparison. Options as in `ClassicUNet`."""
    gate: Gate = "same-grid" if gated else "none"
    return ClassicUNet(
        dims,
        in_channels,
        out_channels,
        block=lambda dims, i, o: double_conv(dims, i, o, norm),
        width=width,
        up=up,
        norm=norm,
        gate=gate,
        gate_floor=gate_floor,
    )


def unet_3d(
    dims: int, in_channels: int, out_channels: int, *, width: int = 32, gated: bool = False, heads: Heads = "finest"
) -> ClassicUNet:
    """The 3D U-Net of the DPC-Net paper (Table 4); `gated` adds grid gates, "pyramid" heads deep supervision."""
    options: dict[str, Any] = {"width": width, "gate": "grid" if gated else "none", "heads": heads}
    return ClassicUNet(dims, in_channels, out_channels, block=double_conv, up="transposed-plain", **options)


def _gates(dims: int, widths: list[int], kind: Gate, floor: int) -> dict[str, nn.Module]:
    if kind == "same-grid":
        return {f"level{i}": SameGridGate(dims, c, max(floor, c // 2)) for i, c in enumerate(widths[:-1])}
    if kind == "grid":
        return {f"level{i}": GridGate(dims, c, widths[-2]) for i, c in enumerate(widths[:-1]) if i}
    return {}
