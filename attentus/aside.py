"""Work that goes on beside what comes next, a few pieces at a time."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Aside:
    """Threads for calls whose results nobody reads, and of which never more are under way: what they hold is bounded.

    What a call raises, a later `do` or `wait` raises, or the end of the `with` block.

    Args:
        threads: calls at once.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="aside")
        self._under_way: deque[Future[None]] = deque()

    def do(self, call: Callable[..., None], *arguments: Any) -> None:
        """Begin a call; while all threads have one, wait for the oldest."""
        while len(self._under_way) >= self.threads:
            self._under_way.popleft().result()
        self._under_way.append(self._pool.submit(call, *arguments))

    def wait(self) -> None:
        """Until all calls are done."""
        while self._under_way:
            self._under_way.popleft().result()

    def __enter__(self) -> Aside:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._pool.shutdown(cancel_futures=True)
