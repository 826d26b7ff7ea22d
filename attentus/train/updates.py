"""What changes the weights: the optimiser, and a running mean of the weights beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from attentus.errors import RecipeError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn
    from torch.optim import Optimizer

    from attentus.recipes import Train


def optimiser(how: Train, net: nn.Module) -> Optimizer:
    """The optimiser of a recipe's `train` section, for the weights that are not frozen."""
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    rate, decay = how.learning_rate, how.weight_decay
    if how.optimiser == "sgd":
        return torch.optim.SGD(weights, rate, how.momentum, weight_decay=decay, nesterov=how.momentum > 0)
    kind = torch.optim.Adam if how.optimiser == "adam" else torch.optim.AdamW
    return kind(weights, rate, weight_decay=decay)


def trainable(net: nn.Module) -> int:
    """Number of weights that training may change."""
    return sum(weight.numel() for weight in net.parameters() if weight.requires_grad)


def running_mean(how: Train, net: nn.Module) -> AveragedModel | None:
    """A copy of the net whose weights and buffers follow it slowly; None where `train.ema` is 0."""
    if not how.ema:
        return None
    follow = get_ema_multi_avg_fn(how.ema)  # type: ignore[no-untyped-call]
    return AveragedModel(net, multi_avg_fn=follow, use_buffers=True)


def freeze(net: nn.Module, beginnings: Sequence[str]) -> list[str]:
    """Keep weights as they are.

    Args:
        net: whose weights.
        beginnings: names, or beginnings of names up to a dot: "encoder" means encoder.0.weight, too.

    Returns:
        Names of the frozen weights.

    Raises:
        RecipeError: a beginning that fits no weight, or nothing left to train.
    """
    names = [name for name, _ in net.named_parameters()]
    for start in beginnings:
        if not any(_begins(name, start) for name in names):
            known = list(dict.fromkeys(name.split(".")[0] for name in names))
            raise RecipeError(
                f"start.freeze: no weight of the net begins with '{start}'.{did_you_mean(start, known)}"
                f"\n  Its parts are {', '.join(known)}."
            )
    frozen = [name for name in names if any(_begins(name, start) for start in beginnings)]
    if len(frozen) == len(names):
        raise RecipeError("start.freeze: nothing is left to train; freeze less.")
    for name, weight in net.named_parameters():
        weight.requires_grad_(name not in frozen)
    return frozen


def _begins(name: str, start: str) -> bool:
    return name == start or name.startswith(start.rstrip(".") + ".")
