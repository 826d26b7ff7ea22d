"""Losses by name. Each takes logits (N, K, *spatial) and integers (N, *spatial) and returns a scalar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attentus.losses.combine import DeepSupervision, DiceCrossEntropyLoss
from attentus.losses.cross_entropy import CrossEntropyLoss
from attentus.losses.dice import DiceLoss
from attentus.registry import Factory

if TYPE_CHECKING:
    from torch import nn

__all__ = ["DeepSupervision", "create", "names"]

_LOSSES: Factory[nn.Module] = Factory(
    "loss",
    {"dice": DiceLoss, "cross-entropy": CrossEntropyLoss, "dice-cross-entropy": DiceCrossEntropyLoss},
    group="attentus.losses",
)


def names() -> list[str]:
    """All losses that `create` knows, plug-ins included."""
    return _LOSSES.names()


def create(name: str, **options: Any) -> nn.Module:
    """Build a loss.

    Raises:
        UnknownName: no loss of that name.
        BadInput: an option the loss does not have.
    """
    return _LOSSES.create(name, **options)
