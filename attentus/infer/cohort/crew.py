"""Scans spread over Dask workers, each of which loads the model once.

A worker holds one scan at a time. When it dies, Dask hands its scan to another; a scan under which several die is
listed as failed. Dask also suspects what waited there, so every worker notes which scan it begins: only that counts.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from attentus.cluster import LOOK, PARTING, Leash, Recalled, connect, died, ended, examine, holding_token, limit_threads
from attentus.errors import AttentusError, BadInput
from attentus.infer.cohort.stages import Done, Order, Segmenter, Wanted, fetch, in_words, store
from attentus.io.atomic import sweep
from attentus.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from attentus.infer.cohort.book import Book
    from attentus.infer.cohort.scans import Scan
    from attentus.progress import Progress

LOST = "the connection to the cluster was lost; run the command again with --resume"
DEADLY = 2
"""A scan is given up when so many workers began it and Dask, which tries a few times more, lost the last one."""
DIED = "several workers in a row died while they were at it: too little memory?"


@dataclass(frozen=True)
class Crew:
    """Who does the work.

    Args:
        load: gives the model, on whichever worker; a function of a module or a `functools.partial` of one.
        cluster: address of a Dask scheduler (tcp://host:port) or its scheduler file; its workers must see model, scans
            and results under the same paths. None starts workers on this machine.
        workers: how many are started here; None or 1 is this process.

    Raises:
        BadInput: cluster and workers.
    """

    load: Callable[[], Segmenter]
    cluster: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.cluster is not None and self.workers is not None:
            raise BadInput("A cluster brings its own workers: give cluster or workers, not both.")

    @property
    def alone(self) -> bool:
        """Whether it is nobody but this process."""
        return self.cluster is None and self.workers in {None, 1}


@dataclass(frozen=True)
class Piece:
    """An order as it travels to a worker."""

    order: Order
    wanted: Wanted
    load: Callable[[], Segmenter]
    fingerprint: str
    """Of the model that `load` gives."""
    token: Path
    begun: Path
    """Gets a stroke whenever a worker begins."""
    threads: Mapping[str, int]


_loaded: dict[str, Segmenter] = {}
"""On a worker: the model, by its fingerprint; one at a time."""


def spread(
    crew: Crew,
    model: Segmenter,
    orders: Sequence[Order],
    books: Mapping[Path, Book],
    *,
    wanted: Wanted,
    progress: Progress,
) -> Generator[tuple[Scan, Done | str], None, None]:
    """Do all on workers; every scan as soon as it has ended.

    Raises:
        BadInput, MissingExtra: the cluster cannot be reached or used.
    """
    place = orders[0].scan.result.parent.absolute()
    with connect(crew.cluster, max(2, min(crew.workers or 1, len(orders)))) as client:
        for book in books.values():
            book.open()
        with holding_token(place) as token:
            threads = examine(client, token)
            fixed = wanted, crew.load, model.fingerprint, token
            notes = [token.with_suffix(f".{number}.begun") for number in range(len(orders))]
            pieces = [
                (order, Piece(_absolute(order), *fixed, begun, threads))
                for order, begun in zip(orders, notes, strict=True)
            ]
            try:
                for order, outcome in _watch(pieces, client, progress):
                    yield order.scan, _entered(order, outcome, books)
            finally:
                for begun in notes:
                    begun.unlink(missing_ok=True)
    sweep([order.scan.result for order in orders])


def _entered(order: Order, outcome: Done | str, books: Mapping[Path, Book]) -> Done | str:
    """The outcome with the command's own paths, noted; or why it could not be."""
    if isinstance(outcome, str):
        return outcome
    here = order.scan.result
    outcome = replace(outcome, file=here, others=tuple(here.with_name(file.name) for file in outcome.others))
    try:
        books[here.parent].enter(order.scan, outcome)
    except (AttentusError, OSError) as error:
        return in_words(error)
    return outcome


def _watch(
    pieces: Sequence[tuple[Order, Piece]], client: Any, progress: Progress
) -> Iterator[tuple[Order, Done | str]]:
    """Hand out as many pieces as there are workers, and another whenever one has ended.

    Dask would take all at once; but where a worker dies, it suspects everything that waited there, too.
    """
    waiting = deque(pieces)
    running: dict[Any, tuple[Order, Piece]] = {}
    told = False
    try:
        while waiting or running:
            workers = len(client.nthreads())
            if not workers and not told:
                progress.say("no worker is left; waiting for one (Ctrl-C stops, --resume goes on)")
            told = not workers
            while waiting and len(running) < workers:
                order, piece = waiting.popleft()
                name = f"{order.scan.name}-{uuid4().hex[:8]}"
                running[client.submit(work, piece, key=name, pure=False)] = order, piece
            time.sleep(LOOK / 10)
            for future in list(running):
                outcome = ended(future)
                if outcome is None:
                    continue
                order, piece = running.pop(future)
                future.release()  # or Dask does it again when the worker dies that holds it
                if isinstance(outcome, BaseException) and died(outcome) and _innocent(piece):
                    waiting.append((order, piece))
                else:
                    yield order, _failure(outcome) if isinstance(outcome, BaseException) else outcome
    finally:
        if running:
            pieces[0][1].token.unlink(missing_ok=True)
            limit = time.monotonic() + PARTING
            while not all(future.done() for future in running) and time.monotonic() < limit:
                time.sleep(LOOK / 10)


def _failure(error: BaseException) -> str:
    if isinstance(error, ConnectionError):
        return LOST
    return DIED if died(error) else in_words(error)


def _innocent(piece: Piece) -> bool:
    """Whether a scan was given up because of workers that died while they were at others."""
    return not piece.begun.is_file() or len(piece.begun.read_text(encoding="utf-8")) < DEADLY


def work(piece: Piece) -> Done | str:
    """Do one scan, in whatever process this is; why it failed, if it did.

    Whoever begins it again may replace what a worker left that died, while it wrote or before it could tell.
    """
    leash = Leash(piece.token, Silent())
    try:
        limit_threads(piece.threads, socket.gethostname())
        leash.look()
        with piece.begun.open("a", encoding="utf-8") as note:
            order = replace(piece.order, overwrite=piece.order.overwrite or note.tell() > 0)
            note.write("|")
        model = _model(piece)
        volume = fetch(order.scan, model.recipe)
        return store(order, model.predict(volume, **piece.wanted.of_model(), progress=leash), piece.wanted)
    except Recalled:
        return "stopped, because the command that asked for it ended"
    except Exception as error:
        return in_words(error)


def _model(piece: Piece) -> Segmenter:
    if piece.fingerprint not in _loaded:
        _loaded.clear()
        model = piece.load()
        if model.fingerprint != piece.fingerprint:
            raise BadInput(
                f"The model on {socket.gethostname()} (process {os.getpid()}) is another than the command's: its folder"
                " was changed meanwhile, or lies on different drives."
            )
        _loaded[piece.fingerprint] = model
    return _loaded[piece.fingerprint]


def _absolute(order: Order) -> Order:
    """With paths that mean the same in every process."""
    scan = order.scan
    return replace(order, scan=replace(scan, path=scan.path.absolute(), result=scan.result.absolute()))
