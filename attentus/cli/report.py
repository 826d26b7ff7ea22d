"""attentus report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attentus.cli.options import Json, Overwrite
from attentus.cli.show import print_json, progress


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished training.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help="Default: RUN/report.html.")] = None,
    probabilities: Annotated[
        bool | None,
        typer.Option(
            "--probabilities/--no-probabilities",
            help="Predict the median case again and draw its probabilities. Default: if that took 30 s at most.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write one HTML file about a run: scores, cases in three planes, surfaces, curves, recipe.

    It needs no network and can be mailed.
    """
    from attentus.report.html import write_report

    place, replace = out or run / "report.html", overwrite or out is None
    file = write_report(run, place, overwrite=replace, progress=progress(), probabilities=probabilities)
    if json:
        print_json({"report": str(file)})
    else:
        print(f"report: {file}")
