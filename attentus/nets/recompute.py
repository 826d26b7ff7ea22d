"""Train with less memory: forget what happens inside a net's blocks and compute it again on the way back."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def recomputing(net: nn.Module) -> nn.Module:
    """The same net, which in training keeps only what goes into its blocks; loss and gradients stay as they are.

    Parameters and their names do not change; nothing changes in evaluation. Costs one more forward pass per step.
    """
    for block in dict.fromkeys(_blocks(net)):
        block.forward = partial(_recomputed, block, block.forward)
    return net


def _blocks(module: nn.Module, *, listed: bool = False) -> Iterator[nn.Module]:
    """Sequences of layers, and whatever else of several layers stands in a list: the outermost ones of a net."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _blocks(child, listed=True)
        elif isinstance(child, nn.Sequential) or (listed and any(child.children())):
            yield child
        else:
            yield from _blocks(child)


def _recomputed(block: nn.Module, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    if not block.training or not torch.is_grad_enabled():
        return forward(*inputs, **named)

    def contexts() -> tuple[Any, Any]:
        return nullcontext(), _statistics_kept(block)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **named)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Batch normalisations see the batch a second time meanwhile: they must not count it twice."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked
