"""Look at every file of a dataset and say what is wrong with it and what to do. Nothing is changed."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

import numpy as np

from attentus import io
from attentus.errors import AttentusError, BadFile, GridMismatch
from attentus.io.sniff import PICTURE_ENDINGS, ending
from attentus.progress import Silent, track

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from attentus.data.dataset import Dataset
    from attentus.progress import Progress
    from attentus.types import Annotation, Case, Volume

RARE = 4
"""How often the most common label must occur before a label that occurs once counts as odd."""

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or at least odd."""

    severity: Severity
    """How bad. "error": the case cannot be used; "warning": it can, but should be looked at; "note": good to know."""
    case: str
    path: str
    problem: str
    fix: str


def check(dataset: Dataset, progress: Progress | None = None) -> list[Finding]:
    """Check all cases of a dataset one by one, then against each other.

    Returns:
        Findings, errors first, then by case.
    """
    known = {value: name for name, value in (dataset.declared_labels or {}).items()}
    seen = _Seen()
    findings: list[Finding] = []
    for case in track(progress or Silent(), "checking", list(dataset.cases)):
        findings += _check_case(case, _channels(dataset), known, seen)
    findings += seen.duplicates()
    findings += _slices_apart(dataset)
    findings += [] if known else seen.rare_labels()
    rank = {"error": 0, "warning": 1, "note": 2}
    return sorted(findings, key=lambda finding: (rank[finding.severity], finding.case))


class _Seen:
    """Fingerprints of the voxels met so far, by what they belong to."""

    def __init__(self) -> None:
        self._cases: dict[tuple[str, str], list[tuple[Case, Path | Annotation]]] = defaultdict(list)
        self._labels: dict[int, list[tuple[Case, Path | Annotation]]] = defaultdict(list)

    def add(self, role: str, case: Case, path: Path | Annotation, array: NDArray[np.generic]) -> None:
        digest = blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()
        self._cases[role, f"{array.shape}{digest}"].append((case, path))

    def add_labels(self, case: Case, path: Path | Annotation, values: list[int]) -> None:
        for value in filter(None, values):
            self._labels[value].append((case, path))

    def rare_labels(self) -> Iterator[Finding]:
        """Where nobody declared the labels, a value that one case alone has among several is worth a look."""
        usual = max(map(len, self._labels.values()), default=0)
        for value, places in sorted(self._labels.items()):
            if len(places) == 1 and usual >= RARE:
                case, path = places[0]
                yield Finding(
                    "warning",
                    case.id,
                    str(path),
                    f"has the label {value}, which no other case has",
                    "Correct it if it is a mistake; otherwise name the labels in a dataset.yaml (docs/how-to/data.md).",
                )

    def duplicates(self) -> Iterator[Finding]:
        for (role, _), group in self._cases.items():
            first, *others = group
            for case, path in others:
                yield Finding(
                    "error" if role == "image" else "warning",
                    case.id,
                    str(path),
                    f"has the same {role} voxels as case {first[0].id}",
                    "Remove one of them, or give both the same subject so that a split cannot part them.",
                )


def _slices_apart(dataset: Dataset) -> Iterator[Finding]:
    """Pictures whose names differ in their last number only, as those of slices do, and that count as many patients."""
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in dataset.cases:
        if case.subject == case.id and case.images and ending(case.images[0]) in PICTURE_ENDINGS:
            groups[re.sub(r"[^0-9A-Za-z]*\d+$", "", case.id)].append(case)
    alike = [group for name, group in groups.items() if len(group) > 1 and re.search(r"\d", name)]
    if alike and len(groups) > 1:
        first, second, *_ = alike[0]
        yield Finding(
            "warning",
            first.id,
            str(first.images[0]),
            f"{first.id} and {second.id} look like slices of one patient, and so do those of {len(alike) - 1} other(s);"
            " they count as different patients, so that a split may part them",
            "Say in a dataset.yaml what names the patient, e.g. subject: '^(.*)[_-]\\d+$' (docs/how-to/data.md).",
        )


def _channels(dataset: Dataset) -> int | None:
    try:
        return len(dataset.channels)
    except BadFile:
        return None  # no image can be read; each is reported on its own


def _check_case(case: Case, channels: int | None, known: dict[int, str], seen: _Seen) -> Iterator[Finding]:
    image = labels = None
    try:
        image = io.read_case(case)
        yield from _check_image(case, image, channels)
        seen.add("image", case, case.images[0], image.array)
    except AttentusError as error:
        yield _finding(case, case.images[0] if case.images else case.label, error)
    if case.label is None:
        yield Finding("warning", case.id, str(case.images[0]), "has no label", "It cannot train or validate a model.")
        return
    try:
        labels = io.read_labels(case.label)
        yield from _check_labels(case, case.label, labels, known)
        seen.add_labels(case, case.label, np.unique(labels.array).tolist())
        if labels.array.any():
            seen.add("label", case, case.label, labels.array)
        if image is not None:
            image.grid.require_match(labels.grid, case.id)
    except AttentusError as error:
        yield _finding(case, case.label, error)


def _check_image(case: Case, image: Volume, channels: int | None) -> Iterator[Finding]:
    path = str(case.images[0])
    if channels and image.channels != channels:
        yield Finding(
            "error",
            case.id,
            path,
            f"has {image.channels} channel(s) where the dataset has {channels}",
            "Give every case the same channels in the same order.",
        )
    bad = int(image.array.size - np.isfinite(image.array).sum())
    if bad:
        yield Finding(
            "error",
            case.id,
            path,
            f"{bad} voxels are NaN or infinite",
            "Set them to the value of air (or 0) and save the image again, or leave the case out.",
        )
    for number, channel in enumerate(image.array):
        if channel.min() == channel.max():
            yield Finding(
                "warning", case.id, path, f"channel {number} has the same value everywhere", "Export the image again."
            )


def _check_labels(case: Case, path: Path | Annotation, labels: Volume, known: dict[int, str]) -> Iterator[Finding]:
    values, counts = np.unique(labels.array, return_counts=True)
    if not values.any():
        yield Finding(
            "warning",
            case.id,
            str(path),
            "labels nothing: every voxel is background",
            "Fine if the structures are really absent; otherwise the annotation was lost on export.",
        )
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        if value and known and value not in known:
            names = ", ".join(f"{v} {name}" for v, name in sorted(known.items()))
            yield Finding(
                "error",
                case.id,
                str(path),
                f"{count} voxels have the unknown label {value} (known: {names})",
                "Correct the labels, or name this value in the dataset's description.",
            )
    stored = labels.source.dtype if labels.source else ""
    if stored.startswith("float"):
        yield Finding(
            "note",
            case.id,
            str(path),
            f"stores its labels as {stored}",
            "They are whole numbers, so nothing is lost; integers are smaller and safer.",
        )


def _finding(case: Case, path: Path | Annotation | None, error: AttentusError) -> Finding:
    if isinstance(error, BadFile):
        return Finding("error", case.id, error.path, error.problem, error.fix)
    if isinstance(error, GridMismatch):
        problem = "; ".join(line.strip(" .") for line in str(error).splitlines()[:-1])
        return Finding(
            "error",
            case.id,
            str(path),
            problem.removeprefix(f"{case.id}: "),
            "Resample the labels onto the image if they show the same place, or leave the case out.",
        )
    return Finding("error", case.id, str(path), str(error), "Leave the case out until it is repaired.")
