"""attentus data fetch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attentus.cli.options import Json
from attentus.cli.show import print_json, progress, table
from attentus.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attentus.data import Dataset
    from attentus.data.fetch import Entry


def fetch(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Dataset; left out, all are listed.")] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FOLDER", help="Folder of datasets; this one goes to FOLDER/NAME.")
    ] = Path("data"),
    folder: Annotated[
        Path | None, typer.Option(metavar="DOWNLOADED", help="What was downloaded by hand: is it recognised?")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Licence and size are fine: do not ask.")] = False,
    keep_archive: Annotated[bool, typer.Option("--keep-archive", help="Keep what was unpacked.")] = False,
    json: Json = False,
) -> None:
    """Download a public dataset, or tell how to get one that asks for a registration.

    Interrupted, it goes on where it stopped; sums are checked where they are published. Exit code 1 if a person has to
    do the steps that are printed.
    """
    from attentus.data import Dataset
    from attentus.data.fetch import catalogue, entry, get
    from attentus.data.fetch.getting import here

    if name is None:
        _list(list(catalogue().values()), json=json)
        return
    wanted = entry(name)
    if folder is not None:
        _show([Dataset.open(folder)], json=json)
        return
    if wanted.steps:
        _steps(wanted, json=json)
        raise typer.Exit(1)
    if not here(wanted, out):
        _ask(wanted, out, yes=yes)
    _show(get(wanted, out, keep=keep_archive, progress=progress()), json=json)


def _list(entries: list[Entry], *, json: bool) -> None:
    if json:
        print_json([{**entry.model_dump(), "how": _how(entry)} for entry in entries])
        return
    rows = [[entry.name, entry.title, _size(entry), entry.licence, _how(entry)] for entry in entries]
    table(["name", "what", "size", "licence", "how"], rows)


def _ask(wanted: Entry, out: Path, *, yes: bool) -> None:
    """Show what it is; go on only if the user agrees."""
    print(_what(wanted), file=sys.stderr)
    print(f"To:      {out / wanted.name}; about twice the size is needed while it is unpacked", file=sys.stderr)
    if yes:
        return
    if not sys.stdin.isatty():
        raise BadInput("Nobody is here to agree to the licence and the size: say --yes.")
    typer.confirm("Download it?", abort=True, err=True)


def _steps(wanted: Entry, *, json: bool) -> None:
    last = f"attentus data fetch {wanted.name} --folder DOWNLOADED"
    if json:
        print_json({**wanted.model_dump(), "then": last})
        return
    print(_what(wanted))
    print("It cannot be downloaded without you:")
    for number, step in enumerate(wanted.steps, start=1):
        print(f"  {number}. {step}")
    print(f"  {len(wanted.steps) + 1}. See whether it is recognised: {last}")


def _show(datasets: Sequence[Dataset], *, json: bool) -> None:
    facts = [_facts(dataset) for dataset in datasets]
    if json:
        print_json(facts)
        return
    for one in facts:
        ids = one["cases"]
        print(f"{one['folder']}: {one['name']}, layout {one['layout']}, {len(ids)} cases, {one['labelled']} labelled")
        print(f"  channels: {', '.join(one['channels'])}")
        print(f"  labels:   {', '.join(f'{value} {name}' for name, value in one['labels'].items())}")
        print(f"  cases:    {', '.join(ids[:8])}{' ...' * (len(ids) > 8)}")
        print(f"  check it: attentus data check {one['folder']}")


def _facts(dataset: Dataset) -> dict[str, Any]:
    return {
        "folder": str(dataset.root),
        "name": dataset.name,
        "layout": dataset.layout,
        "labelled": len(dataset.labelled),
        "labels": dict(dataset.labels),
        "channels": list(dataset.channels),
        "cases": [case.id for case in dataset],
    }


def _what(wanted: Entry) -> str:
    return (
        f"{wanted.title}\n{wanted.about}\nLicence: {wanted.licence}\nSize:    {_size(wanted)}\nHome:    {wanted.home}"
    )


def _size(wanted: Entry) -> str:
    if not wanted.size_gb:
        return "see home page"
    return f"about {wanted.size_gb:g} GB" if wanted.size_gb >= 1 else f"about {1000 * wanted.size_gb:.0f} MB"


def _how(wanted: Entry) -> str:
    return "download" if wanted.download else "by hand"
