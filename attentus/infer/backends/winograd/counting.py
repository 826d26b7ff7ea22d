"""How much of a net's work the kernels take over."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from attentus.infer.backends.winograd.exchange import takes_over

if TYPE_CHECKING:
    from collections.abc import Iterator

SPARED = {"fp32": 0.6, "bf16": 0.7}
"""Share of the time of the convolutions that they take over."""


@dataclass
class Products:
    """Multiply-adds of convolutions in a pass."""

    whole: int = 0
    taken_over: int = 0


@contextmanager
def counted(net: nn.Module) -> Iterator[Products]:
    """Count the products of a net's convolutions in what it computes while the block runs."""
    products = Products()

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kernel: Any = layer.kernel_size
        steps = inputs[0] if isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d) else output
        channels = inputs[0].shape[1] * output.shape[1]
        done = channels * math.prod(kernel) * steps.shape[0] * math.prod(steps.shape[2:])
        products.whole += done
        products.taken_over += done if takes_over(layer, inputs[0].shape) else 0

    kinds = nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d
    hooks = [layer.register_forward_hook(count) for layer in net.modules() if isinstance(layer, kinds)]
    try:
        yield products
    finally:
        for hook in hooks:
            hook.remove()


def expected_gain(products: Products, precision: Literal["fp32", "bf16"] = "fp32") -> float:
    """How many times faster than torch in fp32 a pass is expected to be."""
    return 1 / (1 - SPARED[precision] * products.taken_over / max(products.whole, 1))
