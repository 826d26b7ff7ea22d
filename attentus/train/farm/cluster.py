"""Watching the runs of a farm on a cluster."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from attentus.cluster import LOOK, PARTING, died, ended
from attentus.errors import AttentusError
from attentus.infer.model import WEIGHTS
from attentus.train.farm.worker import Job, Outcome, work
from attentus.train.schedule import total_steps
from attentus.train.state import peek_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from attentus.progress import Progress, Task


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
                    outcome = run.outcome(client)
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
        """How it ended; None while it goes on, also where workers died under it but left it further than it was."""
        found: Outcome | BaseException | None = ended(self.future)
        if not isinstance(found, BaseException):
            return found
        if isinstance(found, ConnectionError):
            return Outcome(self.job.name, message=f"{found}; run the command again")
        if not died(found):
            return Outcome(self.job.name, message=f"{type(found).__name__}: {found}")
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
