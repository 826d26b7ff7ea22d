"""Volumes as folders of picture slices: every folder of numbered pictures is a case.

    images/a/001.png 002.png ...   labels/a/001.png 002.png ...
    a/images/001.tif ...           a/masks/001.tif ...

Slices are in the order of their numbers. Pictures carry no millimetres: voxels count as 1 mm. Where each picture is a
case of its own and the folder is its patient, the layout is `pairs`; names cannot tell which is meant.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attentus.data.layouts import pairs
from attentus.data.layouts.found import Found
from attentus.errors import BadFile
from attentus.io.sniff import PICTURE_ENDINGS
from attentus.types import Case

if TYPE_CHECKING:
    from pathlib import Path

    from attentus.data.layouts.tree import Tree

LOOKS_LIKE = "numbered slices (PNG, TIFF) of images/CASE/ and labels/CASE/, or CASE/images/ and CASE/labels/: volumes"

_SLICE = re.compile(rf".*\d({'|'.join(map(re.escape, PICTURE_ENDINGS))})", re.IGNORECASE)


def matches(tree: Tree) -> bool:
    """Whether folders of at least two numbered pictures are images and labels of named cases."""
    cases = _cases(tree)
    return any(case.images for case in cases) and any(case.label for case in cases)


def find(tree: Tree) -> Found:
    """List the folders.

    Raises:
        BadFile: no folder of numbered pictures is an image.
    """
    cases = tuple(_cases(tree))
    if not any(case.images for case in cases):
        raise BadFile(tree.path, "holds no folders of numbered pictures", f"They should look like this: {LOOKS_LIKE}.")
    return Found(tree.path.name, tree.path, "stacks", cases, None, None)


def _cases(tree: Tree) -> list[Case]:
    sides: dict[str, dict[str, Path]] = {}
    for folder, listing in tree.listings.items():
        numbered = sum(bool(_SLICE.fullmatch(name)) for name in listing.files)
        if numbered >= 2 and numbered == len(listing.files) and folder != tree.path:
            role, names = pairs.role_of(folder.relative_to(tree.path).parts)
            if names:
                sides.setdefault("_".join(names), {}).setdefault(role or "image", folder)
    return [
        Case(case, (own["image"],) if "image" in own else (), own.get("label")) for case, own in sorted(sides.items())
    ]
