"""attentus predict."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attentus.cli.options import Json, Overwrite, size
from attentus.cli.show import duration, failures, print_json, progress

if TYPE_CHECKING:
    from attentus.infer.cohort import Done, Scan
    from attentus.infer.cohort.stages import Forecaster
    from attentus.io.dicom_write import Dicom, Kind


def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Folder of a model, of folds, which then vote, or of a cascade.")
    ],
    scans: Annotated[
        Path,
        typer.Argument(metavar="SCANS", help="A scan (NIfTI, NRRD, MHA, DICOM folder, picture) or a folder of them."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="File for one scan, or folder.")],
    ending: Annotated[
        str | None,
        typer.Option(
            "--format", help="nii.gz, nii, nrrd, mha, png, or dcm (DICOM SEG); default nii.gz, png for pictures."
        ),
    ] = None,
    weights: Annotated[Literal["best", "last"], typer.Option(help="Best on validation, or last.")] = "best",
    clean: Annotated[
        bool, typer.Option("--clean/--no-clean", help="Post-process as the model's recipe says (infer.clean).")
    ] = True,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write softmax probabilities.")] = False,
    attention: Annotated[bool, typer.Option("--attention", help="Also write attention coefficients.")] = False,
    seg_type: Annotated[
        Literal["binary", "labelmap", "fractional"] | None,
        typer.Option(help="Of DICOM results: binary masks (default), one label map, or probabilities."),
    ] = None,
    sr: Annotated[
        bool, typer.Option("--sr", help="With DICOM results: also a report of volumes and longest diameters.")
    ] = False,
    codes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Codes of structures for DICOM results (YAML), as in infer.codes."),
    ] = None,
    early_exit: Annotated[
        float | None, typer.Option(metavar="DICE", help="Nested nets: stop at the head that agrees, e.g. 0.99.")
    ] = None,
    speed: Annotated[
        Literal["best", "balanced", "fast"],
        typer.Option(help="best: fp32; balanced: bf16, no flips; fast: 8 bits where they are faster, little overlap."),
    ] = "best",
    vote: Annotated[
        Literal["mean", "majority"], typer.Option(help="How several models decide: mean probability or heads.")
    ] = "mean",
    max_ram: Annotated[
        str | None, typer.Option("--max-ram", metavar="SIZE", help="Memory that may be used, e.g. 4G or 800M.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what it will take, time and memory, and write nothing.")
    ] = False,
    overwrite: Overwrite = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on: leave results that are complete and of this model and options.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes here, each with the model.")] = None,
    cluster: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Dask scheduler that spreads scans.")] = None,
    json: Json = False,
) -> None:
    """Segment scans. Each result lies on its scan's own grid; scans that fail are listed and do not stop the others."""
    from functools import partial

    from attentus.cascade import load_at
    from attentus.infer.cohort import Crew, find_scans, predict_cohort

    found = find_scans(scans, out, ending)
    dicom = _dicom(found, seg_type, codes, sr=sr)
    changes = {} if early_exit is None else {"early_exit": early_exit}
    options: dict[str, Any] = {"scans": len(found), "vote": vote, "weights": weights, "infer": changes}
    load = partial(load_at, model.absolute(), speed, **options)
    loaded = load()
    if dry_run:
        _forecast(loaded, found, json=json)
        return
    limit = None if max_ram is None else size(max_ram, "--max-ram")
    wanted: dict[str, Any] = {
        "clean": clean,
        "probabilities": probabilities,
        "attention": attention,
        "max_ram": limit,
        "dicom": dicom,
    }
    how: dict[str, Any] = {"overwrite": overwrite, "resume": resume, "crew": Crew(load, cluster, workers)}
    try:
        done = predict_cohort(loaded, found, **wanted, **how, progress=progress())
    except KeyboardInterrupt:
        if len(found) > 1:
            print("what is complete stays; the same command with --resume does the others", file=sys.stderr)
        raise
    failed = {name: result for name, result in done.items() if isinstance(result, str)}
    if json:
        rows = {name: result.facts() for name, result in done.items() if not isinstance(result, str)}
        print_json({"model": loaded.recipe.name, "labels": loaded.names, "scans": rows, "failures": failed})
    else:
        for result in done.values():
            if not isinstance(result, str):
                level = "" if result.level is None else f"  level {result.level:.1f}"
                when = "was there" if result.repeated else duration(result.seconds)
                print(f"{result.file}  {when}  {_volumes(result)}{level}")
                for note in result.notes:
                    print(f"  look at it: {note}")
    code = failures(failed)
    raise typer.Exit(2 if code and len(found) == 1 else code)


def _dicom(scans: list[Scan], kind: Kind | None, codes: Path | None, *, sr: bool) -> Dicom | None:
    """How results become DICOM; None where they do not, and nobody said how."""
    from attentus.errors import BadInput
    from attentus.io.dicom_codes import read_codes
    from attentus.io.dicom_write import Dicom

    if not any(scan.is_dicom for scan in scans):
        if kind is not None or codes is not None or sr:
            raise BadInput("--seg-type, --sr and --codes are about DICOM results: name OUT.dcm, or --format dcm.")
        return None
    return Dicom(kind or "binary", read_codes(codes) if codes else {}, report=sr)


def _forecast(model: Forecaster, scans: list[Scan], *, json: bool) -> None:
    """What each scan will take, without doing it."""
    from attentus import io

    rows = {s.name: model.forecast(io.read(s.path, series=s.series, as_stored=True)) for s in scans}
    if json:
        print_json({name: row.facts() for name, row in rows.items()})
        return
    for name, row in rows.items():
        memory = f"{row.most / 2**30:.1f} GiB ({row.least / 2**30:.1f} with sums of windows on disk)"
        print(f"{name}  {row.windows} windows, about {duration(row.seconds)}, {memory}")
    print(f"in all about {duration(sum(row.seconds for row in rows.values()))}; nothing was written")


def _volumes(result: Done) -> str:
    """12.3 ml of each structure, and how much of it post-processing gave and took."""
    texts = []
    for name, ml in result.volumes_ml.items():
        changed = [f"+{result.added_ml[name]:.1f}"] if name in result.added_ml else []
        changed += [f"-{result.removed_ml[name]:.1f}"] if name in result.removed_ml else []
        texts.append(f"{name} {ml:.1f} ml" + (f" (cleaned: {' '.join(changed)})" if changed else ""))
    return ", ".join(texts)
