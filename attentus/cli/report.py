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
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write one HTML file about a run: curves, scores, best, median and worst cases in three planes, recipe.

    It needs no network and can be mailed.
    """
    from attentus.report.html import write_report

    file = write_report(run, out or run / "report.html", overwrite=overwrite or out is None, progress=progress())
    if json:
        print_json({"report": str(file)})
    else:
        print(f"report: {file}")
