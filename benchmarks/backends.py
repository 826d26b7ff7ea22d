"""One window of a net through every backend of this machine, in turn, beside torch in fp32.

    python benchmarks/backends.py [--net plain-unet] [--size 64,64,64] [--threads 1] [--rounds 5] [--memory-as-usual]

Prints seconds to set up, then, least of the rounds, processor seconds per window (which is what to read on a busy
machine, with --threads 1) and wall seconds, the ratio of torch's processor seconds to these, and the largest
difference in probability. Weights are drawn at random, so that says little about Dice: that is measured by
`attentus export --data`. torch runs with kept memory (`infer.processor.keep_memory`), as in predictions;
--memory-as-usual leaves that out. Names after -- choose backends.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from attentus import nets
from attentus.infer import backends
from attentus.infer.backends import torch_runner
from attentus.transforms.prepare import activate


def main(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    if arguments.memory_as_usual:
        torch_runner.keep_memory = lambda: False
    torch.manual_seed(0)
    size = tuple(int(n) for n in arguments.size.split(","))
    net = nets.create(arguments.net, len(size), 1, 3).eval()
    window = np.random.default_rng(0).normal(size=(1, 1, *size)).astype(np.float32)
    runners, setup = {}, {}
    for name in (
        "torch",
        *(arguments.backends or [n for n in backends.names() if n not in ("torch", "torch-compile")]),
    ):
        started = time.process_time(), time.perf_counter()
        runners[name] = backends.create(name, net, window.shape, calibration=[window[0]])
        setup[name] = time.process_time() - started[0], time.perf_counter() - started[1]
        runners[name](window)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runners}
    for _ in range(arguments.rounds):
        for name, runner in runners.items():
            started = time.process_time(), time.perf_counter()
            runner(window)
            taken[name].append((time.process_time() - started[0], time.perf_counter() - started[1]))
    exact = activate(runners["torch"](window)[0], regions=False)
    fastest = {name: [min(column) for column in zip(*times, strict=True)] for name, times in taken.items()}
    print(f"{arguments.net}, one window of {size}, {arguments.threads} thread(s)")
    print(f"{'backend':<17} {'set up':>8} {'cpu s':>8} {'wall s':>8} {'ratio':>6} {'difference':>10}")
    for name, (cpu, wall) in fastest.items():
        apart = np.abs(activate(runners[name](window)[0], regions=False) - exact).max()
        ratio = fastest["torch"][0] / cpu
        print(f"{name:<17} {setup[name][0]:8.1f} {cpu:8.3f} {wall:8.3f} {ratio:6.2f} {apart:10.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="plain-unet")
    parser.add_argument("--size", default="64,64,64")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-as-usual", action="store_true")
    parser.add_argument("backends", nargs="*", metavar="-- NAMES")
    main(parser.parse_args())
