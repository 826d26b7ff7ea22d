"""The raw layout of nnU-Net, version 2.

    imagesTr/CASE_0000.nii.gz  CASE_0001.nii.gz   one file per channel
    labelsTr/CASE.nii.gz
    dataset.json                                  channel_names, labels, file_ending
    splits_final.json                             if it is there: [{train: [CASE, ...], val: [...]}, ...]

A label that is a list of integers is a region; integers that no label has to itself are called "label 1", "label 2".
The label "ignore" marks what was not annotated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attentus.data.layouts import glioma
from attentus.data.layouts.description import file_of, load, load_json
from attentus.data.layouts.found import Found, Sides, require_all
from attentus.errors import BadFile
from attentus.types import Case

if TYPE_CHECKING:
    from pathlib import Path

    from attentus.data.layouts.tree import Tree

LOOKS_LIKE = "a dataset.json with 'channel_names' beside imagesTr/CASE_0000.* and labelsTr/CASE.* (nnU-Net version 2)"

SPLITS = "splits_final.json"


def matches(tree: Tree) -> bool:
    """Whether dataset.json is one of nnU-Net version 2."""
    described = load(file_of(tree.path))
    return "channel_names" in described and "labels" in described


def find(tree: Tree) -> Found:
    """Read dataset.json and pair the files.

    Raises:
        BadFile: dataset.json is not complete, or files are missing; the message names them.
    """
    file = file_of(tree.path)
    described, root = load(file), file.parent
    try:
        names = described["channel_names"]
        channels = tuple(str(names[k]) for k in sorted(names, key=int))
        labels, regions, ignore = _labels(described["labels"])
        listed = described.get("dataset")
        end = str(described["file_ending"])
        cases = _listed(root, listed) if listed else _paired(root, end, len(channels))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadFile(
            file,
            f"is not a complete description of nnU-Net ({type(error).__name__}: {error})",
            'It needs "channel_names": {"0": ...}, "labels": {"background": 0, ...} and "file_ending".',
        ) from None
    name = str(described.get("name", root.name))
    splits = _splits(root / SPLITS)
    return Found(name, root, "nnunet", cases, channels, labels, glioma.regions(labels) | regions, ignore, splits)


def _labels(described: dict[str, Any]) -> tuple[dict[str, int], dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Label name to integer, region to labels, and labels to be ignored."""
    values = {
        str(k): [int(v) for v in (entry if isinstance(entry, list) else [entry])] for k, entry in described.items()
    }
    values.pop("background", None)
    labels = {name: own[0] for name, own in values.items() if len(own) == 1 and own != [0]}
    named = {value: name for name, value in labels.items()}
    for value in sorted({v for own in values.values() for v in own} - {0, *named}):
        named[value] = f"label {value}"
        labels[named[value]] = value
    regions = {name: tuple(named[v] for v in own if v) for name, own in values.items() if len(own) > 1}
    return labels, regions, tuple(name for name in labels if name.lower() == "ignore")


def _paired(root: Path, end: str, channels: int) -> tuple[Case, ...]:
    images, labels = ({p.name for p in _files(root / side, end)} for side in ("imagesTr", "labelsTr"))
    cases, missing = [], []
    one_file = channels > 1 and not any(name.endswith(f"_0001{end}") for name in images)  # colours of a picture
    for case in sorted({name[: -len(end) - 5] for name in images} | {name[: -len(end)] for name in labels}):
        files = [f"{case}_{k:04d}{end}" for k in range(1 if one_file else channels)]
        missing += [f"imagesTr has no {name}" for name in files if name not in images]
        label = root / "labelsTr" / f"{case}{end}" if f"{case}{end}" in labels else None
        cases.append(Case(case, tuple(root / "imagesTr" / name for name in files), label))
    if not images:
        missing = [f"imagesTr has no images that end in _0000{end}"]
    require_all(root, missing, "dataset.json promises one file per channel and case; copy what is missing.")
    return tuple(cases)


def _files(folder: Path, end: str) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.name.endswith(end) and p.name[0] != ".") if folder.is_dir() else []


def _listed(root: Path, entries: dict[str, dict[str, Any]]) -> tuple[Case, ...]:
    """Cases that dataset.json lists itself, as nnU-Net allows for files that lie elsewhere."""
    return tuple(
        Case(case, tuple((root / image).resolve() for image in entry["images"]), (root / entry["label"]).resolve())
        for case, entry in sorted(entries.items())
    )


def _splits(file: Path) -> tuple[Sides, ...]:
    if not file.is_file():
        return ()
    entries = load_json(file)
    if not (isinstance(entries, list) and all(isinstance(e, dict) and {"train", "val"} <= set(e) for e in entries)):
        raise BadFile(file, "is no list of {train: [...], val: [...]}", "Correct the file, or remove it.")
    return tuple(Sides(train=list(map(str, e["train"])), val=list(map(str, e["val"]))) for e in entries)
