"""Label files of many cases: found in folders as tools write them, and matched by case.

A folder is one case when it holds slices of a DICOM series, with or without a segmentation (SEG), or one file per
structure, as TotalSegmentator writes them. Otherwise every label file in it is a case or, where it holds none, every
folder in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attentus.errors import BadFile, BadInput
from attentus.io.dicom import holds_dicom, is_dicom, is_image
from attentus.io.sniff import READABLE_ENDINGS, VOLUME_ENDINGS, ending, stem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from attentus.io.names import Names
    from attentus.types import Annotation

    Pairing = tuple[Path | Annotation, Path | Annotation]

_LABEL_WORDS = r"segs?|segmentations?|labels?|labelmaps?|preds?|predictions?|masks?|gts?|ground_?truth|annotations?"
_LABEL = re.compile(rf"(?:^|[._ -])({_LABEL_WORDS})$", re.IGNORECASE)
_ROLE = re.compile(rf"^({_LABEL_WORDS}|volume)[._ -]|[._ -]({_LABEL_WORDS})$", re.IGNORECASE)
"""What names the role of a file in its name, and not the case."""

_IMAGE = re.compile(r"(?:^|[._ -])(image|imaging|img|scan|ct|mri?|pet|t1|t1c|t1ce|t1gd|t2|flair)$", re.IGNORECASE)
"""A scan that lies beside the masks drawn on it; vertebrae_T1 is none."""

_ASIDE = re.compile(r"(.*)(_probabilities|_attention_.+)")
"""What `attentus predict` writes beside the labels of a case."""
_PREVIEW = "preview_"
"""How TotalSegmentator calls the picture it draws beside the masks."""

_ORGAN = re.compile(
    r"(spleen|kidney|gallbladder|liver|stomach|pancreas|adrenal_gland|lung|esophagus|trachea|thyroid_gland|small_bowel"
    r"|duodenum|colon|urinary_bladder|prostate|sacrum|heart|aorta|pulmonary|brachiocephalic|subclavian|common_carotid"
    r"|atrial_appendage|superior_vena_cava|inferior_vena_cava|portal_vein|iliac|humerus|scapula|clavicula|femur|hip"
    r"|spinal_cord|gluteus|autochthon|iliopsoas|brain|skull|sternum|costal_cartilages|vertebrae|intervertebral_discs)"
    r"(_[a-z]+)*|vertebrae_[CTLS]\d+|rib_(left|right)_\d+"
)
"""Names TotalSegmentator gives to files of one structure. Cases are numbered (liver_12) and do not match."""


@dataclass(frozen=True)
class Cohort:
    """The label files of many cases."""

    cases: Mapping[str, Path | Annotation]
    """Case id to file, to a folder that is one case, or to annotations of a dataset."""
    names: Names | None = None
    """Label name to values in all of them; None looks for names in and beside the files."""
    unusable: Mapping[str, str] = field(default_factory=dict)
    """Case id to message for what was found and cannot be used."""


def is_cohort(thing: object, structures: Collection[str] = ()) -> bool:
    """Whether something holds many cases.

    Args:
        thing: array, Volume, path, `Cohort`, or mapping of case to path.
        structures: names of structures; files called so are parts of one case.
    """
    if isinstance(thing, Cohort | Mapping):
        return True
    return isinstance(thing, str | Path) and Path(thing).is_dir() and not is_one_case(Path(thing), structures)


def is_one_case(folder: Path, structures: Collection[str] = ()) -> bool:
    """Whether the files of a folder belong to one case: slices of a DICOM series, or one file per structure."""
    if any(_ORGAN.fullmatch(name) or name in structures for name in mask_files(folder)):
        return True
    files = (p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return any(is_dicom(file) and not _is_object(file) for file in files)


def pair_up(
    prediction: Any, reference: Any, structures: Collection[str] = ()
) -> tuple[dict[str, tuple[Any, Any]], dict[str, str], tuple[Names | None, Names | None]]:
    """Bring the cases of two sides together, at least one of which is a cohort.

    A single prediction is matched by its name, or with the only reference there is; a single reference likewise.

    Returns:
        Case id to (prediction, reference); case id to a message for those that cannot be used; and the names that
        somebody gave to the labels of either side.

    Raises:
        BadInput: no case has a partner, or one side has many cases and the other is an array or volume.
    """
    sides = [_cohort(thing, structures) for thing in (prediction, reference)]
    mine, theirs = sides
    single = next((n for n, thing in enumerate((prediction, reference)) if not is_cohort(thing, structures)), None)
    if single is not None:
        (path,), others = sides[single].cases.values(), sides[1 - single].cases
        if len(others) == 1:
            sides[single] = Cohort({next(iter(others)): path})
        return match_cases(*sides)[0], {}, (mine.names, theirs.names)
    pairs, alone = match_cases(mine, theirs)
    return pairs, alone, (mine.names, theirs.names)


def find_cases(folder: Path, structures: Collection[str] = ()) -> Cohort:
    """The cases in a folder.

    Found are one file per case (as nnU-Net, the Decathlon and `attentus predict` write them), or one folder per case
    with a label file, a DICOM segmentation, slices as pictures, or one file per structure (TotalSegmentator). Images
    beside a file called seg, label, mask, ... are passed over, as are previews, probabilities and attention maps.

    Raises:
        BadFile: no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise BadFile(folder, "is no folder", "Name the folder that holds one label file per case.")
    cases: dict[str, Path] = {}
    unusable: dict[str, str] = {}
    for file in _label_files(folder):
        if stem(file) in cases:
            unusable[stem(file)] = f"{cases[stem(file)].name} and {file.name} are both of this case; remove one"
        cases[stem(file)] = file
    for inner in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")) if not cases else ():
        if (found := _within(inner, structures)) is not None:
            cases[inner.name] = found
    if not cases:
        raise BadFile(
            folder,
            "holds no label files",
            "Name the folder with one label file per case, or one folder per case (NIfTI, NRRD, MHA, DICOM SEG, PNG).",
        )
    return Cohort({case: path for case, path in cases.items() if case not in unusable}, None, unusable)


def match_cases(predictions: Cohort, references: Cohort) -> tuple[dict[str, Pairing], dict[str, str]]:
    """Pair cases by id.

    Ids that find no partner are compared once more without what names the role of a file (CASE-seg, CASE_pred,
    segmentation-12), as long as that leads to one partner only.

    Returns:
        Case id to (prediction, reference), and case id to a message for those without a partner.

    Raises:
        BadInput: no case has a partner.
    """
    mine, theirs = dict(predictions.cases), dict(references.cases)
    pairs = {case: (mine.pop(case), theirs.pop(case)) for case in sorted(mine.keys() & theirs.keys())}
    bare, other = _without_roles(mine), _without_roles(theirs)
    for case in bare.keys() & other.keys():
        if len(bare[case]) == len(other[case]) == 1 and case not in pairs:
            pairs[case] = (mine.pop(bare[case][0]), theirs.pop(other[case][0]))
    if not pairs:
        raise BadInput(
            f"None of {len(mine)} prediction(s) has a reference of the same name among {len(theirs)}.\n"
            f"  predictions  {_some(mine)}\n  references   {_some(theirs)}\n"
            "  Cases are matched by the name of their file or folder: liver_3.nii.gz with liver_3.nrrd."
        )
    alone = dict.fromkeys(theirs, "there is no prediction of this case")
    alone |= {case: "there is no reference of this case" for case in mine if case not in alone}
    unusable = {**references.unusable, **predictions.unusable}
    return dict(sorted(pairs.items())), {**dict(sorted(alone.items())), **unusable}


def mask_files(folder: Path) -> dict[str, Path]:
    """Structure to file in a folder that is one case, with a volume for each structure; empty without volumes."""
    files = {stem(path): path for path in _label_files(folder) if ending(path) in VOLUME_ENDINGS}
    return {name: path for name, path in files.items() if _ORGAN.fullmatch(name) or not _IMAGE.search(name)}


def _cohort(thing: Any, structures: Collection[str]) -> Cohort:
    if isinstance(thing, Cohort):
        return thing
    if isinstance(thing, Mapping):
        return Cohort({str(case): Path(path) for case, path in thing.items()})
    if not isinstance(thing, str | Path):
        raise BadInput("One side is a folder of cases, the other a single array or volume; give two of one kind.")
    path = Path(thing)
    return find_cases(path, structures) if is_cohort(path, structures) else Cohort({stem(path): path})


def _label_files(folder: Path) -> list[Path]:
    """Image files and DICOM segmentations that can be labels, in order of their names."""
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")]
    files = [p for p in files if ending(p) in READABLE_ENDINGS or _is_object(p)]
    stems = {stem(p) for p in files}
    beside = {name for name in stems if (found := _ASIDE.fullmatch(name)) and found[1] in stems}
    return [p for p in files if stem(p) not in beside and not p.name.startswith(_PREVIEW)]


def _is_object(file: Path) -> bool:
    """Whether a file is DICOM but no slice of a scan; one that is damaged counts, so that reading it names it."""
    try:
        return is_dicom(file) and not is_image(file)
    except BadFile:
        return True


def _within(folder: Path, structures: Collection[str]) -> Path | None:
    """The labels in the folder of one case: a file, or the folder itself; None when it holds none."""
    masks = folder / "segmentations"  # as in the TotalSegmentator data set
    if masks.is_dir():
        return masks
    files = _label_files(folder)
    called = [file for file in files if _LABEL.search(stem(file))]
    if not files:
        return folder if holds_dicom(folder) else None
    if is_one_case(folder, structures):
        return folder
    if len(called) == 1 or len(files) == 1:
        return (called or files)[0]
    return folder


def _without_roles(cases: Iterable[str]) -> dict[str, list[str]]:
    """Id without role to the ids it comes from."""
    bare: dict[str, list[str]] = {}
    for case in cases:
        short = _ROLE.sub("", case)
        bare.setdefault(short, []).append(case)
    return bare


def _some(cases: Collection[str]) -> str:
    listed = sorted(cases)
    return ", ".join(listed[:5]) + (f", ... ({len(listed)})" if len(listed) > 5 else "")
