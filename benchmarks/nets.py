"""Time and memory of our nets beside other libraries' equivalents: same input, same run, same threads.

    pip install monai einops                                 # the peers; rows without their peer are left out
    pip install --no-deps dynamic-network-architectures      # nnU-Net's; its dependencies are not needed here
    python benchmarks/nets.py [--quick] [--net NAME] [--repeat 5] [--threads N] [--channels-last]
                              [--checkpoint] [--processor-time] [--json]

Each row is measured in processes of its own. Times are of a forward pass in evaluation and of a forward and backward
pass in training, both nets in turn (A B B A ...) on one input; a ratio is the median over the turns of peer / ours, so
1 and above means that ours is as fast or faster. Memory is how far a process that holds one net alone grows beyond
its size before the first pass. Where the two nets do not do the same arithmetic, read the ratio per FLOP: it compares
seconds per floating-point operation. Where parameters differ, the peer's width is the one that comes nearest.

Volumes are not much smaller than training patches: torch takes 3D convolutions of few elements (up to 20480 over batch,
channels and the first two axes) down an unoptimised way, which would decide about small inputs.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.machinery
import importlib.util
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

CLASSES = 3
WARM_UP = 2
"""Turns that do not count: memory is first touched, kernels are first chosen."""


@dataclass(frozen=True)
class Row:
    """One of our nets, its input and the peer it is measured against.

    Args:
        net: its name in `attentus.nets`; the number of axes of `size` makes it 2D or 3D.
        size: spatial size of the input.
        quick: the same with `--quick`.
        peer: key of `PEERS`; None measures our net alone.
        options: of our net.
        channels: of the input.
        note: what differs between the two.
    """

    net: str
    size: tuple[int, ...]
    quick: tuple[int, ...]
    peer: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    channels: int = 1
    note: str = ""

    @property
    def label(self) -> str:
        options = ",".join(f"{k}={v}" for k, v in self.options.items())
        return f"{self.net} {len(self.size)}D" + (f" ({options})" if options else "")

    def input_size(self, *, quick: bool) -> tuple[int, ...]:
        return self.quick if quick else self.size


_BIAS = "peer's convolutions have no bias; in training it resizes and stacks its outputs"
_STRIDED = "peer halves by a strided convolution at the new width and has one convolution per level up"
_UPS = "peer's ways up are neither shared nor normalised"
_UP = "peer's ways up are not normalised; its finest level is twice as wide before the join"

ROWS = (
    Row("plain-unet", (64, 64, 32), (64, 32, 32), "DynUNet", note=_BIAS),
    Row("plain-unet", (64, 64, 32), (64, 32, 32), "PlainConvUNet"),
    Row("plain-unet", (256,) * 2, (64,) * 2, "PlainConvUNet"),
    Row("resenc-unet", (64, 64, 32), (64, 32, 32), "ResidualEncoderUNet"),
    Row("attention-unet", (64,) * 3, (32,) * 3, "AttentionUnet", note=_STRIDED),
    Row("attention-unet", (256,) * 2, (64,) * 2, "AttentionUnet", note=_STRIDED),
    Row("attention-unet", (64,) * 3, (32,) * 3, "AttentionUnet", {"preset": "anu"}, note=_STRIDED),
    Row("attention-unet", (256,) * 2, (64,) * 2, "AttentionUnet", {"preset": "anu"}, note=_STRIDED),
    Row("unet++", (192,) * 2, (64,) * 2, "BasicUNetPlusPlus", note=_UPS),
    Row("unet++", (192,) * 2, (64,) * 2, "BasicUNetPlusPlus", {"share_up": False, "up": "transposed-plain"}),
    Row("anu-net", (192,) * 2, (64,) * 2, "BasicUNetPlusPlus", note=f"peer has no gates; {_UPS}"),
    Row("classic-unet", (256,) * 2, (64,) * 2, "BasicUNet", note=_UP),
    Row("unet-3d", (64,) * 3, (32,) * 3, "BasicUNet", note="peer's finest level is twice as wide before the join"),
    Row("ra-unet", (64, 64, 32), (64, 32, 32)),
    Row("msconvlstm-att", (96,) * 2, (64,) * 2, channels=4),
    Row("dpc-net", (48,) * 3, (32,) * 3),
    Row("daf", (32,) * 3, (16,) * 3),
    Row("fcn", (192,) * 2, (64,) * 2),
    Row("r2u-net", (192,) * 2, (64,) * 2),
)


# Peers: each is made from (row, our net), as wide as comes nearest to our parameters.


def dyn_unet(row: Row, _ours: nn.Module) -> nn.Module:
    from monai.networks.nets.dynunet import DynUNet

    dims, widths = len(row.size), _widths(row)
    strides = [1] + [2] * (len(widths) - 1)
    levels: dict[str, Any] = {"kernel_size": [3] * len(widths), "strides": strides, "upsample_kernel_size": strides[1:]}
    supervision: dict[str, Any] = {"deep_supervision": True, "deep_supr_num": len(widths) - 2}
    options = {**levels, **supervision, "filters": widths, "res_block": False, "trans_bias": True}
    return DynUNet(dims, row.channels, CLASSES, **options)


def plain_conv_unet(row: Row, _ours: nn.Module) -> nn.Module:
    architectures = _nnunet_architectures()
    return architectures.PlainConvUNet(**_nnunet(row), n_conv_per_stage=2, n_conv_per_stage_decoder=2)  # type: ignore[no-any-return]


def residual_encoder_unet(row: Row, _ours: nn.Module) -> nn.Module:
    from attentus.nets.plain_unet import BLOCKS

    architectures = _nnunet_architectures()
    return architectures.ResidualEncoderUNet(**_nnunet(row), n_blocks_per_stage=BLOCKS, n_conv_per_stage_decoder=1)  # type: ignore[no-any-return]


def attention_unet(row: Row, ours: nn.Module) -> nn.Module:
    from monai.networks.nets.attentionunet import AttentionUnet

    def make(width: int) -> nn.Module:
        return AttentionUnet(len(row.size), row.channels, CLASSES, _doubling(width), [2] * 4)

    return _nearest(make, ours)


def basic_unet(row: Row, ours: nn.Module) -> nn.Module:
    from monai.networks.nets.basic_unet import BasicUNet

    return _nearest(lambda width: BasicUNet(**_basic(row, width)), ours)


def basic_unet_plus_plus(row: Row, ours: nn.Module) -> nn.Module:
    from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus

    return _nearest(lambda width: BasicUNetPlusPlus(**_basic(row, width), deep_supervision=True), ours)


PEERS: dict[str, tuple[str, str, Callable[[Row, nn.Module], nn.Module]]] = {
    "DynUNet": ("MONAI", "monai", dyn_unet),
    "AttentionUnet": ("MONAI", "monai", attention_unet),
    "BasicUNet": ("MONAI", "monai", basic_unet),
    "BasicUNetPlusPlus": ("MONAI", "monai", basic_unet_plus_plus),
    "PlainConvUNet": ("nnU-Net", "--no-deps dynamic-network-architectures", plain_conv_unet),
    "ResidualEncoderUNet": ("nnU-Net", "--no-deps dynamic-network-architectures", residual_encoder_unet),
}
"""Whose, what `pip install` needs, how it is made."""


def _widths(row: Row) -> tuple[int, ...]:
    from attentus.nets.plain_unet import WIDTHS

    return WIDTHS[len(row.size)]


def _doubling(width: int) -> list[int]:
    return [width * 2**level for level in range(5)]


def _basic(row: Row, width: int) -> dict[str, Any]:
    shape = {"spatial_dims": len(row.size), "in_channels": row.channels, "out_channels": CLASSES}
    return {**shape, "features": (*_doubling(width), width), "act": ("relu", {"inplace": True}), "norm": "batch"}


def _nnunet(row: Row) -> dict[str, Any]:
    from torch import nn

    two, widths = len(row.size) == 2, _widths(row)
    return {
        "input_channels": row.channels,
        "num_classes": CLASSES,
        "n_stages": len(widths),
        "features_per_stage": widths,
        "kernel_sizes": 3,
        "strides": [1] + [2] * (len(widths) - 1),
        "deep_supervision": True,
        "conv_op": nn.Conv2d if two else nn.Conv3d,
        "conv_bias": True,
        "norm_op": nn.InstanceNorm2d if two else nn.InstanceNorm3d,
        "norm_op_kwargs": {"affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }


def _nnunet_architectures() -> Any:
    """The published U-Nets; what the package imports for its transformers is stood in for where it is missing."""
    if importlib.util.find_spec("timm") is None:
        sys.meta_path.append(_StandIn())
    return importlib.import_module("dynamic_network_architectures.architectures.unet")


class _StandIn:
    """Finds `timm` and its modules, empty; every name in them is a module class that is never made."""

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> Any:
        ours = name.split(".", maxsplit=1)[0] == "timm"
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if ours else None  # type: ignore[arg-type]

    def create_module(self, _spec: object) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        from torch import nn

        module.__getattr__ = lambda _name: nn.Module


def _nearest(make: Callable[[int], nn.Module], ours: nn.Module) -> nn.Module:
    """The peer whose parameters come nearest to ours, over its width."""
    import torch

    def distance(width: int) -> float:
        with torch.device("meta"):
            return abs(math.log(_parameters(make(width)) / _parameters(ours)))

    return make(min(range(4, 65), key=distance))


def _parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# Measuring: everything below runs in a process of its own.


def build(row: Row, side: str, *, checkpoint: bool = False) -> nn.Module:
    """Our net or its peer; of ours the peer needs the number of parameters only, which take no room."""
    import torch

    from attentus import nets

    torch.manual_seed(0)
    with torch.device("cpu" if side == "ours" else "meta"):
        ours = nets.create(row.net, len(row.size), row.channels, CLASSES, checkpoint=checkpoint, **row.options)
    return ours if side == "ours" else PEERS[str(row.peer)][2](row, ours)


def forward(net: nn.Module, x: Tensor) -> None:
    import torch

    net.eval()
    with torch.no_grad():
        net(x)


def forward_backward(net: nn.Module, x: Tensor) -> None:
    import torch

    net.train()
    outputs = net(x)
    several = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    torch.stack([output.square().mean() for output in several]).sum().backward()  # type: ignore[no-untyped-call]
    net.zero_grad(set_to_none=True)


PASSES: dict[str, Callable[[nn.Module, Tensor], None]] = {"forward": forward, "train": forward_backward}


def measure_times(row: Row, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of both passes of both sides, in turn, and what the nets cost on paper."""
    from attentus.nets import cost

    sides = {side: _ready(row, side, arguments) for side in _sides(row)}
    x = _image(row, arguments)
    paper = {side: cost(net, row.channels, x.shape[2:]) for side, net in sides.items()}
    found: dict[str, Any] = {
        side: {"parameters": price.parameters, "gflops": price.flops / 1e9} for side, price in paper.items()
    }
    for name, run in PASSES.items():
        jobs = {side: partial(run, net, x) for side, net in sides.items()}
        clock = time.process_time if arguments.processor_time else time.perf_counter
        for side, taken in _turns(jobs, arguments.repeat, clock).items():
            found[side][name] = taken
    return found


def _turns(jobs: Mapping[str, Callable[[], None]], repeat: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {side: [] for side in jobs}
    for turn in range(repeat + WARM_UP):
        for side in list(jobs)[:: -1 if turn % 2 else 1]:
            started = clock()
            jobs[side]()
            taken[side].append(clock() - started)
    return {side: times[WARM_UP:] for side, times in taken.items()}


def measure_memory(row: Row, side: str, arguments: argparse.Namespace) -> dict[str, float]:
    """MiB by which the peak of each pass lies above the size of this process before the first."""
    net, x = _ready(row, side, arguments), _image(row, arguments)
    before = _resident()
    grown = {}
    for name, run in PASSES.items():
        run(net, x)
        grown[f"{name}_mib"] = _peak() - before
    return grown


def _peak() -> float:
    """MiB; the system reports KiB, or bytes on macOS."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _resident() -> float:
    """MiB held now; where the system does not say, the peak so far."""
    status = Path("/proc/self/status")
    if not status.exists():
        return _peak()
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmRSS")) / 2**10


def _ready(row: Row, side: str, arguments: argparse.Namespace) -> nn.Module:
    net = build(row, side, checkpoint=arguments.checkpoint)
    return net.to(memory_format=_format(row)) if arguments.channels_last else net  # type: ignore[call-overload]


def _image(row: Row, arguments: argparse.Namespace) -> Tensor:
    import torch

    x = torch.randn(1, row.channels, *row.input_size(quick=arguments.quick))
    return x.to(memory_format=_format(row)) if arguments.channels_last else x


def _format(row: Row) -> Any:
    import torch

    return torch.channels_last if len(row.size) == 2 else torch.channels_last_3d


def _sides(row: Row) -> tuple[str, ...]:
    return ("ours", "peer") if row.peer else ("ours",)


def one(arguments: argparse.Namespace) -> None:
    """What a child process does: one row, its times ("times") or the memory of one side; prints JSON."""
    import torch

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    row = ROWS[arguments.row]
    if arguments.one == "times":
        print(json.dumps(measure_times(row, arguments)))
    else:
        print(json.dumps(measure_memory(row, arguments.one, arguments)))


# The parent: starts a process per measurement, imports no torch (on Linux a child inherits its parent's peak).


def measure(number: int, row: Row, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything about one row; without its peer if that is not installed."""
    found = _child(number, "times", arguments)
    for side in _sides(row):
        found[side] |= _child(number, side, arguments)
    return found


FLAGS = ("quick", "channels-last", "checkpoint", "processor-time")


def _child(number: int, what: str, arguments: argparse.Namespace) -> dict[str, Any]:
    passed = [f"--{name}" for name in FLAGS if getattr(arguments, name.replace("-", "_"))]
    values = ["--one", what, "--row", str(number), "--repeat", str(arguments.repeat)]
    values += ["--threads", str(arguments.threads)]
    command = [sys.executable, "-W", "ignore", __file__, *values, *passed]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    answer: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return answer


def _has(row: Row) -> bool:
    """Whether the peer's package is there; says what to install if not."""
    whose, install, _ = PEERS[str(row.peer)]
    package = install.split()[-1].replace("-", "_")
    if importlib.util.find_spec(package) is not None:
        return True
    print(f"{row.label}: no {whose} {row.peer} to measure against; pip install {install}", file=sys.stderr)
    return False


def ratio(found: dict[str, dict[str, list[float]]], what: str) -> float:
    """Median over the turns of peer / ours."""
    return statistics.median(p / o for p, o in zip(found["peer"][what], found["ours"][what], strict=True))


HEADS = ("M params", "GFLOP", "forward s", "ratio", "per FLOP", "train s", "ratio", "forward MiB", "train MiB")
COLUMNS = (17, 15, 17, 7, 10, 17, 7, 15, 15)


def line(cells: Sequence[str]) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, COLUMNS, strict=True))


def describe(found: dict[str, Any]) -> str:
    """The figures of a row, ours / peer's."""
    sides = [found[side] for side in ("ours", "peer") if side in found]
    flops = [side["gflops"] for side in sides]
    both = len(sides) == 2
    ratios = [ratio(found, name) if both else math.nan for name in PASSES]
    cells = [
        _both([side["parameters"] / 1e6 for side in sides], 2),
        _both(flops, 1),
        _both([statistics.median(side["forward"]) for side in sides], 3),
        f"{ratios[0]:.2f}" if both else "",
        f"{ratios[0] * flops[0] / flops[1]:.2f}" if both else "",
        _both([statistics.median(side["train"]) for side in sides], 3),
        f"{ratios[1]:.2f}" if both else "",
        _both([side["forward_mib"] for side in sides], 0),
        _both([side["train_mib"] for side in sides], 0),
    ]
    return line(cells)


def _both(values: Sequence[float], digits: int) -> str:
    return " / ".join(f"{value:.{digits}f}" for value in values)


def main(arguments: argparse.Namespace) -> None:
    chosen = [(number, row) for number, row in enumerate(ROWS) if arguments.net in {None, row.net}]
    if not chosen:
        sys.exit(f"No net {arguments.net} here; there are {', '.join(dict.fromkeys(row.net for row in ROWS))}.")
    if not arguments.json:
        print(f"Ours / peer's; ratios are peer / ours, so 1 and above is in favour of ours.\n{line(HEADS)}")
    for number, row in chosen:
        if row.peer and not _has(row):
            continue
        found = measure(number, row, arguments)
        size = row.input_size(quick=arguments.quick)
        if arguments.json:
            print(json.dumps({"net": row.label, "peer": row.peer, "size": size, **found}), flush=True)
            continue
        against = f"against {PEERS[row.peer][0]} {row.peer}" if row.peer else "alone"
        note = f"  [{row.note}]" if row.note else ""
        print(f"{row.label}, {' x '.join(map(str, size))}, {against}{note}\n{describe(found)}", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small inputs: does everything run?")
    parser.add_argument("--net", help="only this net")
    parser.add_argument("--repeat", type=int, default=5, help="turns per measurement (default 5)")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch (default: its own choice)")
    parser.add_argument("--channels-last", action="store_true", help="inputs and weights with channels innermost")
    parser.add_argument("--checkpoint", action="store_true", help="ours with recomputed blocks, the peers as they are")
    parser.add_argument("--processor-time", action="store_true", help="for busy machines, with --threads 1")
    parser.add_argument("--json", action="store_true", help="a line of JSON per row, with every single time")
    parser.add_argument("--one", choices=("times", "ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--row", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    given = parse()
    (one if given.one else main)(given)
