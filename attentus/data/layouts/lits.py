"""LiTS, the Liver Tumour Segmentation challenge: volume-N.nii and segmentation-N.nii, flat or in folders of batches.

Liver is 1 and tumour 2. Volumes of the test set (test-volume-N.nii) have no labels and are left out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attentus.data.layouts.found import Found, require_all
from attentus.types import Case

if TYPE_CHECKING:
    from pathlib import Path

    from attentus.data.layouts.tree import Tree

LOOKS_LIKE = "volume-N.nii[.gz] and segmentation-N.nii[.gz], flat or in nested folders (LiTS)"

LABELS = {"liver": 1, "liver tumour": 2}
REGIONS = {"whole liver": ("liver", "liver tumour"), "cancer": ("liver tumour",)}
"""The Medical Segmentation Decathlon, which has the same scans, calls the tumour cancer."""

_FILE = re.compile(r"(volume|segmentation)-(\d+)\.nii(?:\.gz)?")


def matches(tree: Tree) -> bool:
    """Whether there are volumes and segmentations with numbers."""
    return {found[1] for _, found in tree.files(_FILE)} == {"volume", "segmentation"}


def find(tree: Tree) -> Found:
    """Pair volumes and segmentations by their number.

    Raises:
        BadFile: one of a pair is missing, or there are two of one number; the message names them.
    """
    sides: dict[int, dict[str, Path]] = {}
    wrong = []
    for file, found in tree.files(_FILE):
        side = sides.setdefault(int(found[2]), {})
        if found[1] in side:
            wrong.append(
                f"{found[1]}-{found[2]} is there twice, in {side[found[1]].parent.name} and {file.parent.name}"
            )
        side[found[1]] = file
    for number, side in sorted(sides.items()):
        wrong += [f"there is no {kind}-{number}" for kind in ("volume", "segmentation") if kind not in side]
    wrong = wrong or ([] if sides else ["there are no files volume-N.nii and segmentation-N.nii"])
    require_all(tree.path, wrong, "Unpack both batches of the training set completely, each file once.")
    cases = tuple(Case(f"lits_{n:03d}", (side["volume"],), side["segmentation"]) for n, side in sorted(sides.items()))
    return Found("LiTS", tree.path, "lits", cases, ("CT",), LABELS, REGIONS)
