"""BraTS 2012 to 2015: a folder per examination; channels and truth are told by their names.

    brats_2013_pat0001_1/VSD.Brain.XX.O.MR_Flair.54512/VSD.Brain.XX.O.MR_Flair.54512.mha     as it is distributed
    brats_2013_pat0001_1/VSD.Brain_3more.XX.XX.OT.54517/VSD.Brain_3more.XX.XX.OT.54517.mha
    brats_2013_pat0001_1/Flair_subtrMeanDivStd.nii.gz   T1c_...   OTMultiClass.nii.gz        as DeepMedic passes it on

Channels are those that every examination has. Examinations of one patient (the number at the end) share a subject.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attentus.data.layouts import glioma
from attentus.data.layouts.found import Found, require_all
from attentus.types import Case

if TYPE_CHECKING:
    from pathlib import Path

    from attentus.data.layouts.tree import Tree

LOOKS_LIKE = "brats_YEAR_patN_M with files ...MR_Flair..., ...MR_T1c..., ...OT... (BraTS 2012 to 2015)"

LABELS = {glioma.NECROSIS: 1, glioma.EDEMA: 2, glioma.NON_ENHANCING: 3, glioma.ENHANCING: 4}

_FOLDER = re.compile(r"(brats_\w+?_pat\d+)_(\d+)", re.IGNORECASE)
_SIDES = {
    side: re.compile(rf"(?:.*\.MR_{end}\..*|{end}_.*)\.(?:mha|nii(?:\.gz)?)", re.IGNORECASE)
    for side, end in {"flair": "Flair", "t1": "T1", "t1c": "T1c", "t2": "T2"}.items()
}
_TRUTH = re.compile(r"(?:.*\.OT\..*|OT.*)\.(?:mha|nii(?:\.gz)?)", re.IGNORECASE)


def matches(tree: Tree) -> bool:
    """Whether a folder is called like an examination and holds channels."""
    return any(sides for sides in _examinations(tree).values())


def find(tree: Tree) -> Found:
    """List examinations, and the channels that all of them have.

    Raises:
        BadFile: an examination lacks a channel that others have.
    """
    examinations = _examinations(tree)
    channels = [c for c in glioma.CHANNELS if any(c in sides for sides in examinations.values())]
    missing = [] if channels else ["there is no brats_YEAR_patN_M with a ...MR_Flair..."]
    for folder, sides in examinations.items():
        missing += [f"{folder.name} has no {channel}" for channel in channels if channel not in sides]
    require_all(tree.path, missing, "Unpack the archive completely: every examination has the same channels.")
    cases = tuple(
        Case(f.name, tuple(sides[c] for c in channels), sides.get("truth"), _FOLDER.fullmatch(f.name)[1])  # type: ignore[index]
        for f, sides in examinations.items()
    )
    return Found("BraTS 2015", tree.path, "brats2015", cases, tuple(channels), LABELS, glioma.regions(LABELS))


def _examinations(tree: Tree) -> dict[Path, dict[str, Path]]:
    """Folder to channel (or "truth") to file."""
    found = {}
    for folder in tree.listings:
        if _FOLDER.fullmatch(folder.name):
            files = [p / name for p in tree.listings if p.is_relative_to(folder) for name in tree.listings[p].files]
            found[folder] = {
                side: file
                for side, pattern in {**_SIDES, "truth": _TRUTH}.items()
                for file in files
                if pattern.fullmatch(file.name)
            }
    return found
