"""3D-IRCADb-01: one folder per patient with a DICOM series of the scan and one of each mask.

    3Dircadb1.1/PATIENT_DICOM/image_0 ...
    3Dircadb1.1/MASKS_DICOM/liver/image_0 ...  livertumor01/...  portalvein/...

The masks of all tumours of a liver become one label. Masks overlap; what is later in `STRUCTURES` is painted over what
is earlier. Vessels come before the liver: inside it their voxels are liver.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attentus.data.layouts.found import Found, packed, require_all
from attentus.types import Annotation, Case, Part

if TYPE_CHECKING:
    from pathlib import Path

    from attentus.data.layouts.tree import Tree

LOOKS_LIKE = "PATIENT/PATIENT_DICOM and PATIENT/MASKS_DICOM/ORGAN (3D-IRCADb-01)"

SCAN, MASKS = "PATIENT_DICOM", "MASKS_DICOM"

STRUCTURES = {
    "skin": r"skin",
    "bone": r"bones?",
    "lungs": r"lungs?",
    "left lung": r"leftlung",
    "right lung": r"rightlung",
    "heart": r"heart",
    "stomach": r"stomach|stomachoesophage",
    "small bowel": r"smallintestine?",
    "duodenum": r"duodenum",
    "colon": r"colon",
    "sigmoid": r"sigmoid",
    "bladder": r"bladder",
    "uterus": r"uterus",
    "pancreas": r"pancreas",
    "spleen": r"spleen",
    "kidneys": r"kidneys?",
    "left kidney": r"leftkidney",
    "right kidney": r"rightkidney",
    "adrenal gland": r"surrenalglands?",
    "left adrenal gland": r"leftsurrenalgland",
    "right adrenal gland": r"rightsurrenalgland",
    "left adrenal tumour": r"leftsurretumor",
    "right adrenal tumour": r"rightsurretumor",
    "tumour": r"tumor",
    "lymph nodes": r"lymphnodes?",
    "aorta": r"aorta",
    "artery": r"artery|arteries",
    "vena cava": r"venacava",
    "venous system": r"venoussystem",
    "portal vein": r"portalvein\d*",
    "liver": r"liver",
    "gallbladder": r"gallbladder",
    "biliary system": r"biliarysystem",
    "stones": r"stones?",
    "metal": r"metal",
    "hyperplasia": r"hyperplasie",
    "metastasectomy": r"metastasectomie",
    "liver cyst": r"liver(?:cyst|kyste?)s?\d*",
    "liver tumour": r"livertumou?rs?\d*",
}
"""Structure to names of its folders, painted in this order."""

VALUES = {"liver": 1, "liver tumour": 2} | {
    name: value for value, name in enumerate((n for n in STRUCTURES if n not in ("liver", "liver tumour")), start=3)
}
"""Liver and tumour are numbered as in LiTS."""

REGIONS = {"whole liver": ("liver", "liver cyst", "liver tumour"), "cancer": ("liver tumour",)}


def matches(tree: Tree) -> bool:
    """Whether a patient's scan or masks are there, unpacked or not."""
    return bool(_patients(tree))


def find(tree: Tree) -> Found:
    """List patients and the masks of each.

    Raises:
        BadFile: a scan or masks are missing or still packed; the message names them.
    """
    patients = _patients(tree)
    missing = [] if patients else [f"there is no {SCAN} and {MASKS}"]
    scans: dict[Path, Path] = {}
    masks: dict[Path, list[tuple[str, Path]]] = {}
    for patient in patients:
        scans[patient] = _inner(tree, patient / SCAN)
        masks[patient] = _masks(tree, _inner(tree, patient / MASKS))
        there = {SCAN: scans[patient] in tree.listings and tree.listings[scans[patient]].files, MASKS: masks[patient]}
        missing += [packed(patient, tree.listings[patient].files, part) for part, found in there.items() if not found]
    require_all(tree.path, missing, f"Unpack {SCAN}.zip and {MASKS}.zip in the folder of each patient.")
    strange = sorted({name for found in masks.values() for name, _ in found} - set(VALUES))
    values = VALUES | {name: value for value, name in enumerate(strange, start=1 + max(VALUES.values()))}
    order = [*strange, *STRUCTURES]  # what nobody knows is painted first and covers nothing
    cases = []
    for patient, found in masks.items():
        painted = sorted(found, key=lambda mask: order.index(mask[0]))
        parts = tuple(Part(folder, ((1, 65535, values[name]),)) for name, folder in painted)
        cases.append(Case(patient.name, (scans[patient],), Annotation(parts)))
    present = {name for found in masks.values() for name, _ in found}
    labels = {name: value for name, value in sorted(values.items(), key=lambda item: item[1]) if name in present}
    regions = {name: tuple(p for p in parts if p in labels) for name, parts in REGIONS.items()}
    regions = {name: parts for name, parts in regions.items() if parts}
    return Found("3D-IRCADb-01", tree.path, "3dircadb", tuple(cases), ("CT",), labels, regions)


def _patients(tree: Tree) -> list[Path]:
    """Folders with a scan or masks in them, by the number at the end of their names."""
    found = []
    for folder, listing in tree.listings.items():
        names = {name.split(".")[0].upper() for name in (*listing.folders, *listing.files)}
        if {SCAN, MASKS} & names and folder.name.upper() not in (SCAN, MASKS):
            found.append(folder)
    return sorted(found, key=lambda folder: [int(n) for n in re.findall(r"\d+", folder.name)])


def _inner(tree: Tree, folder: Path) -> Path:
    """The folder, or the one of the same name that an archive made in it."""
    twin = folder / folder.name
    return twin if twin in tree.listings else folder


def _masks(tree: Tree, folder: Path) -> list[tuple[str, Path]]:
    """Structure and folder of each mask that has files."""
    names = tree.listings[folder].folders if folder in tree.listings else ()
    there = [folder / name for name in names if folder / name in tree.listings and tree.listings[folder / name].files]
    return [(_structure(mask.name), mask) for mask in there]


def _structure(folder: str) -> str:
    """What a folder shows; one that is not in the table is called as it is, without numbers at the end."""
    known = (name for name, pattern in STRUCTURES.items() if re.fullmatch(pattern, folder, re.IGNORECASE))
    return next(known, re.sub(r"\d+$", "", folder.lower()))
