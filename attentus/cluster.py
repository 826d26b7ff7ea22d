"""Dask workers, here or on a cluster: reaching them, making sure that they are fit for the work, and calling it off.

Whoever hands out work holds a token, a file that all workers see. Work whose token is gone stops: nobody waits for it,
or another command took over.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import signal
import socket
import time
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from attentus.errors import BadFile, BadInput, MissingExtra
from attentus.io.atomic import write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from attentus.progress import Progress, Task

PATIENCE = 15.0
"""Seconds to wait for a scheduler, for its first worker, and for a worker to see a new file."""
PARTING = 60.0
"""Seconds that workers get to end what they do when the command is stopped."""
LOOK = 1.0
"""Seconds between two looks at a token."""


@contextmanager
def connect(cluster: str | None, workers: int) -> Iterator[Any]:
    """A client of a running cluster, or of a new one on this machine; None where this process can do it all.

    Raises:
        MissingExtra: Dask is not installed.
        BadInput: the scheduler does not answer.
    """
    if cluster is None and workers == 1:
        yield None
        return
    dask = _dask()
    if cluster is None:
        # No memory limit: Dask would count memory maps and kill workers. Any free port: others may have clusters, too.
        options: dict[str, Any] = {"n_workers": workers, "threads_per_worker": 1, "memory_limit": None}
        options["dashboard_address"] = "127.0.0.1:0"
        # What happens to the work comes back with it. Dask's own errors tell of workers that die, whose work goes on
        # elsewhere, and of workers that miss a scheduler which is already closing.
        options["silence_logs"] = logging.CRITICAL
        with dask.LocalCluster(**options) as local, dask.Client(local, set_as_default=False) as client:
            client.register_worker_callbacks(_ignore_ctrl_c)
            yield client
        return
    address = _address(cluster)
    try:
        client = dask.Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"No Dask scheduler answers at {cluster} ({first}).\n"
            "  Start one with `dask scheduler`, workers with `dask worker ADDRESS --nthreads 1`, and check the address."
        ) from None
    with client:
        yield client


def _ignore_ctrl_c() -> None:
    """A terminal sends Ctrl-C to all its processes. Workers go on until the command lets them go."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _dask() -> Any:
    try:
        return import_module("distributed")
    except ImportError as error:
        raise MissingExtra("distributed", "cluster", "Work in several processes or on a cluster") from error


def _address(cluster: str) -> str:
    """The scheduler's address: as given, or out of its file.

    Raises:
        BadInput: neither.
    """
    file = Path(cluster)
    if "://" in cluster or (re.fullmatch(r"[\w.-]+:\d+", cluster) and not file.exists()):
        return cluster
    if not file.is_file():
        raise BadInput(f"'{cluster}' is no address such as tcp://host:8786, and no scheduler file of that name exists.")
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, KeyError, TypeError):
        fix = "Take the file that `dask scheduler --scheduler-file FILE` writes."
        raise BadFile(file, "is no scheduler file", fix) from None


def examine(client: Any, token: Path) -> dict[str, int]:
    """Make sure that all workers can do the work; host to the threads each worker there may take.

    Raises:
        BadInput: there is no worker, or one with other versions, with several threads, or without access to the folder.
    """
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except _dask().TimeoutError:
        raise BadInput("The cluster has no worker. Start some: dask worker ADDRESS --nthreads 1") from None
    mine = probe(str(token), 0.0)()
    found = client.run(probe(str(token), PATIENCE), on_error="return")
    threads = client.nthreads()
    problems = [f"  {where}: {text}" for where, theirs in found.items() if (text := differs(mine, theirs))]
    problems += [
        f"  {where}: has {count} threads, but one process can do only one thing at a time: start it with --nthreads 1"
        for where, count in threads.items()
        if count != 1
    ]
    if problems:
        raise BadInput("Workers of the cluster cannot do this work:\n" + "\n".join(problems))
    hosts = [theirs["host"] for theirs in found.values()]
    return {theirs["host"]: max(1, theirs["cpus"] // hosts.count(theirs["host"])) for theirs in found.values()}


def probe(token: str, patience: float) -> Callable[[], dict[str, Any]]:
    """A function that says what a worker has. It travels as code, so that it runs where Attentus is not installed."""

    def look() -> dict[str, Any]:
        import os
        import platform
        import time
        from importlib import import_module
        from importlib.metadata import PackageNotFoundError, version

        versions = {"python": ".".join(platform.python_version_tuple()[:2])}
        for package in ("torch", "distributed"):
            try:
                versions[package] = version(package).split("+")[0]
            except PackageNotFoundError:
                versions[package] = "missing"
        try:
            versions["attentus"] = import_module("attentus").__version__
        except ImportError:
            versions["attentus"] = "missing"
        limit = time.monotonic() + patience
        while not os.path.isfile(token) and time.monotonic() < limit:  # noqa: PTH113 - network drives take a moment
            time.sleep(0.2)
        affinity = getattr(os, "sched_getaffinity", None)
        cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
        return {"versions": versions, "sees": os.path.isfile(token), "host": socket.gethostname(), "cpus": cpus}  # noqa: PTH113

    return look


def differs(mine: dict[str, Any], theirs: dict[str, Any] | BaseException) -> str:
    """Why a worker cannot do the work; empty if it can."""
    if isinstance(theirs, BaseException):
        return f"cannot run code from here (Python {platform.python_version()}): {type(theirs).__name__}: {theirs}"
    apart = [
        f"{name} {theirs['versions'][name]} (here {version})"
        for name, version in mine["versions"].items()
        if theirs["versions"][name] != version
    ]
    if apart:
        return "has " + ", ".join(apart) + "; install the same versions"
    return "" if theirs["sees"] else "does not see the folder of the results; put it on a drive that all machines share"


def ended(future: Any) -> Any | BaseException | None:
    """What a piece of work gave, which is never None, or the error it ended with; None while somebody is at it.

    A result stays on its worker until it is asked for. If that worker dies before, the work is done once more.
    """
    if not future.done() or future.status in {"pending", "lost"}:
        return None
    if future.status == "cancelled":
        return ConnectionError("the connection to the cluster was lost")
    try:
        return future.result(timeout=PATIENCE)
    except _dask().TimeoutError:
        return None
    except Exception as error:
        return error


def died(error: BaseException) -> bool:
    """Whether work was given up because several workers in a row died while they were at it."""
    return isinstance(error, _dask().KilledWorker)


@contextmanager
def holding_token(folder: Path) -> Iterator[Path]:
    """A token in a folder for as long as the block runs."""
    token = folder / f"{uuid4().hex}.token"
    write_text(token, f"process {os.getpid()} on {socket.gethostname()}\n")
    try:
        yield token
    finally:
        token.unlink(missing_ok=True)


class Recalled(KeyboardInterrupt):
    """The command in charge is gone. To the work this is Ctrl-C: it saves what it can."""


class Leash:
    """A progress that ends the work when the token is gone: nobody waits for it, or another command took over."""

    def __init__(self, token: Path, inner: Progress) -> None:
        self._token, self._inner, self._looked = token, inner, 0.0

    @contextmanager
    def task(self, what: str, total: int, done: int = 0) -> Iterator[Task]:
        """Open a task; each of its steps looks at the token."""
        with self._inner.task(what, total, done) as task:
            yield _LeashedTask(task, self)

    def say(self, message: str) -> None:
        """Pass it on."""
        self._inner.say(message)

    def look(self) -> None:
        """Stop the work if the token is gone; it is looked for once a second at most."""
        if time.monotonic() - self._looked >= LOOK:
            self._looked = time.monotonic()
            if not self._token.is_file():
                raise Recalled


class _LeashedTask:
    def __init__(self, inner: Task, leash: Leash) -> None:
        self._inner, self._leash = inner, leash

    def advance(self, steps: int = 1, note: str = "", total: int | None = None) -> None:
        self._inner.advance(steps, note, total)
        self._leash.look()


def limit_threads(threads: Mapping[str, int] | None, host: str) -> None:
    """Let torch take as many threads as this host has for each worker, see `examine`; None leaves them as they are."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads.get(host, 1))
