"""A list of cases, as CSV (or TSV) or JSON: files may lie anywhere and be called anything.

    case,flair,t1c,label,patient,split
    a1,scans/a1_flair.nii.gz,scans/a1_t1c.nii.gz,truth/a1.nii.gz,p7,train

Columns: `case` (left out: the name of the label or image), `label`, `patient` (or subject, group), `split` (train, val,
test; or the number of the fold that holds the case back), and `image`, or one column per channel. Other columns are
passed over where their cells name no files. Paths are relative to the list. JSON is a list of such rows, or
{"cases": [...], "name": ..., "channels": [...], "labels": {name: integer}, "regions": {name: [labels]},
"ignore": [labels], "splits": [{train: [...], val: [...]}, ...]}; an `image` there may be a list of files.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

from attentus.data.layouts.description import load_json
from attentus.data.layouts.found import Found, Sides
from attentus.errors import BadFile
from attentus.io.sniff import READABLE_ENDINGS, stem
from attentus.types import Case

if TYPE_CHECKING:
    from pathlib import Path

    from attentus.data.layouts.tree import Tree

LOOKS_LIKE = (
    "a list of cases, .csv, .tsv or .json, with columns case, image (or one per channel), label, patient, split"
)

NAME = "cases.json"
"""A list of this name stands for the folder it lies in."""

_CASE = ("case", "id", "case_id")
_LABEL = ("label", "labels", "mask", "seg", "segmentation")
_SUBJECT = ("patient", "subject", "group", "patient_id", "subject_id")
_SPLIT = ("split", "fold")
_IMAGE = ("image", "images", "scan")
_VALIDATION = {"val", "validation", "valid", "dev"}

_FIX = "Give every row an image (or one file per channel); docs/how-to/data.md shows a list."


def matches(tree: Tree) -> bool:
    """Whether the path is a table, or JSON that lists cases; or a folder with a cases.json."""
    file = _file(tree.path)
    if file.suffix == ".json" and file.is_file():
        rows = _rows_of(load_json(file))
        return rows is not None
    return file.suffix in (".csv", ".tsv") and file.is_file()


def find(tree: Tree) -> Found:
    """Read the list.

    Raises:
        BadFile: it is no list, a row lacks an image, a case is named twice, or a split is none.
    """
    file = _file(tree.path)
    described: dict[str, Any] = {}
    if file.suffix == ".json":
        content = load_json(file)
        described = content if isinstance(content, dict) else {}
        rows = _rows_of(content)
    else:
        rows = _table(file)
    if not rows:
        raise BadFile(file, "lists no cases", _FIX)
    columns = _channel_columns(file, rows)
    cases = tuple(_case(file, number, row, columns) for number, row in enumerate(rows, start=1))
    for number, case in enumerate(cases):
        if case.id in {other.id for other in cases[:number]}:
            raise BadFile(file, f"names the case '{case.id}' twice", "Give every row a case of its own.")
    named = tuple(map(str, described.get("channels") or ())) or (columns if columns[0] not in _IMAGE else None)
    labels = described.get("labels")
    return Found(
        str(described.get("name", file.stem if file.name != NAME else file.parent.name)),
        file.parent,
        "list",
        cases,
        named,
        {str(k): int(v) for k, v in labels.items() if int(v)} if isinstance(labels, dict) else None,
        {str(k): tuple(map(str, v)) for k, v in (described.get("regions") or {}).items()},
        tuple(map(str, described.get("ignore") or ())),
        tuple(described.get("splits") or ()) or _splits(file, cases, rows),
    )


def _file(path: Path) -> Path:
    return path / NAME if path.is_dir() else path


def _rows_of(content: Any) -> list[dict[str, Any]] | None:
    """The rows of a JSON list of cases; None if it is something else."""
    rows = content.get("cases") if isinstance(content, dict) else content
    return rows if isinstance(rows, list) and all(isinstance(row, dict) for row in rows) else None


def _table(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        try:
            reader = csv.DictReader(stream, delimiter="\t" if file.suffix == ".tsv" else _delimiter(file))
            return [{str(k).strip(): (v or "").strip() for k, v in row.items() if k is not None} for row in reader]
        except (csv.Error, UnicodeDecodeError, AttributeError) as error:
            raise BadFile(file, f"cannot be read as a table ({error})", "Save it as CSV in UTF-8.") from None


def _delimiter(file: Path) -> str:
    """Spreadsheets of half of Europe write semicolons."""
    with file.open(encoding="utf-8-sig") as stream:
        head = stream.readline()
    return ";" if head.count(";") > head.count(",") else ","


def _channel_columns(file: Path, rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """The column of the image, or those of channels: the ones whose cells name files."""
    known = {*_CASE, *_LABEL, *_SUBJECT, *_SPLIT}
    columns = [column for column in rows[0] if column.lower() not in known]
    single = [column for column in columns if column.lower() in _IMAGE]
    found = single[:1] or [c for c in columns if all(_names_file(file, row.get(c)) for row in rows)]
    if not found:
        raise BadFile(file, f"has no column of images among {', '.join(map(str, rows[0]))}", _FIX)
    return tuple(found)


def _names_file(file: Path, cell: Any) -> bool:
    return isinstance(cell, str) and bool(cell) and (cell.endswith(READABLE_ENDINGS) or (file.parent / cell).exists())


def _case(file: Path, number: int, row: dict[str, Any], columns: tuple[str, ...]) -> Case:
    cells = [row.get(column) for column in columns]
    names = [str(name or "") for cell in cells for name in (cell if isinstance(cell, list) else [cell])]
    if not names or not all(names):
        raise BadFile(
            file, f"row {number} has no {columns[0] if len(columns) == 1 else 'image of every channel'}", _FIX
        )
    images = tuple(file.parent / name for name in names)
    label = _cell(row, _LABEL)
    case = _cell(row, _CASE) or stem(label or images[0])
    return Case(case, images, file.parent / label if label else None, _cell(row, _SUBJECT))


def _cell(row: dict[str, Any], names: tuple[str, ...]) -> str:
    """What a row says under one of some names; "" if nothing."""
    found = next((value for key, value in row.items() if str(key).lower() in names and value not in ("", None)), "")
    return str(found)


def _splits(file: Path, cases: tuple[Case, ...], rows: list[dict[str, Any]]) -> tuple[Sides, ...]:
    """The splits that a column names: one with three sides, or one for each fold."""
    said = {case.id: _cell(row, _SPLIT).lower() for case, row in zip(cases, rows, strict=True)}
    said = {case: word for case, word in said.items() if word}
    if not said:
        return ()
    if all(word.isdigit() for word in said.values()):
        folds = sorted(set(map(int, said.values())))
        return tuple(
            Sides(train=[c for c in said if int(said[c]) != fold], val=[c for c in said if int(said[c]) == fold])
            for fold in folds
        )
    words = {case: "val" if word in _VALIDATION else word for case, word in said.items()}
    strange = sorted(set(words.values()) - {"train", "val", "test"})
    if strange:
        raise BadFile(file, f"has the split '{strange[0]}'", "A split is train, val or test, or the number of a fold.")
    sides = {side: [case for case, word in words.items() if word == side] for side in ("train", "val", "test")}
    return (Sides(train=sides["train"], val=sides["val"], test=sides["test"]),)
