"""The layout of the Medical Segmentation Decathlon: imagesTr, labelsTr and a dataset.json that lists and names them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attentus.data.layouts.found import Found
from attentus.errors import BadFile
from attentus.io.sniff import stem
from attentus.types import Case

if TYPE_CHECKING:
    from pathlib import Path

LOOKS_LIKE = "a dataset.json with 'training' and 'labels' beside imagesTr and labelsTr (Medical Segmentation Decathlon)"


def matches(path: Path) -> bool:
    """Whether a folder, or a dataset.json itself, lists its cases the MSD way."""
    file = _manifest(path)
    return file.is_file() and "training" in _load(file)


def find(path: Path) -> Found:
    """Read dataset.json.

    Raises:
        BadFile: an entry is missing or malformed; the message names it.
    """
    file = _manifest(path)
    tree, root = _load(file), file.parent
    try:
        cases = tuple(_case(root, entry) for entry in tree["training"])
        labels = {str(name): int(value) for value, name in tree["labels"].items() if int(value) != 0}
        channels = tuple(str(tree["modality"][k]) for k in sorted(tree["modality"], key=int))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadFile(
            file,
            f"is not a complete MSD description ({type(error).__name__}: {error})",
            'It needs "modality": {"0": ...}, "labels": {"0": "background", ...} and "training": [{"image": ...,'
            ' "label": ...}].',
        ) from None
    return Found(str(tree.get("name", root.name)), root, "msd", cases, channels, labels)


def _manifest(path: Path) -> Path:
    return path / "dataset.json" if path.is_dir() else path


def _load(file: Path) -> dict[str, Any]:
    if file.suffix != ".json":
        return {}
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadFile(file, f"is not valid JSON ({error})", "Correct the file or restore it from the source.") from None
    return tree if isinstance(tree, dict) else {}


def _case(root: Path, entry: dict[str, str]) -> Case:
    image = root / entry["image"]
    return Case(stem(image), (image,), root / entry["label"])
