"""What keeping attention adds to a prediction: the same scans with and without, taking turns.

    python benchmarks/explain.py MODEL SCAN [SCAN ...] [--rounds 5] [--threads 1] [--features]

MODEL is a model folder with attention. Prints seconds per scan (median over the rounds), the ratio, that of the
processor time (which other work on the machine disturbs less), and the most memory that a process takes in each way.
Capture is what `attentus explain` does while it predicts; scores, the passes over mirrored windows, and writing are
printed apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory


def plain(model, volume) -> None:  # type: ignore[no-untyped-def]
    from attentus.infer.segment import Wish, segment

    segment([model.member(model.net)], volume, Wish())


def captured(model, volume, *, features: bool = False) -> None:  # type: ignore[no-untyped-def]
    from attentus.infer.attention import Capture, on_disk
    from attentus.infer.segment import Member, Wish, segment

    capture = Capture(model.net, model.recipe.net.dims, next(model.net.parameters()).device, features=features)
    member = Member(model.recipe, model.window, lambda _scan, _window: capture, len(capture.layers))
    with capture:
        segment([member], volume, Wish(keep=on_disk))


def peak(arguments: argparse.Namespace, way: str) -> int:
    """MiB of a process that predicts all scans once in one way."""
    command = [sys.executable, __file__, str(arguments.model), *map(str, arguments.scans), "--child", way]
    command += ["--threads", str(arguments.threads), *(["--features"] if arguments.features else [])]
    return int(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def child(arguments: argparse.Namespace) -> None:
    model, volumes = load(arguments)
    for volume in volumes:
        captured(model, volume, features=arguments.features) if arguments.child == "capture" else plain(model, volume)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(int(status.split("VmHWM:")[1].split()[0]) // 1024)


def load(arguments: argparse.Namespace):  # type: ignore[no-untyped-def]
    import torch

    from attentus import Model
    from attentus.infer.model import read_volume

    torch.set_num_threads(arguments.threads)
    return Model.load(arguments.model, device="cpu"), [read_volume(scan) for scan in arguments.scans]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("scans", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--features", action="store_true")
    parser.add_argument("--child", choices=["plain", "capture"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    from attentus.explain import attention
    from attentus.report.explanation import write_explanation

    model, volumes = load(arguments)
    taken: dict[str, list[float]] = {"prediction": [], "with capture": []}
    processor: dict[str, list[float]] = {name: [] for name in taken}
    for _ in range(arguments.rounds + 1):  # the first round fetches memory
        for name, way in (("prediction", plain), ("with capture", captured)):
            started, worked = time.perf_counter(), time.process_time()
            for volume in volumes:
                way(model, volume, **({"features": arguments.features} if way is captured else {}))
            taken[name].append((time.perf_counter() - started) / len(volumes))
            processor[name].append((time.process_time() - worked) / len(volumes))
    medians = {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}
    for (name, seconds), way in zip(medians.items(), ("plain", "capture"), strict=True):
        print(f"{name:<14} {seconds:8.3f} s per scan   peak {peak(arguments, way)} MiB")
    for what, each in (("ratio", taken), ("processor", processor)):
        ratios = [b / a for a, b in zip(*(seconds[1:] for seconds in each.values()), strict=True)]
        print(f"{what:<14} {statistics.median(ratios):8.3f}   (of each round: {' '.join(f'{r:.3f}' for r in ratios)})")
    with TemporaryDirectory() as place:
        started = time.perf_counter()
        found = attention(model, volumes[0], features=arguments.features)
        explained = time.perf_counter()
        write_explanation(found, Path(place) / "out")
        print(
            f"scores, flips  {explained - started - found.prediction.seconds:8.3f} s, writing"
            f" {time.perf_counter() - explained:.3f} s (first scan)"
        )


if __name__ == "__main__":
    main()
