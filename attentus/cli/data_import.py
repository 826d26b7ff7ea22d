"""attentus data import."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attentus.cli.options import Json, Overwrite
from attentus.cli.show import failures, print_json, progress, table
from attentus.errors import BadInput

if TYPE_CHECKING:
    from attentus.data.imports import Channel, Plan, Result, Row, Wish


def import_dicom(
    tree: Annotated[Path, typer.Argument(metavar="TREE", help="Folder with DICOM files, in any arrangement.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="OUT", help="Folder to make, in MSD layout.")
    ] = None,
    modality: Annotated[
        str | None, typer.Option(metavar="CODE", help="Only series of this kind: CT, MR, PT, ...")
    ] = None,
    series_description: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Only series so described, e.g. '*portal*'.")
    ] = None,
    channel: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=WHAT",
            help="A channel of several, the first gives the grid: CT=CT, PET=PT, T1='MR:*T1*'; repeat it. WHAT is a"
            " modality, a description, or both.",
        ),
    ] = [],  # noqa: B006
    label: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=PATTERN", help="A label and the structures it is made of, e.g. liver='Liver*'; repeat it."
        ),
    ] = [],  # noqa: B006
    overlap: Annotated[
        Literal["smaller", "later"],
        typer.Option(
            help="Who gets a voxel that several labels claim: the smaller one, or the one with the later number."
        ),
    ] = "smaller",
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="Scans without labels, too; they go to imagesTs.")
    ] = False,
    names: Annotated[
        Literal["number", "hash", "patient"],
        typer.Option(help="Call cases case_001, or by a hash that stays when scans are added, or by PatientID."),
    ] = "number",
    mapping: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write which patient and series each case is (CSV). Undoes de-identification."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would become of each series.")] = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Convert a DICOM tree with RTSTRUCT or DICOM SEG labels into a dataset in MSD layout.

    No patient tag is copied. Run again with the same OUT, it goes on where it stopped. Exit code 1 if a series that
    was chosen, or a file, cannot be used.
    """
    from attentus.data.imports import choose, convert, survey
    from attentus.data.imports.convert import write_mapping
    from attentus.io.atomic import require_free

    wish = _wish(modality, series_description, channel, label, unlabelled=unlabelled, names=names)
    if out is None and not dry_run:
        raise BadInput("Name the folder to make (-o OUT), or look first (--dry-run).")
    if mapping:
        require_free(mapping, overwrite=overwrite)
    plan = choose(survey(tree, progress()), wish)
    if dry_run or out is None:
        _show_plan(plan, tree, json=json, patients=names == "patient")
        return
    result = convert(plan, out, overlap=overlap, overwrite=overwrite, progress=progress())
    if mapping:
        write_mapping(plan, mapping, overwrite=overwrite)
    if json:
        print_json({**asdict(result), "folder": str(result.folder), "labels": plan.labels, "damaged": plan.damaged})
    else:
        _show_result(plan, result)
    unreadable = {f"file {number}": message for number, message in enumerate(plan.damaged, start=1)}
    raise typer.Exit(failures({**result.failures, **unreadable}))


def _wish(
    modality: str | None,
    description: str | None,
    channels: list[str],
    labels: list[str],
    *,
    unlabelled: bool,
    names: Literal["number", "hash", "patient"],
) -> Wish:
    from attentus.data.imports import Channel, Wish

    if channels and (modality or description):
        raise BadInput("--channel says what each channel is made of; leave out --modality and --series-description.")
    wanted = tuple(_channel(*_pair(text, "--channel")) for text in channels)
    patterns: dict[str, tuple[str, ...]] = {}
    for text in labels:
        name, pattern = _pair(text, "--label")
        patterns[name] = (*patterns.get(name, ()), pattern)
    return Wish(wanted or (Channel("", modality, description),), patterns, unlabelled, names)


def _channel(name: str, what: str) -> Channel:
    from attentus.data.imports import Channel

    both = re.fullmatch(r"([A-Z]{2}):(.+)", what)
    return Channel(name, both[1], both[2]) if both else Channel(name, either=what)


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, what = text.partition("=")
    if not (name.strip() and equals and what.strip()):
        raise BadInput(f"{option} is NAME=PATTERN, such as liver='Liver*'; got '{text}'.")
    return name.strip(), what.strip()


def _show_plan(plan: Plan, tree: Path, *, json: bool, patients: bool) -> None:
    rows = [_facts(row, tree, patients=patients) for row in plan.rows]
    if json:
        cases = [{"case": case.name, "problem": case.problem or None, "notes": case.notes} for case in plan.cases]
        facts = {"channels": plan.channels, "labels": plan.labels, "cases": cases, "series": rows}
        print_json({**facts, "damaged": plan.damaged, "refusal": plan.refusal or None})
        return
    columns = ["patient", "study", "series", "modality", "description", "slices", "spacing", "structures", "use"]
    table(columns, [[_cell(row[column]) for column in columns] for row in rows])
    for case in plan.cases:
        for note in case.notes:
            print(f"{case.name}: {note}")
    for message in plan.damaged:
        print(f"cannot be read: {message}")
    broken = sum(bool(case.problem) for case in plan.cases)
    print(f"{len(plan.cases)} case(s), {broken} of them cannot be used; labels: {', '.join(plan.labels) or 'none'}")
    if plan.refusal:
        print(f"As it is, nothing would be imported: {plan.refusal}")


def _facts(row: Row, tree: Path, *, patients: bool) -> dict[str, Any]:
    """A line of the table; the PatientID only if cases are to be called by it."""
    from attentus.data.imports.survey import ImageSeries

    facts: dict[str, Any] = {"patient": row.what.owner.patient if patients else row.patient, "study": row.study}
    if isinstance(row.what, ImageSeries):
        image, grid = row.what, row.what.geometry
        facts |= {"series": image.number, "modality": image.modality, "description": image.description}
        facts |= {"slices": image.slices, "spacing": None if isinstance(grid, str) else grid.spacing}
        place = image.folder
    else:
        facts |= {"series": "", "modality": row.what.kind, "description": "", "slices": None, "spacing": None}
        place = row.what.file
    facts |= {"structures": row.structures, "use": row.use, "chosen": row.chosen}
    return {**facts, "series_uid": row.what.owner.series, "where": str(place.relative_to(tree))}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return (" × " if value and isinstance(value[0], float) else ", ").join(map(_cell, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _show_result(plan: Plan, result: Result) -> None:
    rows = []
    for name, facts in result.cases.items():
        volumes = ", ".join(f"{label} {ml:.4g}" for label, ml in facts.labels_ml.items())
        shared = ", ".join(f"{pair} {voxels}" for pair, voxels in facts.overlaps.items())
        rows.append([name, _cell(tuple(map(float, facts.shape))), _cell(tuple(facts.spacing)), volumes or "-", shared])
    if rows:
        table(["case", "voxels", "spacing, mm", "labels, ml", "overlaps, voxels"], rows)
    for name, facts in result.cases.items():
        for note in facts.notes:
            print(f"{name}: {note}")
    left = sum(not row.chosen for row in plan.rows)
    before = len(result.cases) - result.written
    print(
        f"{len(result.cases)} case(s) in {result.folder}, {result.written} written now, {before} before,"
        f" {len(result.failures)} failed; {left} series not used (--dry-run tells why)"
    )
