"""While one scan is predicted, the next ones are read and the last ones written; what waits in between is bounded."""

from __future__ import annotations

from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attentus import io
from attentus.errors import AttentusError
from attentus.infer.cohort.stages import bytes_of, in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from attentus.infer.cohort.scans import Scan
    from attentus.infer.cohort.stages import Done, Order
    from attentus.types import Prediction, Volume

READERS = 2
"""Threads that read. Unpacking releases Python's lock, so they work while the net does."""


@dataclass(frozen=True)
class Stages:
    """What is done with every scan. Reading and writing happen in threads, predicting in the caller's."""

    fetch: Callable[[Order], Volume]
    predict: Callable[[Volume], Prediction]
    store: Callable[[Order, Prediction], Done]


class Pipeline:
    """A line of scans.

    Args:
        orders: scans to do, in this order.
        stages: what is done with them.
        limit: bytes of voxels that may wait before and behind the net together. A scan above it goes alone.
    """

    def __init__(self, orders: Sequence[Order], stages: Stages, limit: int) -> None:
        self.waiting = deque(orders)
        self.stages, self.limit = stages, limit
        self.read: deque[tuple[Order, Future[Volume], int]] = deque()
        self.written: dict[Future[Done], tuple[Order, int]] = {}

    def run(self) -> Generator[tuple[Scan, Done | str], None, None]:
        """Do all; every scan as soon as it has ended, with what was done or why it failed.

        On KeyboardInterrupt nothing more is read, and what has been predicted is still written.
        """
        with _threads(READERS, "read", drop=True) as readers, _threads(1, "write", drop=False) as writer:
            while self.waiting or self.read:
                self._read_ahead(readers)
                order, future, _ = self.read.popleft()
                try:
                    prediction = self.stages.predict(future.result())
                except Exception as error:
                    yield order.scan, in_words(error)
                else:
                    storing = writer.submit(self.stages.store, order, prediction)
                    self.written[storing] = order, bytes_of(prediction)
                    del prediction, storing
                del future
                yield from self._ended(self.limit)
            yield from self._ended(-1)

    def _read_ahead(self, readers: ThreadPoolExecutor) -> None:
        while self.waiting:
            size = _estimate(self.waiting[0].scan)
            if self.read and self._in_flight() + size > self.limit:
                return
            order = self.waiting.popleft()
            self.read.append((order, readers.submit(self.stages.fetch, order), size))

    def _in_flight(self) -> int:
        ahead = sum(future.result().array.nbytes if _has_result(future) else size for _, future, size in self.read)
        return ahead + sum(size for _, size in self.written.values())

    def _ended(self, limit: int) -> Iterator[tuple[Scan, Done | str]]:
        """What has been written; waits until no more than so many bytes still are to be."""
        while self.written:
            excess = sum(size for _, size in self.written.values()) > limit
            ended, _ = wait(self.written, None if excess else 0, FIRST_COMPLETED)
            if not ended:
                return
            for future in ended:
                order, _ = self.written.pop(future)
                error = future.exception()
                yield order.scan, in_words(error) if error else future.result()


def _has_result(future: Future[Volume]) -> bool:
    return future.done() and future.exception() is None


def _estimate(scan: Scan) -> int:
    """Bytes a scan will take; 0 where that cannot be told, as reading will."""
    try:
        return io.bytes_of(scan.path)
    except (AttentusError, OSError):
        return 0


@contextmanager
def _threads(count: int, name: str, *, drop: bool) -> Iterator[ThreadPoolExecutor]:
    """Threads that end with the block, with what they are at; what waits for them is done, too, or dropped."""
    pool = ThreadPoolExecutor(count, name)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=drop)
