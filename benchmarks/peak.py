"""How much of what the processor can do a network's forward pass reaches: fp32 and bf16, torch, OpenVINO and ours.

    pip install 'attentus[openvino]'
    python benchmarks/peak.py [--threads N] [--rounds 3] [--nets NAME ...] [--json]

The processor's best is measured, not looked up: the fastest of several products of large matrices in torch, fp32 and
bf16, on the same threads, before and after the nets; the larger counts. A net's operations are those that torch counts
in its pass (convolutions and matrix products, two per multiply-add); normalisation, activations, upsampling and
attention maps count as none, so that nets with much of them reach less. Winograd's algorithm takes fewer operations
than are counted, so that it may reach more than all. Times are the least of the rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from attentus import nets
from attentus.infer import backends
from attentus.infer.processor import keep_memory

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES: dict[str, tuple[int, ...]] = {
    "anu-net": (256, 256),
    "ra-unet": (32, 96, 96),
    "attention-unet": (96, 96, 96),
    "msconvlstm-att": (192, 192),
    "dpc-net": (32, 96, 96),
    "plain-unet": (96, 96, 96),
    "resenc-unet": (96, 96, 96),
    "unet++": (256, 256),
}
"""Nets and the windows they are timed on."""
MATRICES = 3072


def seconds(run: Callable[[], Any], rounds: int) -> float:
    """The least of some rounds, after one that does not count."""
    run()
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return min(taken)


def peak(dtype: torch.dtype) -> float:
    """Operations per second of the fastest product of large matrices."""
    a, b = (torch.randn(MATRICES, MATRICES).to(dtype) for _ in range(2))
    out = torch.empty(MATRICES, MATRICES, dtype=dtype)
    return 2 * MATRICES**3 / seconds(lambda: torch.mm(a, b, out=out), 8)


def measure(name: str, rounds: int) -> dict[str, Any]:
    """One net: operations, and seconds of each backend."""
    size = SIZES[name]
    torch.manual_seed(0)
    net = nets.create(name, len(size), 1, 3).eval()
    operations = nets.cost(net, 1, size).flops
    windows = np.random.default_rng(0).normal(size=(1, 1, *size)).astype(np.float32)
    row: dict[str, Any] = {"size": size, "gflop": operations / 1e9}
    for backend in ("torch", "torch-bf16", "winograd", "winograd-bf16", "openvino", "openvino-bf16"):
        if not backends.missing(backend):
            runner = backends.create(backend, net, windows.shape)
            row[backend] = operations / seconds(lambda run=runner: run(windows), rounds)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nets", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_memory()
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    with torch.inference_mode():
        best = {kind: peak(dtype) for kind, dtype in kinds.items()}
        rows = {name: measure(name, arguments.rounds) for name in arguments.nets}
        best = {kind: max(best[kind], peak(dtype)) for kind, dtype in kinds.items()}
    if arguments.json:
        print(json.dumps({"peak": best, "nets": rows}, indent=1))
        return
    print(f"products of matrices: fp32 {best['fp32'] / 1e9:.0f} GFLOP/s, bf16 {best['bf16'] / 1e9:.0f} GFLOP/s")
    columns = {"torch": "fp32", "openvino": "fp32", "winograd": "fp32"}
    columns |= dict.fromkeys(("torch-bf16", "openvino-bf16", "winograd-bf16"), "bf16")
    print(f"{'':18}{'window':>16}{'GFLOP':>8}" + "".join(f"{name:>15}" for name in columns))
    for name, row in rows.items():
        shares = [f"{row[c] / best[kind]:.0%}" if c in row else "-" for c, kind in columns.items()]
        window = " x ".join(map(str, row["size"]))
        print(f"{name:18}{window:>16}{row['gflop']:8.0f}" + "".join(f"{share:>15}" for share in shares))


if __name__ == "__main__":
    main()
