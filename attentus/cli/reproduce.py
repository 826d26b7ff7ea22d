"""attentus reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attentus.cli.options import Json
from attentus.cli.show import duration, failures, print_json, progress, table
from attentus.errors import BadInput

if TYPE_CHECKING:
    from attentus.reproduce import Reproduction
    from attentus.reproduce.plan import Plan

PHANTOM_MINUTES = 60.0
"""Of training, on phantoms, where no budget is given."""
COARSE = {"small": 3.0, "full": 1.0}
"""Factor on the voxels of phantoms."""


def reproduce(
    paper: Annotated[
        str, typer.Argument(metavar="PAPER", help="anu-net, ra-unet, attention-unet, msconvlstm-att or dpc-net.")
    ],
    data: Annotated[
        list[str],
        typer.Option(
            metavar="[NAME=]DIR",
            help="Dataset for all of the paper's, or for the one of that name; repeat. Default: built-in phantoms.",
        ),
    ] = [],  # noqa: B006 - Typer copies it
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="OUT", help="Folder. Default: reproduce-PAPER.")
    ] = None,
    tables: Annotated[str | None, typer.Option(metavar="2,6", help="Tables of the paper. Default: all.")] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            help="Of training, shared out equally among the methods. Default: as the recipes say; 60 on phantoms.",
        ),
    ] = None,
    scale: Annotated[
        Literal["auto", "full", "small"],
        typer.Option(help="full: the paper's nets and patches. small: by a quarter. auto: small below 2 h per method."),
    ] = "auto",
    structure: Annotated[
        list[str],
        typer.Option(metavar="NAME=LABEL", help="Label of the data, or several joined by +, that stands in; repeat."),
    ] = [],  # noqa: B006 - Typer copies it
    folds: Annotated[int, typer.Option(min=1, help="Folds trained at most, where the paper has folds.")] = 1,
    cases: Annotated[int, typer.Option(min=4, help="Phantoms drawn.")] = 24,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and write nothing.")] = False,
    json: Json = False,
) -> None:
    """Train a paper's method and its baselines under one protocol; write its tables with our numbers beside its own.

    The same command again goes on where it stopped. A run that fails is listed, and the others go on.
    """
    from attentus.reproduce import Request, Wish, load_paper, make_plan
    from attentus.reproduce import reproduce as do

    minutes = budget if budget is not None or data else PHANTOM_MINUTES
    if minutes is not None and minutes <= 0:
        raise BadInput(f"--budget is a number of minutes above 0; got {minutes:g}.")
    known = load_paper(paper)
    folder = out or Path(f"reproduce-{paper}")
    coarse = COARSE["full" if scale == "full" else "small"]
    asked = Request(_folders(data), _pairs(structure), cases, coarse)
    wish = Wish(tuple(_names(tables)), minutes, scale, folds)
    if dry_run:
        plan = make_plan(known, asked, wish, folder, None)
        print_json(plan.facts()) if json else _show_plan(plan)
        raise typer.Exit(0)
    found = do(paper, folder, asked, wish, progress())
    if json:
        print_json({"folder": str(folder), **found.facts()})
    else:
        _show(found)
    raise typer.Exit(failures({**found.failed, **found.cases}))


def _folders(texts: list[str]) -> dict[str, Path]:
    """NAME=DIR, or DIR for all."""
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        key, folder = (name, rest) if equals and not Path(text).exists() else ("", text)
        if key in found:
            raise BadInput(f"--data names two folders for {key or 'all data'}: {found[key]} and {folder}.")
        found[key] = Path(folder)
    return found


def _pairs(texts: list[str]) -> dict[str, str]:
    """NAME=LABEL."""
    found = {}
    for text in texts:
        name, equals, label = text.partition("=")
        if not (equals and name and label):
            raise BadInput(f"--structure is NAME=LABEL, for example pancreas=Anterior+Posterior; got '{text}'.")
        found[name] = label
    return found


def _names(text: str | None) -> list[str]:
    return [] if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _show_plan(plan: Plan) -> None:
    from rich.markup import escape

    rows = []
    for facts in (step.facts() for step in plan.steps):
        minutes = "–" if not facts["trainings"] else "whole" if facts["minutes"] is None else f"{facts['minutes']:.1f}"
        cells = [
            facts["run"],
            facts["data"],
            facts["made"],
            ", ".join(facts["tables"]),
            str(facts["trainings"]),
            minutes,
        ]
        rows.append([*map(escape, cells), escape(facts["why_not"])])
    title = f"{plan.paper.name}, tables {', '.join(plan.tables)}, scale {plan.scale}"
    table(["run", "data", "made", "tables", "trainings", "minutes", "not possible"], rows, escape(title))
    total = sum(step.trainings for step in plan.doable)
    spent = sum((step.seconds or 0.0) * step.trainings for step in plan.doable)
    print(f"{len(plan.doable)} runs, {total} trainings" + (f", {duration(spent)} of training" if spent else ""))
    print("What differs from the paper:")
    for line in plan.differs():
        print(f"  {line}")


def _show(found: Reproduction) -> None:
    from rich.markup import escape

    from attentus.reproduce.files import in_words

    for result in found.tables:
        rows = []
        for line in result.lines:
            words: list[Any] = [in_words(cell) for cell in line.cells]
            rows.append([escape(line.row.name), *(f"{w.ours or '–'}{w.stars} | {w.printed or '–'}" for w in words)])
        columns = ["ours | published", *(column.name for column in result.table.columns)]
        table(list(map(escape, columns)), rows, escape(f"Table {result.number}: {result.table.title}"))
    print(found.verdict)
    print(f"tables: {found.folder / 'tables'}\nreport: {found.folder / 'index.html'}   (open it in a browser)")
    print(f"what differs from the paper: {found.folder / 'differs.md'}")
