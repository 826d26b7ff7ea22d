"""attentus audit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attentus.cli.options import Data, Json, Overwrite, integers, seconds
from attentus.cli.show import failures, print_json, progress, table
from attentus.errors import BadInput

if TYPE_CHECKING:
    from attentus.explain import Audit, Retrained


def audit(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a trained model with attention.")],
    data: Data,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for numbers and a page.")],
    on: Annotated[
        Literal["validation", "test", "train"], typer.Option("--on", help="Side of the split the cases are on.")
    ] = "validation",
    cases: Annotated[int | None, typer.Option(min=1, help="So many cases at most, evenly spread.")] = None,
    modules: Annotated[
        list[str], typer.Option("--module", metavar="NAME", help="Only this module; repeatable (`attentus nets show`).")
    ] = [],  # noqa: B006 - Typer copies it
    controls: Annotated[
        list[str],
        typer.Option("--replace", metavar="HOW", help="Beside none and mean only: shuffled, channels, other."),
    ] = [],  # noqa: B006
    seeds: Annotated[
        str | None,
        typer.Option(
            "--retrain", metavar="0,1,..", help="Also train anew with and without attention, with these seeds."
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="20m|500", help="Time or steps of each of these trainings; else the recipe's.")
    ] = None,
    margin: Annotated[float, typer.Option(min=0.0, max=1.0, help="Smallest change in mean Dice that matters.")] = 0.005,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Measure what a model's attention is worth: remove, level, shuffle and swap it on cases held back.

    Every module gets a verdict: essential, helpful, decorative, harmful or undecided. Nothing is trained, unless
    --retrain asks for it; those runs lie in OUT-retrained, and the same command goes on with them after a stop.
    """
    from dataclasses import replace

    from attentus.data import Dataset
    from attentus.explain import audit as measure
    from attentus.explain import retrain
    from attentus.explain.replace import CONTROLS
    from attentus.infer.model import Model
    from attentus.io.atomic import check_replaceable
    from attentus.report.audit import FILE, write_audit

    check_replaceable(out, holds=FILE, overwrite=overwrite)
    how: dict[str, Any] = {"side": on, "limit": cases, "modules": modules, "margin": margin}
    loaded, dataset, trained = Model.load(model), Dataset.open(data), None
    chosen, limits = integers(seeds, "--retrain"), _limits(budget)
    if chosen is not None:
        runs = out.with_name(f"{out.name}-retrained")
        trained = retrain(loaded, dataset, runs, seeds=chosen, **limits, margin=margin, progress=progress())
    elif budget is not None:
        raise BadInput("--budget is that of trainings: give --retrain, too.")
    found = measure(loaded, dataset, **how, controls=controls or tuple(CONTROLS), progress=progress())
    found = replace(found, retrained=trained)
    write_audit(found, out, overwrite=overwrite)
    if json:
        print_json(found.facts())
    else:
        _show(found)
        print(f"page: {out / 'index.html'}")
    raise typer.Exit(failures({**found.failures, **(trained.failures if trained else {})}))


def _limits(budget: str | None) -> dict[str, Any]:
    """Steps, or minutes."""
    if budget is not None and budget.isdecimal():
        return {"steps": int(budget)}
    duration = seconds(budget)
    return {"minutes": None if duration is None else duration / 60}


def _show(found: Audit) -> None:
    from attentus.explain.replace import CONTROLS
    from attentus.explain.verdict import rule
    from attentus.report.audit import lines, sentence

    controls = [name for name in CONTROLS if any(name in row.changes for row in found.rows)]
    rows = []
    for line in lines(found, controls, "dice"):
        cells = ["" if cell is None else f"{cell.change}{cell.stars}" for cell in line.cells]
        cost = line.parameters + (f" (shared with {line.shared})" if line.shared else "")
        rows.append([line.name, line.verdict, line.pattern, *cells, cost, line.milliseconds])
    columns = ["module", "verdict", "its pattern", *controls, "parameters", "ms per window"]
    table(columns, rows, f"change in mean Dice, {len(found.cases)} cases ({found.side})")
    print(sentence(found))
    print(rule(found.margin))
    for note in found.notes:
        print(note)
    if found.retrained is not None:
        _show_retrained(found.retrained)


def _show_retrained(found: Retrained) -> None:
    from attentus.report.audit import arms

    rows = [[a.name, a.parameters, a.steps, a.dice, a.by_seed, a.change, a.interval, a.verdict] for a in arms(found)]
    columns = [
        "trained anew",
        "parameters",
        "steps",
        "dice by seed",
        "change by seed",
        "change",
        "95 %",
        "attention is",
    ]
    table(columns, rows, f"{len(found.seeds)} seed(s), {len(found.cases)} cases")
    for note in found.notes:
        print(note)
