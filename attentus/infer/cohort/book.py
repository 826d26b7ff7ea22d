"""labels.json: what the labels beside it are called, and what was done with which model."""

from __future__ import annotations

import json
from contextlib import suppress
from hashlib import blake2b
from threading import Lock
from typing import TYPE_CHECKING, Any

from attentus.data.resolve import values_in
from attentus.errors import AttentusError
from attentus.infer.cohort.stages import Done
from attentus.io.atomic import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from attentus.infer.cohort.scans import Scan
    from attentus.infer.cohort.stages import Segmenter, Wanted

NAME = "labels.json"


class Book:
    """The results in a folder. Entries of results that this command does not touch stay.

    Args:
        folder: of the results.
        model: who makes them.
        wanted: what is asked of it.
    """

    def __init__(self, folder: Path, model: Segmenter, wanted: Wanted) -> None:
        self.file = folder / NAME
        self.made_by = _digest(model.fingerprint, json.dumps(wanted.facts()))
        labels = {name: v[0] if len(v) == 1 else list(v) for name, v in values_in(model.recipe).items()}
        self._facts = {"model": model.recipe.name, "labels": labels}
        self._results = _entries(self.file)
        self._on_disk = False
        self._lock = Lock()

    def owns(self, scan: Scan) -> bool:
        """Whether a scan's result, if it is there, is one of ours, complete or not."""
        return scan.result.name in self._results

    def done(self, scan: Scan) -> Done | None:
        """What was done with a scan; None unless all of it is there, unchanged, of this model and this scan."""
        entry = self._results.get(scan.result.name, {})
        try:
            files = [self.file.parent / name for name in entry["files"]]
            marks = {file.name: mark(file) for file in files}
            if (entry["made_by"], entry["scan"], entry["files"]) != (self.made_by, source_mark(scan), marks):
                return None
            facts = {key: entry[key] for key in ("seconds", "volumes_ml", "removed_ml", "added_ml", "level")}
            others = tuple(file for file in files if file != scan.result)
            notes = tuple(entry.get("notes", ()))
            return Done(scan.result, **facts, repeated=True, others=others, notes=notes)
        except (KeyError, TypeError, AttributeError, OSError):
            return None  # it was not finished, its files are gone, or somebody wrote the entry by hand

    def begin(self, scans: Sequence[Scan]) -> None:
        """Note which scans will be done: whatever happens to this command, their results are ours."""
        self._results |= {scan.result.name: {"made_by": self.made_by} for scan in scans}

    def open(self) -> None:
        """Write the file, once; before the first result.

        Raises:
            BadFile: it cannot be written.
        """
        with self._lock:
            if not self._on_disk:
                self._write()

    def enter(self, scan: Scan, done: Done) -> None:
        """Note what was done.

        Raises:
            BadFile: the file cannot be written.
        """
        facts = {key: value for key, value in done.facts().items() if key not in ("file", "others", "repeated")}
        files = {file.name: mark(file) for file in (*done.others, done.file)}
        entry = {"made_by": self.made_by, "scan": source_mark(scan), "files": files, **facts}
        with self._lock:
            self._results[scan.result.name] = entry
            self._write()

    def fail(self, scan: Scan, message: str) -> None:
        """Note why a scan failed. Nobody writes a book of failures alone."""
        with self._lock:
            self._results[scan.result.name] = {"made_by": self.made_by, "failed": message}
            if self._on_disk:
                with suppress(AttentusError):  # the disk may be full; whoever reads this knows already
                    self._write()

    def _write(self) -> None:
        write_text(self.file, json.dumps({**self._facts, "results": self._results}, indent=1))
        self._on_disk = True


def mark(file: Path) -> list[int | str]:
    """By what a result is known again: its size and a hash of its content.

    Raises:
        OSError: it is not there.
    """
    digest, size = blake2b(digest_size=16), 0
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
    return [size, digest.hexdigest()]


def source_mark(scan: Scan) -> list[int]:
    """By what a scan is known again: its size and when it was changed; of a folder, number of files, sum and latest.

    Raises:
        OSError: it is not there.
    """
    files = [scan.path] if scan.path.is_file() else [file for file in scan.path.iterdir() if file.is_file()]
    facts = [file.stat() for file in files]
    return [len(facts), sum(fact.st_size for fact in facts), max((fact.st_mtime_ns for fact in facts), default=0)]


def _entries(file: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, AttributeError):
        results = json.loads(file.read_text(encoding="utf-8")).get("results")
        return {k: v for k, v in results.items() if isinstance(v, dict)}
    return {}


def _digest(*texts: str) -> str:
    return blake2b("\n".join(texts).encode(), digest_size=16).hexdigest()
