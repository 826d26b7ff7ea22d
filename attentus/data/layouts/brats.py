"""BraTS 2017 to 2023: a folder per examination, a file per channel, called like the folder.

    BraTS20_Training_001/BraTS20_Training_001_{flair,t1,t1ce,t2,seg}.nii[.gz]    2017 to 2021
    BraTS-GLI-00000-000/BraTS-GLI-00000-000-{t2f,t1n,t1c,t2w,seg}.nii.gz         2023

Until 2021 the enhancing tumour is 4, since 2023 it is 3; it has the same name in both. The last number in a name of
2023 is a point in time: its subject is the name without it. Examinations without a segmentation (validation) are cases
without labels.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attentus.data.layouts import glioma
from attentus.data.layouts.found import Found, require_all
from attentus.errors import BadFile
from attentus.types import Case

if TYPE_CHECKING:
    from pathlib import Path

    from attentus.data.layouts.tree import Tree

LOOKS_LIKE = "CASE/CASE_{flair,t1,t1ce,t2,seg}.nii[.gz] or CASE/CASE-{t2f,t1n,t1c,t2w,seg}.nii.gz (BraTS 2017 to 2023)"

_ENDS = {
    "_": {"flair": "flair", "t1": "t1", "t1c": "t1ce", "t2": "t2"},
    "-": {"flair": "t2f", "t1": "t1n", "t1c": "t1c", "t2": "t2w"},
}
"""By what stands before it: channel to the end of its file's name."""

LABELS = {
    "_": {glioma.NON_ENHANCING: 1, glioma.EDEMA: 2, glioma.ENHANCING: 4},
    "-": {glioma.NON_ENHANCING: 1, glioma.EDEMA: 2, glioma.ENHANCING: 3},
}
"""Of the same; the necrotic core counts as non-enhancing tumour."""

_FILE = re.compile(
    r"(?P<case>.+?)(?P<between>[_-])(?P<end>flair|t1ce|t1|t2|t2f|t1n|t1c|t2w|seg)\.nii(?:\.gz)?", re.IGNORECASE
)
_ODD_SEG = re.compile(r".*_Segm\.nii(?:\.gz)?")
"""One segmentation of 2020 kept the name of its source."""
_TIME_POINT = re.compile(r"(BraTS-\w+-\d+)-\d+")


def matches(tree: Tree) -> bool:
    """Whether a folder holds FLAIR and T1 called like it."""
    return any({"flair", "t1"} <= set(sides) for _, sides in _examinations(tree).values())


def find(tree: Tree) -> Found:
    """List examinations and their channels.

    Raises:
        BadFile: a channel is missing, or examinations are named by both conventions.
    """
    examinations = _examinations(tree)
    missing = [] if examinations else ["there is no CASE/CASE_flair.nii.gz"]
    cases = []
    for folder, (between, sides) in examinations.items():
        ends = _ENDS[between]
        missing += [f"{folder.name} has no {folder.name}{between}{ends[c]}.nii.gz" for c in ends if c not in sides]
        images = tuple(sides[channel] for channel in glioma.CHANNELS if channel in sides)
        found = _TIME_POINT.fullmatch(folder.name)
        cases.append(Case(folder.name, images, sides.get("seg"), found[1] if found else folder.name))
    require_all(tree.path, missing, "Unpack the archive completely: every examination has four channels.")
    styles = {between for between, _ in examinations.values()}
    if len(styles) > 1:
        raise BadFile(
            tree.path,
            "holds examinations of BraTS 2023 and of earlier years, which number the enhancing tumour differently",
            "Open the folder of one of them.",
        )
    labels = LABELS[styles.pop()]
    return Found(tree.path.name, tree.path, "brats", tuple(cases), glioma.CHANNELS, labels, glioma.regions(labels))


def _examinations(tree: Tree) -> dict[Path, tuple[str, dict[str, Path]]]:
    """Folder to what stands before the ends of its files, and channel (or "seg") to file."""
    found = {}
    for folder, listing in tree.listings.items():
        styles: dict[str, dict[str, Path]] = {"_": {}, "-": {}}
        for name in listing.files:
            file = _FILE.fullmatch(name)
            if file and file["case"] == folder.name:
                side = _channel(file["between"], file["end"].lower())
                if side:
                    styles[file["between"]][side] = folder / name
        between = max(styles, key=lambda style: len(styles[style]))
        sides = styles[between]
        if set(sides) - {"seg"}:
            odd = [folder / name for name in listing.files if _ODD_SEG.fullmatch(name)]
            found[folder] = (between, sides if "seg" in sides or not odd else {**sides, "seg": odd[0]})
    return found


def _channel(between: str, end: str) -> str | None:
    """What a file is by the end of its name."""
    known = {own: channel for channel, own in _ENDS[between].items()} | {"seg": "seg"}
    return known.get(end)
