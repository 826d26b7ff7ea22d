"""attentus data check | show | phantom; import and fetch are registered here."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attentus.cli import data_fetch, data_import
from attentus.cli.options import Data, Json, Overwrite
from attentus.cli.show import print_json, progress, table
from attentus.errors import BadInput

if TYPE_CHECKING:
    from attentus.data import Dataset, Finding
    from attentus.data.repair import Repairs

app = typer.Typer(no_args_is_help=True, help="Look at datasets, check and repair them, get and make them.")
app.command("import", epilog="Example: attentus data import scans/ -o dataset --modality CT --dry-run")(
    data_import.import_dicom
)
app.command("fetch", epilog="Example: attentus data fetch msd-hippocampus -o data")(data_fetch.fetch)

Layout = Annotated[
    str | None,
    typer.Option(
        help="How the folder is arranged, where it can be read in several ways: msd, nnunet, lits, 3dircadb, chaos-ct,"
        " chaos-t1dual, chaos-t2spir, chaos-mr, brats, brats2015, pancreas-ct, bids, list, stacks, pairs.",
        metavar="NAME",
    ),
]


@app.command(epilog="Example: attentus data check Task04_Hippocampus --repair fixed")
def check(
    data: Data,
    layout: Layout = None,
    repair: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            help="Write what can safely be repaired to this new folder, which opens as the repaired dataset; then check"
            " that. Originals stay as they are.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Find what is wrong with a dataset and say what to do about it.

    Missing, empty, damaged files; shape or geometry mismatch; unknown or fractional labels; NaN; empty masks;
    duplicates. Nothing is changed. Exit code 1 if a case cannot be used.

    With --repair: labels stored as floating point become integers; labels off the grid of their image by rounding, or
    without a geometry, take its geometry; labels on a grid of another shape are resampled onto it. OUT holds the new
    labels, a list of all cases, and a log of every change (repairs.md, repairs.json).
    """
    from attentus.data import Dataset

    dataset = Dataset.open(data, layout)
    repairs = _repair(dataset, repair, overwrite=overwrite) if repair else None
    dataset = Dataset.open(repair) if repair else dataset
    findings = dataset.check(progress())
    if json:
        done = (
            {"repairs": {"done": [asdict(one) for one in repairs.done], "refused": repairs.refused}} if repairs else {}
        )
        print_json({**_facts(dataset), **done, "findings": [asdict(finding) for finding in findings]})
    else:
        _show_findings(dataset, findings)
        if repairs:
            print(
                f"{len(repairs.done)} label file(s) repaired, {len(repairs.refused)} case(s) left: {repair}/repairs.md"
            )
    raise typer.Exit(1 if any(finding.severity == "error" for finding in findings) else 0)


@app.command(epilog="Example: attentus data show Task04_Hippocampus --picture sheet.png")
def show(
    data: Data,
    layout: Layout = None,
    picture: Annotated[Path | None, typer.Option(help="Write a contact sheet (PNG) of the cases here.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Cases on the contact sheet and in the table, at most.")] = 40,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Print what a dataset holds, and draw a contact sheet of its cases with their labels."""
    from attentus.data import Dataset
    from attentus.report.sheet import contact_sheet, describe_case

    dataset = Dataset.open(data, layout)
    rows = [describe_case(case, dataset) for case in list(dataset)[:limit]]
    if picture:
        contact_sheet(dataset, picture, limit=limit, overwrite=overwrite, progress=progress())
    if json:
        print_json({**_facts(dataset), "cases": rows, "picture": str(picture) if picture else None})
        return
    facts = _facts(dataset)
    print(f"{facts['name']}: {facts['cases']} cases, {facts['labelled']} labelled, {facts['subjects']} subjects")
    print(f"layout:   {dataset.layout}")
    print(f"channels: {', '.join(dataset.channels)}")
    print(f"labels:   {', '.join(f'{value} {name}' for name, value in dataset.labels.items())}")
    for name, parts in dataset.regions.items():
        print(f"region:   {name} = {' + '.join(parts)}")
    columns = list(rows[0]) if rows else []
    table(columns, [[_cell(row[column], " to " if column == "range" else " × ") for column in columns] for row in rows])
    if len(dataset) > limit:
        print(f"... and {len(dataset) - limit} more (--limit)")
    if picture:
        print(f"contact sheet: {picture}")


@app.command(epilog="Example: attentus data phantom phantom/ --cases 12 --seed 0")
def phantom(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make; must be empty or new.")],
    cases: Annotated[int, typer.Option(min=1, help="How many.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Decides the anatomy.")] = 0,
    kind: Annotated[
        Literal["abdomen", "brain"], typer.Option(help="CT of the abdomen, or MRI of the brain.")
    ] = "abdomen",
    coarse: Annotated[float, typer.Option(min=1.0, help="Factor on the voxel size: 3 is small and quick.")] = 1.0,
    tumours: Annotated[
        str | None,
        typer.Option(
            metavar="MM:MM",
            help="Smallest and largest diameter of liver tumours; then there is one at least in every liver. By default"
            " some livers have none, and many tumours are tiny.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Make synthetic scans in MSD layout: abdominal CT with organs and liver tumours, or brain MRI with a glioma."""
    from attentus.data.phantom import write_dataset

    sizes = _sizes(tumours) if tumours else None
    write_dataset(out, cases, seed=seed, kind=kind, coarse=coarse, tumours=sizes, progress=progress())
    if json:
        print_json({"folder": str(out), "kind": kind, "cases": cases, "seed": seed})
    else:
        print(f"{cases} {kind} phantom(s) in {out}. Look at them: attentus data show {out} --picture sheet.png")


def _sizes(text: str) -> tuple[float, float]:
    """Two numbers out of "10:60"."""
    try:
        smallest, largest = map(float, text.split(":"))
    except ValueError:
        raise BadInput(f"--tumours takes two diameters in mm, as 10:60, not '{text}'.") from None
    return smallest, largest


def _facts(dataset: Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "layout": dataset.layout,
        "cases": len(dataset),
        "labelled": len(dataset.labelled),
        "subjects": len({case.subject for case in dataset}),
        "labels": dict(dataset.labels),
        "regions": {name: list(parts) for name, parts in dataset.regions.items()},
    }


def _repair(dataset: Dataset, out: Path, *, overwrite: bool) -> Repairs:
    from attentus.data.repair import repair

    return repair(dataset, out, overwrite=overwrite, progress=progress())


def _show_findings(dataset: Dataset, findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    colours = {"error": "bold red", "warning": "yellow", "note": "dim"}
    for finding in findings:
        console.print(
            Text.assemble(
                (f"{finding.severity:<8}", colours[finding.severity]),
                (f"{finding.case}: ", "bold"),
                f"{finding.problem}\n        {finding.path}\n        ",
                (finding.fix, "green"),
            )
        )
    counts = [sum(f.severity == severity for f in findings) for severity in colours]
    broken = len({f.case for f in findings if f.severity == "error"})
    print(
        f"{len(dataset)} cases, {len(dataset.labelled)} labelled: {counts[0]} error(s) in {broken} case(s),"
        f" {counts[1]} warning(s), {counts[2]} note(s)"
    )


def _cell(value: Any, between: str = " × ") -> str:
    if isinstance(value, list):
        return between.join(_cell(v) for v in value)
    if isinstance(value, dict):
        return ", ".join(f"{k} {_cell(v)}" for k, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
