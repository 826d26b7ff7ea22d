"""Listen to the attention coefficients of any net while it runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from attentus.nets.parts import AttentionTap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn


def taps(net: nn.Module) -> dict[str, AttentionTap]:
    """Every place where attention can be listened to, by its path in the net ("gates.level4.each.0")."""
    return {
        name.removesuffix(".alpha"): module for name, module in net.named_modules() if isinstance(module, AttentionTap)
    }


@contextmanager
def listening(net: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect the coefficients of the forward passes made inside the `with` block.

    Yields:
        A dict that holds, after each forward pass, the coefficients of that pass by name, each (N, maps, *spatial)
        in the resolution of the features it weighs (1 voxel for channel attention), detached.
    """
    heard: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            heard[name] = output.detach()

        return hook

    points = taps(net)
    handles = [tap.register_forward_hook(keep(name)) for name, tap in points.items()]  # type: ignore[arg-type]
    for tap in points.values():
        tap.heard = True
    try:
        yield heard
    finally:
        for tap in points.values():
            tap.heard = False
        for handle in handles:
            handle.remove()
