"""Pancreas-CT of The Cancer Imaging Archive (CT-82): DICOM by patient, labels as NIfTI in a convention of their own.

    Pancreas-CT/PANCREAS_0001/STUDY/SERIES/*.dcm
    TCIA_pancreas_labels-02-05-2017/label0001.nii.gz

The header of a label does not put it where the scan is: read by it, the pancreas is mirrored from front to back. Its
voxels are those of the images instead: x counts columns, y rows from above, z images in the order of their
InstanceNumber. So the labels are laid on the scan. A label whose header fits its scan, converted by somebody, is taken
by that. (Code that reads it so: OrganSegC2F and its followers; deedsBCV flips y of the label after dcm2niix, which
turns the rows of the scan.)
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attentus.data.layouts.found import Found, require_all
from attentus.types import Annotation, Case, Part

if TYPE_CHECKING:
    from pathlib import Path

    from attentus.data.layouts.tree import Tree

LOOKS_LIKE = "PANCREAS_NNNN/**/*.dcm and labelNNNN.nii.gz (Pancreas-CT)"

LABELS = {"pancreas": 1}

_PATIENT = re.compile(r"PANCREAS_(\d{4})")
_LABEL = re.compile(r"label(\d{4})\.nii(?:\.gz)?")


def matches(tree: Tree) -> bool:
    """Whether folders of patients are there."""
    return any(_PATIENT.fullmatch(folder.name) for folder in tree.listings)


def find(tree: Tree) -> Found:
    """Pair patients and labels by number.

    Raises:
        BadFile: a scan or a label is missing; the message names it.
    """
    scans: dict[str, Path] = {}
    for folder, listing in tree.listings.items():
        patient = next((m[1] for part in reversed(folder.parts) if (m := _PATIENT.fullmatch(part))), None)
        if patient and any(name.lower().endswith(".dcm") for name in listing.files):
            scans[patient] = folder
    labels = {found[1]: file for file, found in tree.files(_LABEL)}
    missing = [f"there is no DICOM of PANCREAS_{number}" for number in sorted(labels.keys() - scans.keys())]
    missing += [f"there is no label{number}.nii.gz" for number in sorted(scans.keys() - labels.keys())]
    missing = missing or ([] if scans else ["there is no PANCREAS_0001 and no label0001.nii.gz"])
    fix = "Download images and labels (TCIA_pancreas_labels) into one folder; some numbers exist in neither."
    require_all(tree.path, missing, fix)
    cases = tuple(
        Case(f"pancreas_{n}", (scan,), Annotation((Part(labels[n]),), scan, "number"))
        for n, scan in sorted(scans.items())
    )
    return Found("Pancreas-CT", tree.path, "pancreas-ct", cases, ("CT",), LABELS)
