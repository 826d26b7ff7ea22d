"""The layout of the Medical Segmentation Decathlon: imagesTr, labelsTr and a dataset.json that lists and names them.

An entry may also say whose scan it is ("subject"), as several scans of one patient must not part in a split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attentus.data.layouts import glioma
from attentus.data.layouts.description import file_of, load
from attentus.data.layouts.found import Found, require_all
from attentus.errors import BadFile
from attentus.io.sniff import stem
from attentus.types import Case

if TYPE_CHECKING:
    from pathlib import Path

    from attentus.data.layouts.tree import Tree

LOOKS_LIKE = "a dataset.json with 'training' and 'labels' beside imagesTr and labelsTr (Medical Segmentation Decathlon)"


def matches(tree: Tree) -> bool:
    """Whether a folder, or a dataset.json itself, lists its cases the MSD way."""
    return "training" in load(file_of(tree.path))


def find(tree: Tree) -> Found:
    """Read dataset.json.

    Raises:
        BadFile: an entry is missing or malformed, the message names it; or imagesTr or labelsTr is not there at all.
    """
    file = file_of(tree.path)
    described, root = load(file), file.parent
    try:
        cases = tuple(_case(root, entry) for entry in described["training"])
        labels = {str(name): int(value) for value, name in described["labels"].items() if int(value) != 0}
        channels = tuple(str(described["modality"][k]) for k in sorted(described["modality"], key=int))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadFile(
            file,
            f"is not a complete MSD description ({type(error).__name__}: {error})",
            'It needs "modality": {"0": ...}, "labels": {"0": "background", ...} and "training": [{"image": ...,'
            ' "label": ...}].',
        ) from None
    folders = {path.parent for case in cases for path in (*case.images, case.label)}  # type: ignore[union-attr]
    gone = [f"there is no folder {folder.name}" for folder in sorted(folders) if not folder.is_dir()]
    require_all(root, gone, "Unpack the archive of the task completely: dataset.json lists files in these folders.")
    name = str(described.get("name", root.name))
    return Found(name, root, "msd", cases, channels, labels, glioma.regions(labels))


def _case(root: Path, entry: dict[str, Any]) -> Case:
    images = entry["image"] if isinstance(entry["image"], list) else [entry["image"]]
    files = tuple(root / image for image in images)
    return Case(stem(files[0]), files, root / entry["label"], str(entry.get("subject", "")))
