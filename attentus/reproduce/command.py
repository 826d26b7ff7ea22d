"""`reproduce`: from a paper's name to its tables with our numbers, unattended, and onwards from wherever it stopped."""

from __future__ import annotations

import json
import re
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attentus.errors import AttentusError, BadFile, BadInput
from attentus.io.atomic import write_text
from attentus.io.plain import json_text
from attentus.progress import Progress, Silent
from attentus.reproduce.files import write_tables
from attentus.reproduce.page import to_html, verdict
from attentus.reproduce.paper import load_paper
from attentus.reproduce.plan import DATA, RUNS, make_plan
from attentus.reproduce.results import TableResult, fill
from attentus.reproduce.work import CACHE, SCORES, do

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from attentus.reproduce.data import Request
    from attentus.reproduce.plan import Plan, Wish
    from attentus.reproduce.work import Done

FILE, PAGE, TABLES, DIFFERS = "reproduction.json", "index.html", "tables", "differs.md"
SETTINGS = "settings.json"
OURS = (FILE, PAGE, TABLES, DIFFERS, SETTINGS, RUNS, SCORES, DATA, CACHE)
"""What a folder of a reproduction holds."""


@dataclass(frozen=True)
class Reproduction:
    """What came out."""

    folder: Path
    plan: Plan
    tables: tuple[TableResult, ...]
    failed: Mapping[str, str]
    """Run to message, of those that were begun and failed."""
    cases: Mapping[str, str]
    """"run, case" to message, of cases that could not be predicted or scored."""

    @property
    def verdict(self) -> str:
        """In one sentence."""
        lost = len(_not_done(self.plan, self.failed))
        return verdict(self.tables, len(self.plan.steps) - lost, lost)

    def facts(self) -> dict[str, Any]:
        """Plain values: plan, tables, failures."""
        return {
            **self.plan.facts(),
            "verdict": self.verdict,
            "failed": dict(self.failed),
            "failed_cases": dict(self.cases),
            "results": [table.facts() for table in self.tables],
        }


def reproduce(
    paper: str, out: str | PathLike[str], asked: Request, wish: Wish, progress: Progress | None = None
) -> Reproduction:
    """Train a paper's method and all its baselines under one protocol and write its tables with our numbers.

    The folder holds runs/ (a folder per run), scores/, tables/ (CSV, Markdown, JSON), index.html, differs.md and
    reproduction.json. Called again with the same wishes, it goes on: what is done is kept, what failed is tried again.

    Args:
        paper: see `papers()`.
        out: the folder.
        asked: about data.
        wish: about tables and cost.
        progress: shows the runs.

    Raises:
        UnknownName: no such paper, table, source or structure.
        BadInput: data that serve no run, or a folder that holds another reproduction.
        BadFile: a folder that holds something else, or that cannot be written to.
    """
    folder, shown = Path(out), progress or Silent()
    known = load_paper(paper)
    _begin(folder, {"paper": paper, **_settings(asked, wish)})
    plan = make_plan(known, asked, wish, folder, shown)
    done, messages = _work(plan, folder, shown)
    failed = {key: _discreet(text, folder) for key, text in messages.items()}
    tables = tuple(fill(number, plan, done, failed) for number in plan.tables)
    lost = {f"{key}, {case}": text for key, run in done.items() for case, text in run.scores.failures.items()}
    found = Reproduction(folder, plan, tables, failed, lost)
    _write(found, done)
    return found


def _work(plan: Plan, folder: Path, progress: Progress) -> tuple[dict[str, Done], dict[str, str]]:
    """Do all runs that can be done; one that fails does not stop those that do not need it."""
    done: dict[str, Done] = {}
    failed: dict[str, str] = {}
    with progress.task("runs", len(plan.doable)) as task:
        for number, step in enumerate(plan.doable, start=1):
            lost = next((key for key in step.run.needs if key in failed), None)
            progress.say(f"run {number} of {len(plan.doable)}: {step.key}")
            try:
                if lost:
                    raise BadInput(f"needs the run '{lost}', which failed")  # noqa: TRY301 - one way to fail
                done[step.key] = do(plan, step, folder, progress)
            except AttentusError as error:
                failed[step.key] = str(error)
            except Exception as error:
                failed[step.key] = f"{type(error).__name__}: {error}"
                write_text(folder / RUNS / f"{step.key}.error.txt", traceback.format_exc())
            if step.key in failed:
                progress.say(f"{step.key} failed: {failed[step.key]}")
            task.advance(1, step.key)
    return done, failed


def _write(found: Reproduction, done: Mapping[str, Done]) -> None:
    """Everything that is shown."""
    folder, plan = found.folder, found.plan
    differs = [_discreet(line, folder) for line in [*plan.differs(), *_as_run(done)]]
    failures = {key: _discreet(text, folder) for key, text in _not_done(plan, found.failed).items()}
    cases = {key: _discreet(text, folder) for key, text in found.cases.items()}
    write_tables(found.tables, folder / TABLES)
    lines = [f"# What differs from the paper: {plan.paper.title}", "", *(f"- {line}" for line in differs), ""]
    write_text(folder / DIFFERS, "\n".join(lines))
    write_text(
        folder / FILE, json_text({**found.facts(), "failed": failures, "failed_cases": cases, "differs": differs})
    )
    write_text(folder / PAGE, to_html(plan, found.tables, done, (failures, cases), differs))


def _as_run(done: Mapping[str, Done]) -> list[str]:
    """What only shows afterwards: cases and hardware."""
    machines = dict.fromkeys(machine for run in done.values() for machine in run.hardware)
    counts = sorted({len(run.scores.cases) for run in done.values()})
    said = [f"Hardware: {' and '.join(machines)}."] if machines else []
    steps = sorted(step for run in done.values() for step in run.steps)
    if steps:
        said.append(f"Trainings came to {steps[0]:,} to {steps[-1]:,} steps.")
    if counts:
        many = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        said.append(f"Numbers are over {many} case{'' if counts == [1] else 's'} that a run had not seen.")
    return said


def _not_done(plan: Plan, failed: Mapping[str, str]) -> dict[str, str]:
    """Run to why there are no numbers of it."""
    return {**{step.key: step.why for step in plan.steps if step.why}, **failed}


def _settings(asked: Request, wish: Wish) -> dict[str, Any]:
    """What a reproduction must not change half way."""
    data = {key: str(Path(folder).resolve()) for key, folder in asked.data.items()}
    phantoms = {} if data else {"cases": asked.cases, "coarse": asked.coarse}
    settings = {**asdict(wish), "data": data, "structures": dict(asked.structures), **phantoms}
    return {**settings, "tables": list(wish.tables)}


def _begin(folder: Path, settings: dict[str, Any]) -> None:
    """Write the wishes into a new folder, or make sure that an existing one has the same.

    Raises:
        BadInput: it holds another reproduction.
        BadFile: it holds something else.
    """
    file = folder / SETTINGS
    if file.is_file():
        before: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            before = json.loads(file.read_text(encoding="utf-8"))
        apart = [f"{k}: {before.get(k)} -> {v}" for k, v in settings.items() if before.get(k) != v]
        if apart:
            lines = "\n  ".join(apart)
            raise BadInput(f"{folder} holds another reproduction:\n  {lines}\n  Choose another folder (-o).")
        return
    if folder.is_dir() and any(path.name not in OURS for path in folder.iterdir()):
        raise BadFile(folder, "is not empty and holds no reproduction", "Choose an empty or a new folder (-o).")
    write_text(file, json.dumps(settings, indent=1))


def _discreet(text: str, folder: Path) -> str:
    """A text without absolute places on this machine."""
    short = text.replace(f"{folder.resolve()}/", "")
    return re.sub(r"(?<![\w/.])/(?:[^\s/:'\"]+/)+(?=[^\s/])", "", short)
