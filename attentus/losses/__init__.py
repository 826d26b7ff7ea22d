"""Losses by name. Each takes logits (N, K, *spatial) and a target, and returns a scalar.

The target holds integers (N, *spatial), or for overlapping regions masks (N, K, *spatial); see `losses.targets`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attentus.losses.anu_hybrid import ANUHybridLoss
from attentus.losses.combine import DeepSupervision, DiceCrossEntropyLoss
from attentus.losses.cross_entropy import BinaryCrossEntropyLoss, CrossEntropyLoss, FocalLoss
from attentus.losses.dice import DiceLoss, TverskyLoss
from attentus.losses.targets import regions
from attentus.registry import Factory
from attentus.types import IGNORE

if TYPE_CHECKING:
    from torch import nn

__all__ = ["IGNORE", "DeepSupervision", "create", "names", "regions"]

_LOSSES: Factory[nn.Module] = Factory(
    "loss",
    {
        "anu-hybrid": ANUHybridLoss,
        "bce": BinaryCrossEntropyLoss,
        "cross-entropy": CrossEntropyLoss,
        "dice": DiceLoss,
        "dice-cross-entropy": DiceCrossEntropyLoss,
        "focal": FocalLoss,
        "tversky": TverskyLoss,
    },
    group="attentus.losses",
)


def names() -> list[str]:
    """All losses that `create` knows, plug-ins included."""
    return _LOSSES.names()


def create(name: str, **options: Any) -> nn.Module:
    """Build a loss.

    Raises:
        UnknownName: no loss of that name.
        BadInput: an option the loss does not have, or a value it does not take.
    """
    return _LOSSES.create(name, **options)
