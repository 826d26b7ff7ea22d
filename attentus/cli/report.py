"""attentus report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attentus.cli.options import Json, Overwrite
from attentus.cli.show import print_json, progress


def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a training, or a JSON file of `attentus score`.")
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Default: RUN/report.html, or beside the JSON.")
    ] = None,
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
    """Write one HTML file about a run or a scored cohort: scores, cases in three planes, surfaces, curves, recipe.

    It needs no network and can be mailed.
    """
    from attentus.report.cohort import write_cohort
    from attentus.report.html import write_report

    replace = overwrite or out is None
    if run.is_file():
        file = write_cohort(run, out or run.with_suffix(".html"), overwrite=replace)
    else:
        place = out or run / "report.html"
        file = write_report(run, place, overwrite=replace, progress=progress(), probabilities=probabilities)
    if json:
        print_json({"report": str(file)})
    else:
        print(f"report: {file}")
