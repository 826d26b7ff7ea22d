"""CHAOS: abdominal CT and MR as DICOM, ground truth as pictures, one for each slice in the order of file names.

    CT/1/DICOM_anon/*.dcm                    CT/1/Ground/*.png              white is liver
    MR/1/T1DUAL/DICOM_anon/InPhase/*.dcm     MR/1/T1DUAL/Ground/*.png       grey codes, see `MR_CODES`
    MR/1/T1DUAL/DICOM_anon/OutPhase/*.dcm
    MR/1/T2SPIR/DICOM_anon/*.dcm             MR/1/T2SPIR/Ground/*.png

T1-DUAL has two channels, in phase and out of phase, which share their labels. As a layout of its own, all MR series
are cases of one channel: three per patient, kept together by their subject.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from attentus.data.layouts.found import Found, require_all
from attentus.types import Annotation, Case, Part

if TYPE_CHECKING:
    from pathlib import Path

    from attentus.data.layouts.tree import Tree

MR_CODES = {"liver": (55, 70, 63), "right kidney": (110, 135, 126), "left kidney": (175, 200, 189)} | {
    "spleen": (240, 255, 252)
}
"""Structure to (lowest, highest, label): grey values in a range stand for the label."""

REGIONS = {"kidneys": ("right kidney", "left kidney")}

SCANS, TRUTH = "DICOM_anon", "Ground"
_KINDS = ("T1DUAL", "T2SPIR")
_FIX = "Unpack the archives of the training set completely; the test set has no Ground."


class Series(NamedTuple):
    """One scan: the folder that holds DICOM_anon and Ground, and what its images are."""

    case: str
    subject: str
    folder: Path
    images: tuple[Path, ...]


class Kind:
    """One of the sets of CHAOS."""

    def __init__(self, name: str, looks_like: str, channels: tuple[str, ...], sequences: tuple[str, ...]) -> None:
        self.name, self.LOOKS_LIKE, self.channels, self.sequences = name, looks_like, channels, sequences
        """Sequences are names of folders of MR; CT has none."""

    def matches(self, tree: Tree) -> bool:
        """Whether the folders of this set, and all its sequences, are there."""
        present = {folder.parent.name if folder.parent.name in _KINDS else "" for folder in _scans(tree)}
        return set(self.sequences or ("",)) <= present

    def find(self, tree: Tree) -> Found:
        """List the series.

        Raises:
            BadFile: slices or ground truth are missing; the message names the folder.
        """
        series = [s for folder in _scans(tree) for s in self._series(folder.parent)]
        missing = [] if series else [f"there is no {SCANS} of {' and '.join(self.sequences) or 'CT'}"]
        for one in series:
            missing += [
                f"{folder.relative_to(tree.path)} is not there or empty"
                for folder in (*one.images, one.folder / TRUTH)
                if not (folder in tree.listings and tree.listings[folder].files) and not _unlabelled(tree, folder)
            ]
        require_all(tree.path, list(dict.fromkeys(missing)), _FIX)
        codes = MR_CODES if self.sequences else {"liver": (1, 255, 1)}
        cases = tuple(self._case(tree, one, tuple(codes.values())) for one in sorted(series, key=_by_number))
        labels = {name: label for name, (_, _, label) in codes.items()}
        regions = REGIONS if self.sequences else {}
        name = f"CHAOS {self.name.removeprefix('chaos-').upper()}"
        return Found(name, tree.path, self.name, cases, self.channels, labels, regions)

    def _series(self, folder: Path) -> list[Series]:
        """What a folder with DICOM_anon gives to this set."""
        kind = folder.name if folder.name in _KINDS else ""
        if kind not in (self.sequences or ("",)):
            return []
        scans = folder / SCANS
        patient = folder.parent.name if kind else folder.name
        images = (scans / "InPhase", scans / "OutPhase") if kind == "T1DUAL" else (scans,)
        if len(self.sequences) > 1:  # every series for itself
            names = (f"{kind}_in", f"{kind}_out") if kind == "T1DUAL" else (kind,)
            return [Series(f"{patient}_{n}", patient, folder, (i,)) for n, i in zip(names, images, strict=True)]
        return [Series(patient, patient, folder, images)]

    def _case(self, tree: Tree, one: Series, codes: tuple[tuple[int, int, int], ...]) -> Case:
        truth = one.folder / TRUTH
        if truth not in tree.listings:
            return Case(one.case, one.images, None, one.subject)
        return Case(one.case, one.images, Annotation((Part(truth, codes),), one.images[0], "name"), one.subject)


CT = Kind("chaos-ct", "PATIENT/DICOM_anon and PATIENT/Ground (CHAOS, CT)", ("CT",), ())
T1DUAL = Kind(
    "chaos-t1dual",
    "PATIENT/T1DUAL/DICOM_anon/{InPhase,OutPhase} and PATIENT/T1DUAL/Ground (CHAOS, MR of two channels)",
    ("T1 in phase", "T1 out of phase"),
    ("T1DUAL",),
)
T2SPIR = Kind(
    "chaos-t2spir", "PATIENT/T2SPIR/DICOM_anon and PATIENT/T2SPIR/Ground (CHAOS, MR)", ("T2-SPIR",), ("T2SPIR",)
)
MR = Kind("chaos-mr", "T1DUAL and T2SPIR together, each series a case of one channel (CHAOS, MR)", ("MR",), _KINDS)


def _scans(tree: Tree) -> list[Path]:
    return tree.folders(SCANS)


def _unlabelled(tree: Tree, folder: Path) -> bool:
    """Whether a folder is the ground truth of the test set, which nobody has."""
    test = any("test" in part.lower() for part in folder.relative_to(tree.path).parts)
    return folder.name == TRUTH and folder not in tree.listings and test


def _by_number(one: Series) -> list[str]:
    return [*(number.zfill(6) for number in re.findall(r"\d+", one.subject)), one.case]
