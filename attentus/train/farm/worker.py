"""What a worker does: one job, alone with its folder, for as long as the command in charge is there."""

from __future__ import annotations

import os
import socket
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attentus.cluster import LOOK, Leash, Recalled, limit_threads
from attentus.errors import AttentusError, BadFile
from attentus.infer.model import WEIGHTS
from attentus.progress import Progress, Silent
from attentus.train.fitting import fit
from attentus.train.state import peek_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from attentus.data.dataset import Dataset
    from attentus.recipes import Recipe

PRIVATE = ".farm"
"""Locks and tokens lie in this folder beside the runs."""
RECALLED = "stopped, because the same command was started elsewhere or ended; run it again to go on"


@dataclass(frozen=True)
class Job:
    """One training, as it travels to a worker."""

    name: str
    recipe: Recipe
    dataset: Dataset
    out: Path
    """Folder of all runs; absolute."""
    cache: Path
    token: Path
    max_time: float | None = None
    threads: Mapping[str, int] | None = None
    """Host to the threads torch may take there; None leaves them as they are."""

    @property
    def folder(self) -> Path:
        """The model folder."""
        return self.out / self.name

    @property
    def finished(self) -> bool:
        """Whether the run is trained and evaluated."""
        state = peek_state(self.folder / WEIGHTS["last"])
        return state is not None and state.finished and (self.folder / "scores.json").is_file()


@dataclass(frozen=True)
class Outcome:
    """How a job ended, and where it ran."""

    name: str
    host: str = ""
    pid: int = 0
    seconds: float = 0.0
    """Time in this sitting."""
    message: str = ""
    """Why it failed; empty if it did not."""
    trace: str = ""
    """Where an unforeseen error arose."""
    repeated: bool = False
    """It was finished already."""


def work(job: Job, progress: Progress | None = None) -> Outcome:
    """Do one job, in whatever process this is; errors become part of the outcome."""
    host, began = socket.gethostname(), time.time()
    leash = Leash(job.token, progress or Silent())
    message = trace = ""
    repeated = False
    try:
        limit_threads(job.threads, host)
        with _alone(job.out / PRIVATE / f"{job.name}.lock", leash):
            repeated = job.finished
            fit(job.recipe, job.dataset, job.folder, max_time=job.max_time, cache=job.cache, progress=leash)
    except Recalled:
        message = RECALLED
    except AttentusError as error:
        message = str(error)
    except Exception as error:
        message, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
    return Outcome(job.name, host, os.getpid(), time.time() - began, message, trace, repeated)


@contextmanager
def _alone(file: Path, leash: Leash) -> Iterator[None]:
    """Hold a lock that ends with the process, however that ends; wait while another process holds it."""
    import fcntl

    told = False
    with file.open("a+", encoding="utf-8") as stream:
        while True:
            leash.look()
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    leash.say(f"{file.stem}: waits for {file.read_text(encoding='utf-8')}, which is at work on it")
                told = True
                time.sleep(LOOK / 4)
            except OSError as error:
                fix = "Choose a folder on a file system with locks, or one run after another without --cluster."
                raise BadFile(file, f"cannot be locked ({error.strerror})", fix) from error
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        stream.flush()
        yield
