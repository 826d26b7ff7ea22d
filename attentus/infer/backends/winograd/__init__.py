"""fp32 with fewer products: 3x3 convolutions by Winograd's algorithm, compiled for the processor at hand.

A direct 3x3 convolution takes 9 products per plane for each result and pair of channels; on a processor that is what
nets spend their time with, and no library does it faster than the processor multiplies. Winograd's F(4x4, 3x3) takes
2.25. Everything else of a net stays torch, so that every net runs.

kernels.c    the arithmetic
compiled.py  compiles and calls it
features.py  memory for what it computes
weights.py   weights as it reads them
layers.py    layers around it
parts.py     what lets them need less memory at once
exchange.py  what they replace in a net
counting.py  how much of a net's work they take over
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.utils import skip_init

from attentus.errors import BadInput
from attentus.infer.backends.converted import on_processor
from attentus.infer.backends.torch_runner import TorchRunner
from attentus.infer.backends.winograd.compiled import kernels, missing
from attentus.infer.backends.winograd.counting import counted, expected_gain
from attentus.infer.backends.winograd.exchange import with_kernels
from attentus.infer.backends.winograd.layers import WinogradConv

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attentus.infer.backends.winograd.compiled import Kernels

__all__ = ["counted", "create", "expected_gain", "kernels", "missing", "with_kernels"]

TOLERANCE = 1e-4
"""Of the largest result; Winograd's sums are rounded more often than direct ones, by 1e-6 to 1e-5."""


def create(net: nn.Module, *, threads: int | None) -> TorchRunner:
    """Make a net ready: a copy of it that shares its weights.

    Args:
        net: in evaluation mode.
        threads: of the processor; None: as many as torch uses.

    Raises:
        BadInput: the kernels cannot be compiled here.
    """
    made = kernels(threads)
    _check(made)
    changed = with_kernels(on_processor(net), made)

    def final(x: Tensor) -> Tensor:
        logits: tuple[Tensor, ...] = changed(x)
        return logits[0]

    return TorchRunner("winograd", final, torch.device("cpu"), bf16=False, threads=threads)


@torch.inference_mode()
def _check(made: Kernels) -> None:
    """Compare a small convolution with torch's, once: compilers err, too.

    Raises:
        BadInput: they differ.
    """
    draw = torch.Generator().manual_seed(0)
    conv: torch.nn.Conv3d = skip_init(torch.nn.Conv3d, 8, 8, 3, padding=1, bias=False)  # type: ignore[no-untyped-call]
    conv.weight.copy_(torch.randn(conv.weight.shape, generator=draw))
    x = torch.randn(1, 8, 8, 32, 32, generator=draw)
    expected = conv(x)
    if float((WinogradConv(conv, made)(x) - expected).abs().max()) > TOLERANCE * float(expected.abs().max()):
        raise BadInput("Backend winograd: the C compiler made something of its kernels that computes wrong results.")
