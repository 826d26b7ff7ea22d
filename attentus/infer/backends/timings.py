"""How fast backends were for a net on this machine, kept with its converted forms: the next job need not try again."""

from __future__ import annotations

import json
import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from attentus.errors import BadFile
from attentus.infer.backends import kept
from attentus.io.atomic import write_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

DAYS = 7
"""After that they are taken again: something else may have been running at the time."""


class Timings:
    """Numbers by name, from a file if there is a fresh one.

    Args:
        cache: folder of the file; None keeps nothing.
        net: what they are about.
        shape: (N, C, *spatial) of a batch.
        threads: of the processor; None: as many as torch uses.
    """

    def __init__(self, cache: Path | None, net: nn.Module, shape: tuple[int, ...], threads: int | None) -> None:
        self.file: Path | None = None
        self.known: dict[str, float] = {}
        if cache is not None:
            where = (platform.node(), torch.backends.cpu.get_cpu_capability(), str(threads or torch.get_num_threads()))
            device = next(net.parameters()).device
            self.file = cache / Path(kept.file_name("timings", net, shape, *where, str(device))).with_suffix(".json")
            self.known = _read(self.file)

    def get(self, name: str, measure: Callable[[], float]) -> float:
        """A number that is known, or measured now and kept."""
        if name not in self.known:
            self.known[name] = measure()
            if self.file:
                with suppress(BadFile):  # a model folder that one may not write to, or a full disk
                    write_text(self.file, json.dumps(self.known))
        return self.known[name]


def _read(file: Path) -> dict[str, float]:
    """Empty if the file is missing, damaged or old."""
    try:
        if time.time() - file.stat().st_mtime > DAYS * 24 * 3600:
            return {}
        found = json.loads(file.read_text(encoding="utf-8"))
        return {str(name): float(number) for name, number in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
