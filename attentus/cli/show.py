"""What commands share in showing things: errors and progress on stderr, tables and JSON on stdout."""

from __future__ import annotations

import math
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from attentus.metrics import Summary
    from attentus.progress import Progress, Task
    from attentus.train.rehearse import Rehearsal
    from attentus.types import Scores

PLAIN_SECONDS = 5.0
"""How often a line is written where there is no terminal to draw a bar on."""
WIDEST = 10
"""Columns of numbers a table has at most."""


def explain(error: BaseException) -> None:
    """Write an error to stderr, its first line marked."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True)
    console.print(Text.assemble(("Error: ", "bold red"), str(error)))


def progress() -> Progress:
    """A bar where stderr is a terminal, a line every few seconds where it is not."""
    return Bars() if sys.stderr.isatty() else Lines()


def print_json(value: Any) -> None:
    """Write JSON to stdout; numbers that are not finite become null."""
    from attentus.io.plain import json_text

    print(json_text(value))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """Write a table to stdout; every column but the first is set right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        drawn.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console.width = 200  # nothing is cut in a file or a pipe
    console.print(drawn)


def show_scores(scores: Scores, title: str, *, each: bool = False) -> None:
    """Write scores to stdout: mean ± SD per structure, counts of what was missed, and, if few, every case."""
    from attentus.metrics.summary import headline, unfound

    metrics = headline(scores)
    if each:
        for start in range(0, len(metrics), WIDEST):
            _grid("case", _each_case(scores, metrics[start : start + WIDEST]), "")
    _grid("structure", _means(scores, metrics), f"{title}, mean ± SD")
    for kind, alarms in (("missed", False), ("false alarm", True)):
        for structure, cases in unfound(scores, alarms=alarms).items():
            print(f"{kind}: {structure} in {', '.join(cases)}")
    if len(scores.cases) > 1:
        _grid("structure", _pooled(scores), "all cases together")
    print("rules: " + ", ".join(f"{name} {choice}" for name, choice in scores.rules.items()))


def _grid(what: str, lines: Mapping[str, Mapping[str, str]], title: str) -> None:
    """A table with a line for each thing; where that makes it too wide, a column for each. No lines, no table."""
    columns = list(dict.fromkeys(name for cells in lines.values() for name in cells))
    if len(columns) > WIDEST:
        turned = {column: {name: cells.get(column, "") for name, cells in lines.items()} for column in columns}
        _grid("", turned, title)
    elif columns:
        rows = [[name, *(cells.get(column, "") for column in columns)] for name, cells in lines.items()]
        table([what, *columns], rows, title or None)


def _each_case(scores: Scores, metrics: Sequence[str]) -> dict[str, dict[str, str]]:
    lines: dict[str, dict[str, str]] = {}
    for row in scores:
        if row.metric in metrics:
            lines.setdefault(f"{row.case} {row.structure}", {})[_words(row.metric)] = f"{row.value:.4g}"
    return lines


def _means(scores: Scores, metrics: Sequence[str]) -> dict[str, dict[str, str]]:
    from attentus.metrics.summary import detections, summarise

    known = {(found.structure, found.metric): _mean(found) for found in summarise(scores)}
    lines = {}
    for found in detections(scores):
        counts = (found.scored, found.missed, found.false_alarm, len(scores.failures))
        cells = {_words(metric): known.get((found.structure, metric), "") for metric in metrics}
        lines[found.structure] = {**cells, "scored/missed/false/failed": "/".join(map(str, counts))}
    return lines


def _pooled(scores: Scores) -> dict[str, dict[str, str]]:
    """What is no mean over cases, a line per structure."""
    from attentus.metrics.pooled import pooled

    lines: dict[str, dict[str, str]] = {}
    for number in pooled(scores):
        lines.setdefault(number.structure, {})[_words(number.metric)] = f"{number.value:.4g}"
    return lines


def _words(metric: str) -> str:
    """A metric with spaces, where a narrow column can be broken."""
    return metric.replace("_", " ")


def show_rehearsal(found: Rehearsal, name: str) -> None:
    """Write the result of a rehearsal to stdout."""
    rows = [
        [structure, f"{found.share[structure]:.2%}", "-" if math.isnan(dice) else f"{dice:.3f}"]
        for structure, dice in found.dice.items()
    ]
    table(["structure", "of the voxels", "dice"], rows, f"{name}, learning by heart: {', '.join(found.cases)}")
    before, after = found.losses
    print(f"loss       {before:.4f} -> {after:.4f} in {found.steps} steps")
    print(f"speed      {found.seconds_per_step:.2f} s per step, {found.waiting:.0%} of it waiting for patches")
    print(f"memory     {found.peak_mib / 1024:.1f} GiB at most; {found.parameters:,} weights to train")
    print(f"whole training at this speed: {duration(3600 * found.hours)}")
    print(f"verdict    {found.verdict}")
    for line in found.advice:
        print(f"  {line}")


def _mean(summary: Summary) -> str:
    from attentus.report.tables import shown

    left_out = summary.n_nan + summary.n_inf
    text = shown(summary.mean, summary.metric)
    if summary.n > 1:
        text += f" ± {shown(summary.sd, summary.metric).removeprefix('+')}"
    return f"{text} ({summary.n} of {summary.n + left_out})" if left_out else text


def failures(failed: Mapping[str, str], of: str = "") -> int:
    """List failed cases (of one among several) on stderr; the exit code that goes with them."""
    for case, message in failed.items():
        print(f"failed: {of and f'{of}: '}{case}: {message}", file=sys.stderr)
    return 1 if failed else 0


def duration(seconds: float) -> str:
    """12 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Lines:
    """Progress as plain lines on stderr."""

    @contextmanager
    def task(self, what: str, total: int, done: int = 0) -> Iterator[Task]:
        """Open a task."""
        yield _Line(what, total, done)

    def say(self, message: str) -> None:
        """Write a line."""
        print(message, file=sys.stderr, flush=True)


class _Line:
    def __init__(self, what: str, total: int, done: int) -> None:
        self.what, self.total, self.done, self.first = what, total, done, done
        self.started = self.told = time.monotonic()

    def advance(self, steps: int = 1, note: str = "", total: int | None = None) -> None:
        self.done += steps
        self.total = total or self.total
        now = time.monotonic()
        if now - self.told < PLAIN_SECONDS:
            return
        self.told = now
        left = (now - self.started) / max(self.done - self.first, 1) * (self.total - self.done)
        print(
            f"{self.what} {self.done}/{self.total}  {duration(left)} left  {note}".rstrip(), file=sys.stderr, flush=True
        )


class Bars:
    """Progress as bars on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(
            *columns,
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._open = 0

    @contextmanager
    def task(self, what: str, total: int, done: int = 0) -> Iterator[Task]:
        """Open a task; its bar goes away when it is done."""
        if not self._open:
            self._bars.start()
        self._open += 1
        number = self._bars.add_task(what, total=total, completed=done, note="")
        try:
            yield _Bar(self._bars, number)
        finally:
            self._bars.remove_task(number)
            self._open -= 1
            if not self._open:
                self._bars.stop()

    def say(self, message: str) -> None:
        """Write a line above the bars."""
        self._bars.console.print(message, highlight=False, markup=False)


class _Bar:
    def __init__(self, bars: Any, number: Any) -> None:
        self._bars, self._number = bars, number

    def advance(self, steps: int = 1, note: str = "", total: int | None = None) -> None:
        self._bars.update(self._number, advance=steps, note=note, total=total)
