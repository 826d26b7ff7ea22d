"""How long work reports on itself: a protocol that any front end can implement. Silent unless one is passed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

T = TypeVar("T")


class Task(Protocol):
    """One piece of work with a known number of steps."""

    def advance(self, steps: int = 1, note: str = "", total: int | None = None) -> None:
        """Say that more steps are done, with a few words on the state, and how many there will be if that changed."""


class Progress(Protocol):
    """Shows tasks: what, how far, how long still."""

    def task(self, what: str, total: int, done: int = 0) -> AbstractContextManager[Task]:
        """Open a task of `total` steps of which `done` are behind us already."""

    def say(self, message: str) -> None:
        """Tell the user something that is worth a line."""


class Silent:
    """Shows nothing."""

    def advance(self, steps: int = 1, note: str = "", total: int | None = None) -> None:
        """Do nothing."""

    @contextmanager
    def task(self, what: str, total: int, done: int = 0) -> Iterator[Task]:  # noqa: ARG002
        """Open a task that nobody sees."""
        yield self

    def say(self, message: str) -> None:
        """Do nothing."""


def track(progress: Progress, what: str, items: Sequence[T]) -> Iterator[T]:
    """Iterate over items as a task."""
    with progress.task(what, len(items)) as task:
        for item in items:
            yield item
            task.advance()
