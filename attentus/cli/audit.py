"""attentus audit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attentus.cli.options import Data, Json, Overwrite
from attentus.cli.show import failures, print_json, progress, table

if TYPE_CHECKING:
    from attentus.explain import Audit


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
    margin: Annotated[float, typer.Option(min=0.0, max=1.0, help="Smallest change in mean Dice that matters.")] = 0.005,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Measure what a model's attention is worth: remove, level, shuffle and swap it on cases held back.

    Nothing is trained. Every module gets a verdict: essential, helpful, decorative, harmful or undecided.
    """
    from attentus.data import Dataset
    from attentus.explain import audit as measure
    from attentus.explain.replace import CONTROLS
    from attentus.infer.model import Model
    from attentus.io.atomic import check_replaceable
    from attentus.report.audit import FILE, write_audit

    check_replaceable(out, holds=FILE, overwrite=overwrite)
    how: dict[str, Any] = {"side": on, "limit": cases, "modules": modules, "margin": margin}
    found = measure(
        Model.load(model), Dataset.open(data), **how, controls=controls or tuple(CONTROLS), progress=progress()
    )
    write_audit(found, out, overwrite=overwrite)
    if json:
        print_json(found.facts())
    else:
        _show(found)
        print(f"page: {out / 'index.html'}")
    raise typer.Exit(failures(found.failures))


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
