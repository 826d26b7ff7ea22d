"""torch itself: eager, in bf16, compiled, or on a GPU recorded as a CUDA graph."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from attentus.errors import BadInput
from attentus.infer.processor import best_precision, compiler_missing, keep_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

INNERMOST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Memory formats with the channels innermost, by the number of axes."""


class TorchRunner:
    """A net as it is.

    Args:
        name: see `attentus.infer.backends`.
        forward: windows on the device to the final logits.
        device: where.
        bf16: compute in it.
        threads: of the processor; None leaves torch's setting.
    """

    def __init__(
        self, name: str, forward: Callable[[Tensor], Tensor], device: torch.device, *, bf16: bool, threads: int | None
    ) -> None:
        self.name = name
        self.forward = forward
        self.device = device
        self.bf16 = bf16
        self.threads = threads

    @property
    def any_size(self) -> bool:
        """Whether it takes windows of other sizes, too, at no cost."""
        return self.name not in {"torch-cuda-graph", "torch-compile"}

    @torch.inference_mode()
    def __call__(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Windows (n, C, *spatial) to final logits (n, K, *spatial)."""
        x = torch.from_numpy(windows).to(self.device)
        with _threads(self.threads), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits: NDArray[np.float32] = self.forward(x).float().cpu().numpy()
        return logits


class _CudaGraph:
    """A pass over one batch, recorded once; replaying it spares the processor the launch of every kernel."""

    def __init__(self, forward: Callable[[Tensor], Tensor], shape: tuple[int, ...], device: torch.device) -> None:
        self.windows = torch.zeros(shape, device=device).to(memory_format=INNERMOST[len(shape)])
        self.graph = torch.cuda.CUDAGraph()
        aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(device))
        # autocast must not keep bf16 copies of weights from one pass to the next: the graph's memory is its own
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            with torch.cuda.stream(aside):
                for _ in range(3):  # lets cuDNN choose its kernels
                    forward(self.windows)
            torch.cuda.current_stream(device).wait_stream(aside)
            with torch.cuda.graph(self.graph):
                self.logits = forward(self.windows)

    def __call__(self, x: Tensor) -> Tensor:
        self.windows[: len(x)].copy_(x)
        self.graph.replay()
        return self.logits[: len(x)]


def create(name: str, net: nn.Module, shape: tuple[int, ...], *, threads: int | None) -> TorchRunner:
    """Make a net ready for torch; weights keep their values, on GPUs they change their layout in memory for bf16.

    Raises:
        BadInput: a CUDA graph of a net that is not on a GPU.
    """
    device = next(net.parameters()).device
    bf16 = name in {"torch-bf16", "torch-cuda-graph"}
    if device.type == "cpu":
        keep_memory()
    elif bf16:  # on processors, turning the features round costs more than it brings
        net.to(memory_format=INNERMOST[len(shape)])  # type: ignore[call-overload]

    def final(x: Tensor) -> Tensor:
        logits: tuple[Tensor, ...] = net(x)
        return logits[0]

    if name == "torch-compile":
        return TorchRunner(name, torch.compile(final), device, bf16=False, threads=threads)
    if name == "torch-cuda-graph":
        if device.type != "cuda":
            raise BadInput(f"Backend {name}: the net is on {device}, and CUDA graphs run on NVIDIA GPUs only.")
        return TorchRunner(name, _CudaGraph(final, shape, device), device, bf16=True, threads=threads)
    return TorchRunner(name, final, device, bf16=bf16, threads=threads)


def missing(name: str) -> str:
    """Why a backend of this file cannot be used here; empty if it can."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "torch-cuda-graph" and device == "cpu":
        return "needs an NVIDIA GPU"
    if name in {"torch-bf16", "torch-cuda-graph"} and best_precision(device) != "bf16":
        return "this machine does not compute in bf16"
    return compiler_missing(device) if name == "torch-compile" else ""


@contextmanager
def _threads(wanted: int | None) -> Iterator[None]:
    """Another number of threads for a while."""
    usual = torch.get_num_threads()
    if wanted in (None, usual):
        yield
        return
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(usual)
