"""Prepared cases on disk, so that training reads patches without holding scans in memory.

A case's folder is named by a fingerprint of its files' content and of everything that shaped the result; a changed
recipe or file has another name and can never meet a stale entry. Arrays are plain .npy, read through memory maps.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from attentus import io
from attentus.data.resolve import class_table, context, to_classes
from attentus.errors import AttentusError, BadInput
from attentus.io.atomic import unwritable
from attentus.progress import Progress, Silent, track
from attentus.transforms.prepare import Prepared, prepare, prepare_labels
from attentus.types import IGNORE, Annotation, Grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from attentus.data.dataset import Dataset
    from attentus.recipes import Recipe
    from attentus.types import Case

VERSION = 2
"""Raised whenever preparing the same files by the same recipe gives something else than before."""

POINTS_PER_CLASS = 10_000
"""Voxels of a structure remembered as possible patch centres."""


@dataclass(frozen=True, eq=False)
class CachedCase:
    """A prepared case on disk."""

    id: str
    folder: Path
    grid: Grid
    """Of the prepared arrays."""
    outside: tuple[float, ...]
    """Per channel, the value that stands for what lies beyond the scan: its minimum."""

    @property
    def image(self) -> NDArray[np.float32]:
        """(C, z, y, x), a memory map."""
        return _load(self.folder / "image.npy")

    @property
    def labels(self) -> NDArray[np.uint8]:
        """(z, y, x) class numbers, a memory map."""
        return _load(self.folder / "labels.npy")

    @property
    def points(self) -> NDArray[np.int32]:
        """(n, 4) class, z, y, x of voxels, a sample of at most `POINTS_PER_CLASS` of each.

        Of structures, and of labels that only say where patches lie, see `resolve.context`.
        """
        return _load(self.folder / "points.npy")


def prepare_cases(
    dataset: Dataset, recipe: Recipe, folder: Path, progress: Progress | None = None
) -> tuple[list[CachedCase], dict[str, str]]:
    """Prepare every labelled case of a dataset, or find it prepared already.

    Args:
        dataset: cases with image and label.
        recipe: resolved.
        folder: the cache; shared by as many runs as like.
        progress: shows the cases.

    Returns:
        Prepared cases in the dataset's order, and case id to message for those that cannot be used.
    """
    table = class_table(recipe, dataset.labels)
    ready: list[CachedCase] = []
    failures: dict[str, str] = {}
    for case in track(progress or Silent(), "preparing", list(dataset.labelled)):
        try:
            ready.append(_prepared(case, dataset, recipe, table, folder))
        except AttentusError as error:
            failures[case.id] = str(error)
        except OSError as error:
            raise unwritable(folder, error) from error
    return ready, failures


def fingerprint(case: Case, recipe: Recipe, names: dict[str, int]) -> str:
    """What decides a prepared case: content of its files, recipe, label names; 24 hexadecimal digits."""
    digest = blake2b(digest_size=12)
    facts = {
        "version": VERSION,
        "prepare": recipe.prepare.model_dump(mode="json"),
        "labels": [structure.model_dump(mode="json") for structure in recipe.labels],
        "regions": recipe.regions,
        "ignore": recipe.ignore,
        "names": names,
        **({"context": list(context(recipe))} if context(recipe) else {}),
    }
    labels: tuple[Path, ...] = (case.label,) if isinstance(case.label, Path) else ()
    if isinstance(case.label, Annotation):
        labels = case.label.files
        facts["annotation"] = [case.label.order, [(str(part.path.name), part.values) for part in case.label.parts]]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    for path in (*case.images, *labels):
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            with file.open("rb") as stream:
                while block := stream.read(1 << 22):
                    digest.update(block)
    return digest.hexdigest()


def _prepared(case: Case, dataset: Dataset, recipe: Recipe, table: NDArray[np.int16], folder: Path) -> CachedCase:
    try:
        key = fingerprint(case, recipe, dict(dataset.labels))
    except FileNotFoundError as error:
        raise BadInput(f"{error.filename}: does not exist") from None
    place = folder / f"{case.id}-{key}"
    if not (place / "case.json").is_file():
        _write(place, case, *_compute(case, recipe, table, dict(dataset.labels)))
    stored = json.loads((place / "case.json").read_text(encoding="utf-8"))
    return CachedCase(case.id, place, _grid(stored["grid"]), tuple(stored["outside"]))


def _compute(
    case: Case, recipe: Recipe, table: NDArray[np.int16], names: dict[str, int]
) -> tuple[Prepared, NDArray[np.uint8], NDArray[np.int32]]:
    """A prepared image, its class numbers, and places for patches."""
    image = io.read_case(case)
    if image.channels != len(recipe.channels):
        raise BadInput(f"{case.images[0]}: has {image.channels} channel(s), the dataset names {list(recipe.channels)}")
    labels = io.read_labels(case.label)  # type: ignore[arg-type]
    image.grid.require_match(labels.grid, case.id)
    prepared = prepare(image, recipe.prepare)
    classes = prepare_labels(to_classes(labels.array[0], table, names), prepared)
    places = [_points(classes)]
    for name, (number,) in context(recipe).items():
        found = _points(prepare_labels((labels.array[0] == names[name]).astype(np.uint8), prepared))
        found[:, 0] = number
        places.append(found)
    return prepared, classes, np.concatenate(places)


def _write(place: Path, case: Case, prepared: Prepared, labels: NDArray[np.uint8], points: NDArray[np.int32]) -> None:
    """Write a case under a temporary name and move it: an interrupted run leaves nothing half done."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{uuid4().hex[:8]}.part")
    try:
        temporary.mkdir()
        np.save(temporary / "image.npy", prepared.array)
        np.save(temporary / "labels.npy", labels)
        np.save(temporary / "points.npy", points)
        outside = [float(channel.min()) for channel in prepared.array]
        facts = {"case": case.id, "grid": asdict(prepared.grid), "outside": outside}
        (temporary / "case.json").write_text(json.dumps(facts), encoding="utf-8")
        try:
            temporary.replace(place)
        except OSError:  # it is there: another process was quicker, or a part of it was lost
            if not (place / "case.json").is_file():
                shutil.rmtree(place)
                temporary.replace(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _points(labels: NDArray[np.uint8]) -> NDArray[np.int32]:
    rng = np.random.default_rng(0)
    found: list[NDArray[np.int32]] = [np.empty((0, 4), np.int32)]
    for number in sorted(set(np.unique(labels).tolist()) - {0, IGNORE}):
        flat = np.flatnonzero(labels == number)
        if flat.size > POINTS_PER_CLASS:
            flat = np.sort(rng.choice(flat, POINTS_PER_CLASS, replace=False))
        places = np.stack(np.unravel_index(flat, labels.shape), axis=1)
        found.append(np.insert(places, 0, number, axis=1).astype(np.int32))
    return np.concatenate(found)


def _load(file: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(
            f"{file}: the prepared case is damaged ({error}).\n  Delete {file.parent} and run again."
        ) from None
    return array


def _grid(stored: dict[str, Any]) -> Grid:
    direction = tuple(tuple(axis) for axis in stored["direction"])
    return Grid(tuple(stored["shape"]), tuple(stored["spacing"]), tuple(stored["origin"]), direction)  # type: ignore[arg-type]
