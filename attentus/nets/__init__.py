"""Networks by name. Each takes (N, C, *spatial) and returns a tuple of logits (N, K, *spatial), the final one first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attentus.errors import BadInput
from attentus.nets.attention import leave_out, left_out, listening, makers, parameters_of, replacing, taps, watching
from attentus.nets.card import Card, Preset
from attentus.nets.catalogue import CARDS
from attentus.nets.cost import AttentionPoint, Cost, attention_points, cost
from attentus.nets.recompute import recomputing
from attentus.registry import Factory, Registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

__all__ = [
    "AttentionPoint",
    "Card",
    "Cost",
    "Preset",
    "attention_points",
    "card",
    "cost",
    "create",
    "leave_out",
    "left_out",
    "listening",
    "makers",
    "names",
    "options",
    "parameters_of",
    "presets",
    "replacing",
    "spelt_out",
    "taps",
    "watching",
]

_NETS: Factory[nn.Module] = Factory("net", {name: card.build for name, card in CARDS.items()}, group="attentus.nets")


def names() -> list[str]:
    """All nets that `create` knows, plug-ins included."""
    return _NETS.names()


def card(name: str) -> Card | None:
    """Paper, published input and presets of a built-in net; None for plug-ins."""
    return CARDS.get(name)


def presets(name: str) -> list[str]:
    """Named sets of options a net was published with."""
    return sorted(CARDS[name].presets) if name in CARDS else []


def options(name: str) -> dict[str, Any]:
    """The options of a net and their defaults.

    Raises:
        UnknownName: no net of that name.
    """
    return _NETS.options(name)


def spelt_out(name: str, chosen: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Net and options that are built, given a net and options that may name a preset.

    Raises:
        UnknownName: no preset of that name.
    """
    options = dict(chosen)
    preset = options.pop("preset", None)
    if preset is None:
        return name, options
    named = Registry("preset", CARDS[name].presets if name in CARDS else {}).get(preset)
    return named.net or name, {**named.options, **options}


def create(
    name: str,
    dims: int,
    in_channels: int,
    out_channels: int,
    *,
    preset: str | None = None,
    checkpoint: bool = False,
    without: Sequence[str] = (),
    **chosen: Any,
) -> nn.Module:
    """Build a network.

    Args:
        name: see `names()`.
        dims: 2 or 3 spatial axes.
        in_channels: channels of the image.
        out_channels: classes, background included.
        preset: a named set of options, see `presets(name)`; single options override it.
        checkpoint: train with less memory and more time (activation checkpointing): blocks keep only their inputs
            and are computed again on the way back. Same gradients; see `nets.recompute`.
        without: attention modules to leave out, as `taps(net)` names them; see `leave_out`.
        **chosen: options of the net, see `options(name)`.

    Raises:
        UnknownName: no net, preset or attention module of that name.
        BadInput: an option the net does not have, or a value it does not take.
    """
    if min(in_channels, out_channels) < 1:
        raise BadInput(f"A net needs at least one channel in and one out, got {in_channels} and {out_channels}.")
    name, chosen = spelt_out(name, {"preset": preset, **chosen})
    net = leave_out(_NETS.create(name, dims, in_channels, out_channels, **chosen), without)
    return recomputing(net) if checkpoint else net
