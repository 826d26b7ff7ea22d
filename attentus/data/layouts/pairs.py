"""Images and labels paired by name: two sibling folders, one folder with telling endings, or a folder per case.

    images/a.nii.gz  labels/a.nii.gz        imagesTr, scans, img, ... and labelsTr, masks, seg, gt, ...
    a_image.nrrd     a_label.nrrd           or a.png and a_mask.png
    a/image.nii.gz   a/label.nii.gz         the folder names the case and the subject

A manifest (YAML) beside or away from the files can say what names cannot: `root`, `name`, `channels`, `labels`
(name: integer) and `subject`, a regular expression whose first group, searched in the case id, names the subject.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from attentus.data.layouts.found import Found
from attentus.errors import BadFile
from attentus.io.sniff import READABLE_ENDINGS, ending, stem
from attentus.types import Case

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOKS_LIKE = (
    "image/label pairs: images/ and labels/, or NAME_image.* and NAME_label.*, or NAME/image.* and NAME/label.*"
)

DEPTH = 3
"""How many folders deep files are looked for."""

_IMAGE = r"images?|imagestr|imgs?|scans?|volumes?"
_LABEL = r"labels?|labelstr|masks?|segs?|segmentations?|gts?|ground_?truth|annotations?"
_IMAGE_FOLDER, _LABEL_FOLDER = (re.compile(rf"({words})", re.IGNORECASE) for words in (_IMAGE, _LABEL))
_IMAGE_END, _LABEL_END = (re.compile(rf"(?:^|[._ -])({words})$", re.IGNORECASE) for words in (_IMAGE, _LABEL))


class Manifest(BaseModel):
    """What names of files cannot say."""

    model_config = ConfigDict(extra="forbid")

    root: Path = Path()
    name: str | None = None
    channels: tuple[str, ...] = ()
    labels: dict[str, int] | None = None
    subject: str | None = None


def matches(path: Path) -> bool:
    """Whether files can be told apart as images and labels, or a manifest says so."""
    if path.is_file():
        return path.suffix in (".yaml", ".yml")
    cases = _cases(path)
    both_kinds = any(case.images for case in cases) and any(case.label for case in cases)
    return both_kinds or (path / "dataset.yaml").is_file()


def find(path: Path) -> Found:
    """Pair the files.

    Raises:
        BadFile: the manifest is malformed or no images are where it points.
    """
    file = path / "dataset.yaml" if path.is_dir() else path
    manifest = _read_manifest(file) if file.is_file() else Manifest()
    root = (file.parent / manifest.root).resolve() if file.is_file() else path
    cases = tuple(_with_subject(case, manifest.subject, file) for case in _cases(root))
    if not any(case.images for case in cases):
        raise BadFile(root, "holds no images", f"Attentus looks for {LOOKS_LIKE}.")
    labels = {k: v for k, v in manifest.labels.items() if v} if manifest.labels is not None else None
    return Found(manifest.name or root.name, root, "pairs", cases, manifest.channels or None, labels)


def _cases(root: Path) -> list[Case]:
    sides: dict[str, dict[str, Path]] = {}
    subjects: dict[str, str] = {}
    for file in _files(root, DEPTH):
        key, role, subject = _tell(file.relative_to(root))
        sides.setdefault(key, {}).setdefault(role, file)
        subjects[key] = subject
    return [
        Case(key, (side["image"],) if "image" in side else (), side.get("label"), subjects[key])
        for key, side in sorted(sides.items())
    ]


def _tell(file: Path) -> tuple[str, str, str]:
    """Case id, "image" or "label", and subject, from a path relative to the root."""
    *folders, name = (*file.parts[:-1], stem(file))
    role = None
    kept = []
    for folder in folders:
        if _IMAGE_FOLDER.fullmatch(folder):
            role = "image"
        elif _LABEL_FOLDER.fullmatch(folder):
            role = "label"
        else:
            kept.append(folder)
    for candidate, pattern in (("image", _IMAGE_END), ("label", _LABEL_END)):
        if role in (None, candidate) and (found := pattern.search(name)):
            role, name = candidate, name[: found.start()]
            break
    key = "_".join(part for part in (*kept, name) if part)
    return key or stem(file), role or "image", kept[0] if kept else key or stem(file)


def _files(folder: Path, depth: int) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith("."):
            continue
        if path.is_dir() and depth:
            yield from _files(path, depth - 1)
        elif path.is_file() and ending(path) in READABLE_ENDINGS:
            yield path


def _read_manifest(file: Path) -> Manifest:
    try:
        return Manifest.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadFile(file, f"is not valid YAML ({error})", "Correct the manifest.") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in error.errors())
        known = ", ".join(Manifest.model_fields)
        raise BadFile(file, f"is no manifest of a dataset ({problems})", f"Its fields are {known}.") from None


def _with_subject(case: Case, pattern: str | None, file: Path) -> Case:
    if pattern is None:
        return case
    found: Any = re.search(pattern, case.id)
    if not found or not found.groups():
        raise BadFile(
            file,
            f"the pattern '{pattern}' finds no subject in the case id '{case.id}'",
            "Write a regular expression with one group, such as '_(\\d+)_' for flipped_10001_81.",
        )
    return Case(case.id, case.images, case.label, found.group(1))
