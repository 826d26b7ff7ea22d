"""Networks by name. Each takes (N, C, *spatial) and returns a tuple of logits (N, K, *spatial), the final one first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attentus.nets.attention import listening, taps
from attentus.nets.attention_unet import AttentionUNet, unet
from attentus.nets.classic_unet import ClassicUNet
from attentus.registry import Factory, Registry

if TYPE_CHECKING:
    from torch import nn

__all__ = ["create", "listening", "names", "options", "presets", "taps"]

_NETS: Factory[nn.Module] = Factory(
    "net",
    {
        "attention-unet": AttentionUNet,  # Oktay 2018
        "unet": unet,  # its baseline
        "classic-unet": ClassicUNet,  # comparison nets of the ANU-Net paper, gated or not
    },
    group="attentus.nets",
)

_PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "attention-unet": {
        "paper": {},  # Table 1: 6.40 M parameters
        "release": {"gating": 256, "gate_init": "kaiming"},  # the authors' published code
    },
    "unet": {
        "paper": {},  # Table 1: 5.88 M
        "capacity-match": {"feature_scale": 3.82},  # control of Table 1: 6.44 M
        "huge": {"feature_scale": 3},  # control of Table 1: 10.40 M
    },
    "classic-unet": {
        "anu": {},  # ANU-Net comparison, width 32
        "anu-attention": {"gated": True},
        "wide": {"width": 64, "up": "nearest"},
        "wide-attention": {"width": 64, "up": "nearest", "gated": True},
    },
}


def names() -> list[str]:
    """All nets that `create` knows, plug-ins included."""
    return _NETS.names()


def presets(name: str) -> list[str]:
    """Named sets of options a net was published with."""
    return sorted(_PRESETS.get(name, {}))


def options(name: str) -> dict[str, Any]:
    """The options of a net and their defaults.

    Raises:
        UnknownName: no net of that name.
    """
    return _NETS.options(name)


def create(
    name: str, dims: int, in_channels: int, out_channels: int, *, preset: str | None = None, **chosen: Any
) -> nn.Module:
    """Build a network.

    Args:
        name: see `names()`.
        dims: 2 or 3 spatial axes.
        in_channels: channels of the image.
        out_channels: classes, background included.
        preset: a named set of options, see `presets(name)`; single options override it.
        **chosen: options of the net, see `options(name)`.

    Raises:
        UnknownName: no net or preset of that name.
        BadInput: an option the net does not have, or a value it does not take.
    """
    if preset is not None:
        chosen = {**Registry("preset", _PRESETS.get(name, {})).get(preset), **chosen}
    return _NETS.create(name, dims, in_channels, out_channels, **chosen)
