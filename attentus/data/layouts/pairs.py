"""Images and labels paired by name: two sibling folders, one folder with telling endings, or a folder per case.

    images/a.nii.gz  labels/a.nii.gz        imagesTr, scans, img, ... and labelsTr, masks, seg, gt, ...
    a_image.nrrd     a_label.nrrd           or a.png and a_mask.png
    a/image.nii.gz   a/label.nii.gz         the folder names the case and the subject

A folder around the files names the subject. A manifest can say more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attentus.data.layouts.found import Found
from attentus.errors import BadFile
from attentus.io.sniff import READABLE_ENDINGS, ending, stem
from attentus.types import Case

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from attentus.data.layouts.tree import Tree

LOOKS_LIKE = (
    "image/label pairs: images/ and labels/, or NAME_image.* and NAME_label.*, or NAME/image.* and NAME/label.*"
)

DEPTH = 3
"""How many folders deep files are looked for."""

_IMAGE = r"images?|imagestr|imgs?|scans?|volumes?"
_LABEL = r"labels?|labelstr|masks?|segs?|segmentations?|gts?|ground_?truth|annotations?"
_IMAGE_FOLDER, _LABEL_FOLDER = (re.compile(rf"({words})", re.IGNORECASE) for words in (_IMAGE, _LABEL))
_IMAGE_END, _LABEL_END = (re.compile(rf"(?:^|[._ -])({words})$", re.IGNORECASE) for words in (_IMAGE, _LABEL))


def matches(tree: Tree) -> bool:
    """Whether files can be told apart as images and labels."""
    cases = _cases(tree)
    return any(case.images for case in cases) and any(case.label for case in cases)


def find(tree: Tree) -> Found:
    """Pair the files.

    Raises:
        BadFile: there are no images.
    """
    cases = tuple(_cases(tree))
    if not any(case.images for case in cases):
        raise BadFile(tree.path, "holds no images", f"Attentus looks for {LOOKS_LIKE}.")
    return Found(tree.path.name, tree.path, "pairs", cases, None, None)


def role_of(folders: Sequence[str]) -> tuple[str | None, list[str]]:
    """What names of folders say files in them are ("image", "label" or nothing), and the names that say nothing."""
    role, others = None, []
    for folder in folders:
        if _IMAGE_FOLDER.fullmatch(folder):
            role = "image"
        elif _LABEL_FOLDER.fullmatch(folder):
            role = "label"
        else:
            others.append(folder)
    return role, others


def _cases(tree: Tree) -> list[Case]:
    sides: dict[str, dict[str, Path]] = {}
    subjects: dict[str, str] = {}
    for file in _files(tree):
        key, role, subject = _tell(file.relative_to(tree.path))
        sides.setdefault(key, {}).setdefault(role, file)
        subjects[key] = subject
    return [
        Case(key, (side["image"],) if "image" in side else (), side.get("label"), subjects[key])
        for key, side in sorted(sides.items())
    ]


def _tell(file: Path) -> tuple[str, str, str]:
    """Case id, "image" or "label", and subject, from a path relative to the root."""
    *folders, name = (*file.parts[:-1], stem(file))
    role, kept = role_of(folders)
    for candidate, pattern in (("image", _IMAGE_END), ("label", _LABEL_END)):
        if role in (None, candidate) and (found := pattern.search(name)):
            role, name = candidate, name[: found.start()]
            break
    key = "_".join(part for part in (*kept, name) if part)
    return key or stem(file), role or "image", kept[0] if kept else key or stem(file)


def _files(tree: Tree) -> Iterator[Path]:
    for folder, listing in tree.listings.items():
        if len(folder.parts) - len(tree.path.parts) <= DEPTH:
            yield from (folder / name for name in listing.files if ending(name) in READABLE_ENDINGS)
