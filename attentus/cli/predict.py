"""attentus predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from attentus.cli.options import Json, Overwrite
from attentus.cli.show import duration, failures, print_json, progress


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a trained model.")],
    scans: Annotated[
        Path,
        typer.Argument(metavar="SCANS", help="A scan (NIfTI, NRRD, MHA, DICOM folder, picture) or a folder of them."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="File for one scan, or folder.")],
    ending: Annotated[
        str | None, typer.Option("--format", help="nii.gz, nii, nrrd, mha or png; default nii.gz, png for pictures.")
    ] = None,
    weights: Annotated[Literal["best", "last"], typer.Option(help="Best on validation, or last.")] = "best",
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write softmax probabilities.")] = False,
    attention: Annotated[bool, typer.Option("--attention", help="Also write attention coefficients.")] = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Segment scans. Each result lies on its scan's own grid; scans that fail are listed and do not stop the others."""
    from attentus.infer.cohort import find_scans, predict_cohort
    from attentus.infer.model import Model

    found = find_scans(scans, out, ending)
    loaded = Model.load(model, weights=weights)
    done = predict_cohort(
        loaded, found, probabilities=probabilities, attention=attention, overwrite=overwrite, progress=progress()
    )
    failed = {name: result for name, result in done.items() if isinstance(result, str)}
    if json:
        rows = {name: result.facts() for name, result in done.items() if not isinstance(result, str)}
        print_json({"model": loaded.recipe.name, "labels": loaded.names, "scans": rows, "failures": failed})
    else:
        for result in done.values():
            if not isinstance(result, str):
                volumes = ", ".join(f"{name} {ml:.1f} ml" for name, ml in result.volumes_ml.items())
                print(f"{result.file}  {duration(result.seconds)}  {volumes}")
    raise typer.Exit(2 if failed and len(failed) == len(found) == 1 else failures(failed))
