"""What a network costs: parameters, floating-point operations, and where its attention sits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

from attentus.nets.attention import listening, taps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn


@dataclass(frozen=True)
class Cost:
    """Price of one forward pass.

    Args:
        parameters: trainable numbers.
        flops: floating-point operations of convolutions and matrix products, two per multiply-add.
    """

    parameters: int
    flops: int


@dataclass(frozen=True)
class AttentionPoint:
    """One place where attention can be listened to.

    Args:
        name: its path in the net.
        kind: "gate", "channel" or "received", see `nets.parts.AttentionTap`.
        maps: how many maps (or channels) pass by.
        size: their resolution, (z, y, x) or (y, x); ones for channel attention.
    """

    name: str
    kind: str
    maps: int
    size: tuple[int, ...]


def cost(net: nn.Module, in_channels: int, size: Sequence[int]) -> Cost:
    """Count parameters and the operations of one forward pass in evaluation; a net on the meta device costs no time.

    Args:
        net: any net.
        in_channels: channels of the input.
        size: spatial size of the input.
    """
    with FlopCounterMode(display=False) as counter:
        _forward(net, in_channels, size)
    return Cost(sum(p.numel() for p in net.parameters() if p.requires_grad), counter.get_total_flops())


def attention_points(net: nn.Module, in_channels: int, size: Sequence[int]) -> list[AttentionPoint]:
    """Every place where attention can be listened to, with its resolution for an input of that size."""
    with listening(net) as heard:
        _forward(net, in_channels, size)
    kinds = {name: tap.kind for name, tap in taps(net).items()}
    return [AttentionPoint(name, kinds[name], maps.shape[1], tuple(maps.shape[2:])) for name, maps in heard.items()]


def _forward(net: nn.Module, in_channels: int, size: Sequence[int]) -> None:
    was_training = net.training
    net.eval()
    try:
        with torch.no_grad():
            net(torch.empty(1, in_channels, *size, device=next(net.parameters()).device))
    finally:
        net.train(was_training)
