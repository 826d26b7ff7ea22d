"""BIDS with labels in a derivative.

    sub-01/[ses-1/]anat/sub-01[_ses-1]_T1w.nii.gz   ..._FLAIR.nii.gz                   one channel per suffix
    derivatives/NAME/sub-01/[ses-1/]anat/sub-01[_ses-1][_space-orig]_dseg.nii.gz       a label map (or _seg)
    derivatives/NAME/sub-01/anat/sub-01_label-liver_mask.nii.gz                        or one mask per structure
    derivatives/NAME/[sub-01/anat/..._]dseg.tsv                                        index and name of labels

The folder to open is the dataset, or one derivative in it where several hold labels.
"""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING

from attentus.data.layouts.found import Found, require_all
from attentus.data.layouts.tree import Tree
from attentus.errors import BadFile
from attentus.types import Annotation, Case, Part

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LOOKS_LIKE = "sub-*/anat/sub-*_SUFFIX.nii.gz and derivatives/*/sub-*/anat/*_{dseg,seg,mask}.nii.gz (BIDS)"

_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")
_FILE = re.compile(r"(sub-[A-Za-z0-9]+)((?:_[a-z]+-[A-Za-z0-9+]+)*)_([A-Za-z0-9]+)\.nii(?:\.gz)?")
_MAPS, _MASK = ("dseg", "seg"), "mask"


def matches(tree: Tree) -> bool:
    """Whether folders of subjects are there, and a derivative with labels."""
    try:
        root, derivative = _sides(tree)
    except BadFile:
        return True  # several derivatives: `find` says which
    return derivative is not None and any(_SUBJECT.fullmatch(name) for name in _folders(root))


def find(tree: Tree) -> Found:
    """Pair images and labels by subject and session.

    Raises:
        BadFile: no labels, several derivatives with labels, images without a channel that others have, or a table of
            labels that cannot be read.
    """
    root, derivative = _sides(tree)
    images = _images(root, tree)
    if derivative is None or not images:
        raise BadFile(root, "holds no images with labels in derivatives/", f"It should look like this: {LOOKS_LIKE}.")
    suffixes = list(dict.fromkeys(suffix for own in images.values() for suffix in sorted(own)))
    missing = [f"{key} has no {suffix}" for key, own in images.items() for suffix in suffixes if suffix not in own]
    require_all(root, missing, "Every session needs the same images: move others out of anat/.")
    maps, masks = _labels(derivative)
    strange = [
        f"{derivative.path.name} has labels of {key}, of which there is no image" for key in maps.keys() - images
    ]
    require_all(root, strange, "Complete the images, or remove the labels.")
    structures = sorted({name for own in masks.values() for name in own})
    numbers = {name: value for value, name in enumerate(structures, start=1)}
    cases = []
    for key, own in images.items():
        parts = tuple(Part(own_masks, ((1, 65535, numbers[n]),)) for n, own_masks in masks.get(key, {}).items())
        label = maps.get(key) or (Annotation(parts) if parts else None)
        cases.append(Case(key, tuple(own[suffix] for suffix in suffixes), label, key.split("_")[0]))
    labels = numbers if structures and not maps else _names(root, derivative)
    return Found(root.name, root, "bids", tuple(cases), tuple(suffixes), labels)


def _folders(path: Path) -> list[str]:
    return [p.name for p in path.iterdir() if p.is_dir()] if path.is_dir() else []


def _sides(tree: Tree) -> tuple[Path, Tree | None]:
    """The raw dataset, and the derivative with labels: of several, the one that was opened."""
    path = tree.path
    if path.parent.name == "derivatives":
        return path.parent.parent, Tree(path)
    home = path / "derivatives"
    holding = [one for name in sorted(_folders(home)) if any(_labels(one := Tree(home / name)))]
    if len(holding) > 1:
        names = ", ".join(one.path.name for one in holding)
        raise BadFile(path, f"has labels in several derivatives: {names}", f"Open one of them, e.g. {holding[0].path}.")
    return path, holding[0] if holding else None


def _images(root: Path, tree: Tree) -> dict[str, dict[str, Path]]:
    """Subject and session to suffix to file; of several runs or reconstructions, the first."""
    found: dict[str, dict[str, Path]] = {}
    raw = tree if tree.path == root else Tree(root)
    for file, name in raw.files(_FILE):
        if file.parent.name == "anat" and "derivatives" not in file.relative_to(root).parts:
            found.setdefault(_key(name), {}).setdefault(name[3], file)
    return found


def _labels(derivative: Tree) -> tuple[dict[str, Path], dict[str, dict[str, Path]]]:
    """Label maps by subject and session, and masks by these and structure."""
    maps: dict[str, Path] = {}
    masks: dict[str, dict[str, Path]] = {}
    for file, name in derivative.files(_FILE):
        if name[3] in _MAPS:
            maps.setdefault(_key(name), file)
        elif name[3] == _MASK:
            entities = dict(part.split("-", 1) for part in name[2].split("_") if part)
            masks.setdefault(_key(name), {})[entities.get("label") or entities.get("desc") or "mask"] = file
    return maps, masks


def _key(name: re.Match[str]) -> str:
    session = re.search(r"_ses-[A-Za-z0-9]+", name[2])
    return name[1] + (session[0] if session else "")


def _names(root: Path, derivative: Tree) -> dict[str, int] | None:
    """Labels as the tables beside them name them; the same in all."""
    tables = [file for file, _ in derivative.files(re.compile(r"(?:.*_)?d?seg\.tsv"))]
    tables += [file for file in (root / "dseg.tsv",) if file.is_file()]
    names: dict[str, int] = {}
    for file in tables:
        for row in _rows(file):
            try:
                value, name = int(row["index"]), row["name"]
            except (KeyError, TypeError, ValueError):
                raise BadFile(file, "has no columns index and name", "BIDS wants both in a dseg.tsv.") from None
            if names.setdefault(name, value) != value:
                raise BadFile(file, f"calls {value} '{name}', which is {names[name]} elsewhere", "Correct one table.")
    return {name: value for name, value in names.items() if value} or None


def _rows(file: Path) -> Iterable[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        yield from csv.DictReader(stream, delimiter="\t")
