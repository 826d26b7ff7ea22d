"""Fewer products, in fp32 or bf16: 3x3 convolutions by Winograd's algorithm, compiled for the processor at hand.

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

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils import skip_init

from attentus.errors import Unusable
from attentus.infer.backends.converted import on_processor
from attentus.infer.backends.torch_runner import TorchRunner
from attentus.infer.backends.winograd.compiled import beside, kernels, missing
from attentus.infer.backends.winograd.counting import counted, expected_gain
from attentus.infer.backends.winograd.exchange import with_kernels
from attentus.nets.parts import Resize

if TYPE_CHECKING:
    from concurrent.futures import Future

    from torch import Tensor

__all__ = ["begin", "counted", "create", "expected_gain", "kernels", "missing", "with_kernels"]

TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2}
"""Of the largest result. Winograd's sums are rounded more often than direct ones: by 1e-6 to 1e-5 in fp32, by 0.016
in bf16, as far as seen."""


def begin(*, bf16: bool = False) -> None:
    """Compile and check the kernels beside what comes next; nothing happens where they cannot be compiled.

    Args:
        bf16: round to bf16 what is multiplied.
    """
    if not missing(bf16=bf16):
        checking(bf16)


def create(net: nn.Module, batch: int, *, bf16: bool = False, threads: int | None) -> TorchRunner:
    """Make a net ready: a copy of it that shares its weights.

    Args:
        net: in evaluation mode.
        batch: windows at once, at most.
        bf16: round to bf16 what is multiplied.
        threads: of the processor; None: as many as torch uses.

    Raises:
        Unusable: the kernels cannot be compiled here, or compute something else than they should.
    """
    made = kernels(threads, bf16=bf16)
    checking(bf16).result()
    changed = with_kernels(on_processor(net), made)

    def final(x: Tensor) -> Tensor:
        made.features.serve(x.shape[2:])
        made.short = batch / len(x)
        logits: tuple[Tensor, ...] = changed(x)
        return logits[0]

    return TorchRunner("winograd-bf16" if bf16 else "winograd", final, torch.device("cpu"), bf16=False, threads=threads)


@cache
def checking(bf16: bool) -> Future[None]:  # noqa: FBT001
    """`_check`, on a thread of its own and only once: torch's first convolution alone takes a third of a second."""
    return beside(_check, bf16)


@torch.inference_mode()
def _check(bf16: bool) -> None:  # noqa: FBT001
    """Compare what every kernel makes of something small with torch: compilers err, too.

    Raises:
        Unusable: they differ, or cannot be compiled.
    """
    made, tolerance = kernels(bf16=bf16), TOLERANCE["bf16" if bf16 else "fp32"]
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 8, 8, 32, 32, generator=draw)
    for layer in _one_of_each():
        for weights in layer.parameters():
            weights.copy_(torch.randn(weights.shape, generator=draw))
        expected = layer(x)
        found = with_kernels(layer, made)(x)
        if not float((found - expected).abs().max()) <= tolerance * float(expected.abs().max()):  # NaN, too
            raise Unusable(
                f"Backend winograd: compiled here, its {layer[0]} computes wrong results.\n"
                "  Use another backend, and please report this with your processor and the compiler's version."
            )


def _one_of_each() -> list[nn.Sequential]:
    """Layers for which all kernels are needed, the weights to be filled in."""

    def made(kind: type[nn.Module], *sizes: int, **options: Any) -> nn.Sequential:
        return nn.Sequential(skip_init(kind, *sizes, **options))  # type: ignore[no-untyped-call]

    return [
        made(nn.Conv3d, 8, 8, 3, padding=1, bias=False).append(nn.InstanceNorm3d(8)).append(nn.LeakyReLU()),
        made(nn.Conv3d, 8, 8, 3, padding=1, stride=2),
        made(nn.Conv3d, 8, 8, 1),
        made(nn.ConvTranspose3d, 8, 8, 2, stride=2),
        nn.Sequential(nn.MaxPool3d(2)),
        nn.Sequential(_Doubled()),
    ]


class _Doubled(nn.Module):
    """Doubles every side, as nets do."""

    def __init__(self) -> None:
        super().__init__()
        self.resize = Resize()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) to (N, C, *doubled)."""
        doubled: Tensor = self.resize(x, [2 * n for n in x.shape[2:]])
        return doubled
