"""What segmenting a scan will take, measured on one window: time, and memory part by part."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attentus.transforms.prepare import SLAB_VOXELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from attentus.infer.sliding import Walk
    from attentus.transforms.prepare import Preparation

SLABS_AT_ONCE = 2
"""Slabs that are brought back to the scan's grid at the same time."""
SLAB_COPIES = 5
"""Copies of a slab of logits there are at once on the way back: taken, mixed along y and x, compared."""
SAMPLED_S = 0.002
"""Between two looks at the memory while a window is computed."""


@dataclass(frozen=True)
class Forecast:
    """What one scan will take, bytes and seconds."""

    windows: int
    seconds: float
    """Of the windows alone; reading, preparing and writing come on top."""
    loaded: int
    """What the process holds with the scan read and the net loaded; 0 where the system does not tell."""
    net: int
    """What one batch of windows takes while it is computed; 0 where the system does not tell."""
    sums: int
    """Sums of windows: the part that can lie on disk."""
    rows: int
    """Prepared rows of the scan and slabs on their way back."""
    labels: int

    @property
    def least(self) -> int:
        """Bytes with the sums on disk."""
        return self.loaded + self.net + self.rows + self.labels

    @property
    def most(self) -> int:
        """Bytes with everything in memory."""
        return self.least + self.sums

    def facts(self) -> dict[str, float]:
        """Plain values for JSON."""
        return {**self.__dict__, "least": self.least, "most": self.most}


def forecast(walks: list[Walk], scans: list[Preparation], maps: int, *, labels: int) -> Forecast:
    """Measure one batch of each walk.

    Args:
        walks: of the members that segment together, not yet begun.
        scans: what they walk through.
        maps: outputs of each net.
        labels: bytes of the result.
    """
    loaded = resident()
    seconds, net = 0.0, 0
    for walk in walks:
        took, grown = _probe(walk)
        batches = -(-len(walk.how.starts(walk.shape)) // walk.how.batch) * 2 ** len(walk.options.mirror)
        seconds, net = seconds + took * batches, max(net, grown)
    voxels = [int(np.prod(walk.shape[1:])) for walk in walks]
    sums = [4 * maps * walk.capacity * plane for walk, plane in zip(walks, voxels, strict=True)]
    channels = [scan.image.channels for scan in scans]
    rows = [4 * c * 2 * walk.how.size[0] * v for c, walk, v in zip(channels, walks, voxels, strict=True)]
    return Forecast(
        windows=sum(len(walk.how.starts(walk.shape)) for walk in walks),
        seconds=seconds,
        loaded=loaded,
        net=net,
        sums=sum(sums),
        rows=sum(rows) + 4 * SLABS_AT_ONCE * SLAB_COPIES * SLAB_VOXELS,
        labels=labels,
    )


def resident() -> int:
    """Bytes of memory this process has now; 0 where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return 0
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split("VmRSS:")[1].split()[0])


def _probe(walk: Walk) -> tuple[float, int]:
    """Seconds of one batch and the bytes it takes meanwhile; the first run fetches memory and does not count."""
    channels = len(walk.outside)
    batch = np.zeros((walk.how.batch, channels, *walk.how.size), np.float32)
    before = resident()
    peak = _watched(lambda: walk.run(batch))
    started = time.perf_counter()
    walk.run(batch)
    return time.perf_counter() - started, max(peak - before, 0)


def _watched(work: Callable[[], object]) -> int:
    """The most memory there was while something ran."""
    most, over = [resident()], threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLED_S):
            most[0] = max(most[0], resident())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        work()
    finally:
        over.set()
        thread.join()
    return max(most[0], resident())
