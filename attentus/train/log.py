"""What a training leaves behind while it runs: metrics.jsonl, and TensorBoard curves where it is installed."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


FLUSH_SECONDS = 1.0
"""How old the file may be for those who read along."""


class Log:
    """Appends one JSON object per line; each has a `kind` ("step" or "validation") and a `step`."""

    def __init__(self, folder: Path, after_step: int) -> None:
        """Open the log of a run and forget what lies beyond `after_step`: it will be done again."""
        self.path = folder / "metrics.jsonl"
        kept = [line for line in read_log(self.path) if line["step"] <= after_step]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._file = self.path.open("a", encoding="utf-8")
        self._flushed = time.monotonic()
        self._board = _tensorboard(folder / "tensorboard", after_step)

    def write(self, kind: str, step: int, **facts: Any) -> None:
        """Add a line; numbers also go to TensorBoard."""
        self._file.write(json.dumps({"kind": kind, "step": step, **facts}) + "\n")
        if kind != "step" or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()
        if self._board:
            for name, value in facts.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._board:
            self._board.close()


class NoLog(Log):
    """What all processes but the first write into."""

    def __init__(self) -> None:
        """Open nothing."""

    def write(self, kind: str, step: int, **facts: Any) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a line cut short by a crash is left out."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):
            lines.append(json.loads(text))
    return lines


def has_tensorboard() -> bool:
    """Whether TensorBoard is installed."""
    from importlib.util import find_spec

    return find_spec("tensorboard") is not None


def _tensorboard(folder: Path, after_step: int) -> Any:
    if not has_tensorboard():
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=after_step + 1)
