"""What label values are called: inside the file, or in a description beside it.

Inside: segments of a DICOM SEG, the label table TotalSegmentator writes into NIfTI, 3D Slicer's .seg.nrrd. Beside: a
label description of ITK-SNAP, `labels.json` of a prediction, `dataset.json` of nnU-Net and the Medical Segmentation
Decathlon, `dataset.yaml` of a manifest; the last three also one folder up, where labelsTr lies.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import yaml

from attentus.errors import AttentusError, BadFile
from attentus.io.dicom_seg import is_segmentation, segment_names
from attentus.io.itk import itk_names
from attentus.io.nifti import nifti_names
from attentus.io.sniff import READABLE_ENDINGS, ending, sniff, stem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Names = dict[str, tuple[int, ...]]
"""Label name to the values its voxels hold, background left out."""

_DESCRIPTIONS = ("labels.json", "dataset.json", "dataset.yaml")
_NOT_STRUCTURES = ("background", "ignore", "clear label", "clear")
_SNAP_LINE = re.compile(r'^\s*(\d+)(?:\s+[\d.]+){6}\s+"(.*)"\s*$', re.MULTILINE)
"""Of ITK-SNAP: value, colour, three switches, name."""


def own_names(path: Path) -> Names | None:
    """Names that a label file, or the label description of ITK-SNAP called like it, gives to its labels.

    Returns:
        Label name to values; None where nobody says, or where the file cannot be read.
    """
    return _inside(path) or _snap(path.with_name(f"{stem(path)}.label"))


def folder_names(folder: Path) -> Names | None:
    """Names that a description in the folder, or one folder up, gives to the labels there.

    Returns:
        Label name to values; None where nobody says.

    Raises:
        BadFile: a description that cannot be read.
    """
    for place in (folder, folder.parent):
        for name in _DESCRIPTIONS:
            if found := _described(place / name):
                return found
    if not folder.is_dir():
        return None
    images = {stem(file) for file in folder.iterdir() if ending(file) in READABLE_ENDINGS}
    common = [file for file in folder.glob("*.label") if file.stem not in images]  # the others are of one image each
    return _snap(common[0]) if len(common) == 1 else None


def _inside(path: Path) -> Names:
    try:
        kind, compressed = sniff(path)
        if kind == "nifti":
            return nifti_names(path, compressed=compressed)
        if kind == "nrrd":
            return itk_names(path, kind)
        return segment_names(path) if kind == "dicom" and is_segmentation(path) else {}
    except AttentusError:
        return {}  # reading the voxels says what is wrong with the file


def _described(file: Path) -> Names | None:
    if not file.is_file():
        return None
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8")) if file.suffix == ".yaml" else _json(file)
        labels = tree.get("labels") if isinstance(tree, dict) else None
        return _values(labels) if isinstance(labels, dict) else None
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise BadFile(
            file,
            f"names no labels that can be read ({error})",
            'Write "labels": {"liver": 1, ...}, remove the file, or name the labels yourself (--label liver=1).',
        ) from None


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _values(labels: Mapping[Any, Any]) -> Names:
    """Name to values; the Decathlon writes value to name, nnU-Net lists the parts of a region."""
    names: Names = {}
    for key, entry in labels.items():
        turned = isinstance(entry, str) and str(key).isdigit()
        name, value = (entry, key) if turned else (key, entry)
        values = tuple(int(v) for v in (value if isinstance(value, list) else [value]))
        if str(name).lower() not in _NOT_STRUCTURES and values != (0,):
            names[str(name)] = values
    return names


def _snap(file: Path) -> Names | None:
    if not file.is_file():
        return None
    lines = _SNAP_LINE.findall(file.read_text(encoding="utf-8", errors="replace"))
    return {name: (int(value),) for value, name in lines if name.lower() not in _NOT_STRUCTURES} or None
