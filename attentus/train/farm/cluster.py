"""The cluster: reaching it, making sure that its workers are fit for the work, and watching the runs on it."""

from __future__ import annotations

import json
import logging
import platform
import re
import signal
import socket
import time
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from attentus.errors import AttentusError, BadFile, BadInput, MissingExtra
from attentus.infer.model import WEIGHTS
from attentus.train.farm.worker import LOOK, Job, Outcome, work
from attentus.train.schedule import total_steps
from attentus.train.state import peek_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from attentus.progress import Progress, Task

PATIENCE = 15.0
"""Seconds to wait for a scheduler, for its first worker, and for a worker to see a new file."""
PARTING = 60.0
"""Seconds that runs get to save themselves when the command is stopped."""


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
        options["silence_logs"] = logging.ERROR  # a worker that dies is no news: its run goes on elsewhere
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
    """A terminal sends Ctrl-C to all its processes. Workers go on until the command tells their runs to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _dask() -> Any:
    try:
        return import_module("distributed")
    except ImportError as error:
        raise MissingExtra("distributed", "cluster", "Training in several processes or on a cluster") from error


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
        f"  {where}: has {count} threads, but one process can do only one training: start it with --nthreads 1"
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
        from importlib.metadata import PackageNotFoundError, version

        versions = {"python": ".".join(platform.python_version_tuple()[:2])}
        for package in ("torch", "distributed"):
            try:
                versions[package] = version(package).split("+")[0]
            except PackageNotFoundError:
                versions[package] = "missing"
        try:
            import attentus

            versions["attentus"] = attentus.__version__
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
    return "" if theirs["sees"] else "does not see the folder of the runs; put it on a drive that all machines share"


def spread(jobs: list[Job], client: Any, progress: Progress, end: Callable[[Outcome], None]) -> None:
    """Hand jobs to a cluster and watch the runs until all have ended."""
    watched = {job.name: Watched(job, progress) for job in jobs}
    with progress.task("runs", len(jobs)) as whole:
        try:
            for run in watched.values():
                run.submit(client)
            while watched:
                time.sleep(LOOK / 4)
                for name, run in list(watched.items()):
                    run.look()
                    outcome = run.outcome(client) if run.future.done() else None
                    if outcome:
                        watched.pop(name).bar.close()
                        end(outcome)
                        whole.advance(1)
        except KeyboardInterrupt:
            jobs[0].token.unlink(missing_ok=True)
            limit = time.monotonic() + PARTING
            while not all(run.future.done() for run in watched.values()) and time.monotonic() < limit:
                time.sleep(LOOK / 4)
            raise
        finally:
            for run in watched.values():
                run.bar.close()


class Watched:
    """A job on the cluster, seen through what its run leaves on disk."""

    future: Any

    def __init__(self, job: Job, progress: Progress) -> None:
        self.job, self.progress = job, progress
        self.bar = ExitStack()
        self.task: Task | None = None
        self.shown = self.begun_at = 0
        self.looked = 0.0

    def submit(self, client: Any) -> None:
        """Hand it to the cluster, for the first time or again."""
        self.begun_at = self._saved()
        self.future = client.submit(work, self.job, key=f"{self.job.name}-{uuid4().hex[:8]}", pure=False)

    def look(self) -> None:
        """Show how far the run is; once a second at most."""
        if time.monotonic() - self.looked < LOOK:
            return
        self.looked = time.monotonic()
        step, note = _standing(self.job)
        if step and self.task is None:
            self.task = self.bar.enter_context(self.progress.task(self.job.name, _steps(self.job), step))
        elif self.task:
            self.task.advance(step - self.shown, note, max(_steps(self.job), step))
        self.shown = step

    def outcome(self, client: Any) -> Outcome | None:
        """How it ended; None if it goes on, because workers died under it but left it further than it was."""
        if self.future.status == "finished":
            outcome: Outcome = self.future.result()
            return outcome
        if self.future.status != "error":
            return Outcome(self.job.name, message="the connection to the cluster was lost; run the command again")
        error = self.future.exception()
        if not isinstance(error, _dask().KilledWorker):
            return Outcome(self.job.name, message=f"{type(error).__name__}: {error}")
        if self._saved() > self.begun_at:
            self.submit(client)
            return None
        why = "several workers in a row died while they were at it, without coming any further: too little memory?"
        return Outcome(self.job.name, message=why)

    def _saved(self) -> int:
        """The step from which the run would go on."""
        with suppress(AttentusError):
            state = peek_state(self.job.folder / WEIGHTS["last"])
            return state.step if state else 0
        return 0


def _standing(job: Job) -> tuple[int, str]:
    """Last step known of a run, and a few words on it."""
    step, words = 0, []
    for line in _tail(job.folder / "metrics.jsonl"):
        step = max(step, int(line.get("step", 0)))
        if "loss" in line:
            words = [f"loss {line['loss']:.4f}"]
    with suppress(AttentusError):
        state = peek_state(job.folder / WEIGHTS["last"])
        if state:
            step = max(step, state.step)
            words += [f"best Dice {state.best:.4f}"] if state.best >= 0 else []
    return step, "  ".join(words)


def _tail(file: Path, size: int = 8192) -> list[dict[str, Any]]:
    """The last lines of a metrics.jsonl."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - size))
            texts = stream.read().splitlines()
    except OSError:
        return []
    lines = []
    for text in texts:
        with suppress(ValueError):
            line = json.loads(text)
            lines += [line] if isinstance(line, dict) else []
    return lines


def _steps(job: Job) -> int:
    """Steps of a run; where the recipe counts epochs, 1 until the run has written which cases it trains on."""
    try:
        cases = len(json.loads((job.folder / "data.json").read_text(encoding="utf-8"))["train"])
    except (OSError, ValueError, KeyError):
        return 1 if job.recipe.train.epochs else total_steps(job.recipe, 1)
    return total_steps(job.recipe, cases)
