"""Stopping when asked to: by Ctrl-C, or by the SIGTERM that job schedulers send before they kill."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether somebody asked to stop. The training looks at it between two steps, where its state is whole."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self, *_: Any) -> None:
        """Ask; whoever asks twice does not get to wait for the step to end."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def listening_for_signals() -> Iterator[Stop]:
    """Turn signals into a wish to stop while the block runs; only the main thread of a process can."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.ask) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
