"""Repair what can be repaired without a doubt, beside the data: nothing of the original is touched or copied.

The result is a folder with a list of all cases (`cases.json`), new label files for those that were repaired, and a log
of every change. Images and sound labels stay where they are; the list points at them.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus import io
from attentus.data.layouts.listing import NAME
from attentus.errors import AttentusError, BadFile
from attentus.io.atomic import check_replaceable, replacing_folder, write_text
from attentus.progress import Silent, track
from attentus.transforms.onto import labels_on
from attentus.types import LPS, Annotation, Volume

if TYPE_CHECKING:
    from attentus.data.dataset import Dataset
    from attentus.progress import Progress
    from attentus.types import Case, Grid

LOG, READABLE = "repairs.json", "repairs.md"

NEAR_VOXELS = 1.0
"""Grids of one shape whose corners lie no further apart than this are one grid, written with rounding errors."""
INSIDE = 0.999
"""Share of labelled voxels that must lie in the image for labels to be resampled onto it."""

_HEADED = ("nifti", "nrrd", "mha")
"""Formats whose voxel order one tool passes on to the other; what is made of DICOM may be turned."""


@dataclass(frozen=True)
class Repair:
    """What was done to the labels of one case."""

    case: str
    original: str
    """File or folder of the labels as they were, which is as it was."""
    written: str
    """File with the repaired labels, relative to the folder of the repair."""
    changes: tuple[str, ...]
    """What was done, a sentence each."""
    voxels: dict[str, tuple[int, int]]
    """Label value to its number of voxels before and after."""


@dataclass(frozen=True)
class Repairs:
    """What a repair did, and what it left."""

    folder: Path
    """Opens as a dataset."""
    done: tuple[Repair, ...]
    refused: dict[str, str]
    """Case to why its labels were not repaired."""


class _Unsafe(Exception):
    """Why labels cannot be repaired without a doubt."""


def repair(dataset: Dataset, out: Path, *, overwrite: bool = False, progress: Progress | None = None) -> Repairs:
    """Repair the labels of a dataset into a new folder.

    Labels stored as floating point become integers. Labels on the grid of their image but for rounding, or whose header
    lost its geometry, get the geometry of the image. Labels on a grid of another shape are resampled onto the image
    (nearest neighbour) if nothing of them lies outside. Labels that are no single file are put together. Everything
    else is left alone and explained.

    Args:
        dataset: any dataset.
        out: a new folder, outside of the dataset.
        overwrite: whether the folder of an earlier repair may be replaced.
        progress: shows the cases.

    Raises:
        BadFile: the folder holds something else, lies inside the dataset, or cannot be written to.
    """
    check_replaceable(out, holds=LOG, overwrite=overwrite)
    root = dataset.root.resolve()
    if out.resolve().is_relative_to(root):
        raise BadFile(out, "lies inside the dataset, of which it would become a part", "Choose a folder elsewhere.")
    done: list[Repair] = []
    refused: dict[str, str] = {}
    labels: dict[str, str] = {}
    with replacing_folder(out, holds=LOG, overwrite=overwrite) as folder:
        for case in track(progress or Silent(), "repairing", list(dataset.cases)):
            if not case.images:
                refused[case.id] = "There are labels, but no image: the list leaves the case out."
                continue
            try:
                repaired = _repair_case(case, folder)
            except (_Unsafe, AttentusError) as error:
                refused[case.id] = str(error)
                continue
            if repaired is not None:
                done.append(repaired)
                labels[case.id] = repaired.written
        write_text(folder / NAME, json.dumps(_listed(dataset, labels), indent=1))
        log = {
            "dataset": str(root),
            "layout": dataset.layout,
            "repaired": [asdict(one) for one in done],
            "not repaired": refused,
        }
        write_text(folder / LOG, json.dumps(log, indent=1))
        write_text(folder / READABLE, _readable(root, done, refused))
    return Repairs(out, tuple(done), refused)


def _repair_case(case: Case, folder: Path) -> Repair | None:
    """Write the repaired labels of a case; None if there is nothing to repair.

    Raises:
        _Unsafe: they do not fit, and it is not sure how they should.
        AttentusError: image or labels cannot be read.
    """
    if case.label is None:
        return None
    labels = io.read_labels(case.label)
    image = io.read_case(case, as_stored=True)
    changes = []
    if isinstance(case.label, Annotation):
        parts = len(case.label.parts)
        changes.append(f"Put together from {parts} {'part' if parts == 1 else 'parts'} as one label file.")
    elif labels.source and labels.source.dtype.startswith("float"):
        changes.append(f"Stored as {labels.source.dtype}: the whole numbers are written as {labels.array.dtype}.")
    placed, how = _placed(labels, image)
    changes += how
    if not changes:
        return None
    name = re.sub(r"[^\w.-]", "_", case.id)
    written = Path("labels", f"{name}.nii.gz")
    source = image.source if image.source and image.source.format == "nifti" else None
    on_image = Volume(placed, image.grid, source or image.source)
    io.write(on_image, folder / written)
    return Repair(case.id, str(case.label), written.as_posix(), tuple(changes), _counts(labels.array, placed))


def _placed(labels: Volume, image: Volume) -> tuple[np.ndarray[Any, Any], list[str]]:
    """Label voxels on the grid of the image, and what had to be done for that.

    Raises:
        _Unsafe: it is not sure where they belong.
    """
    if image.grid.matches(labels.grid):
        return labels.array, []
    mine, theirs = _stored(image), _stored(labels)
    if mine.shape == theirs.shape and _lost_its_place(labels) and image.source and image.source.format in _HEADED:
        voxels = Volume(labels.as_stored().array, mine).canonical().array
        return np.ascontiguousarray(voxels), [
            "The header had no geometry: that of the image, of equal shape, is taken."
        ]
    if image.grid.shape == labels.grid.shape:
        apart = image.grid.distance_mm(labels.grid)
        if apart > NEAR_VOXELS * min(image.grid.spacing):
            raise _Unsafe(
                f"Image and labels have one shape, but lie up to {apart:.2f} mm apart: either a header is wrong, or"
                " they show different places. Look at them (attentus data show --picture) and correct the header."
            )
        return labels.array, [f"Up to {apart:.3f} mm off the grid of the image: the geometry of the image is taken."]
    if _lost_its_place(labels):
        raise _Unsafe("The labels have another shape than the image, and nothing says where they lie.")
    if replace(theirs, shape=mine.shape).matches(mine):
        raise _Unsafe(
            f"The labels have another shape ({_size(theirs)}) than the image ({_size(mine)}), but its header: that was"
            " copied, and where the labels begin is not known. Cut or continue them to the shape of the image."
        )
    return _resampled(labels, image.grid)


def _resampled(labels: Volume, grid: Grid) -> tuple[np.ndarray[Any, Any], list[str]]:
    moved = labels_on(labels, grid)
    places = np.argwhere(labels.array[0])
    if moved is None or not len(places):
        raise _Unsafe("Image and labels share no place, or nothing is labelled, so there is nothing to resample.")
    index = grid.index(labels.grid.world(places))
    inside = ((index > -0.5) & (index < np.array(grid.shape) - 0.5)).all(axis=1).mean()
    if inside < INSIDE:
        raise _Unsafe(f"{1 - inside:.1%} of the labelled voxels lie outside of the image and would be lost.")
    gone = sorted(set(np.unique(labels.array)) - set(np.unique(moved.array)))
    if gone:
        raise _Unsafe(f"On the grid of the image nothing would be left of label {int(gone[0])}.")
    return moved.array, [
        f"Resampled onto the image (nearest neighbour) from {labels.grid.describe()} to {grid.describe()}."
    ]


def _size(grid: Grid) -> str:
    return " × ".join(map(str, grid.shape))


def _stored(volume: Volume) -> Grid:
    return volume.source.grid if volume.source else volume.grid


def _lost_its_place(labels: Volume) -> bool:
    """Whether the header says nothing: a NIfTI without qform and sform, or the identity that stands for "unknown"."""
    source = labels.source
    if source is None or source.format not in _HEADED:
        return False
    if source.format == "nifti" and not (int(source.header["qform_code"]) or int(source.header["sform_code"])):
        return True
    grid = source.grid
    axes = np.abs(np.array(grid.direction))
    return grid.spacing == (1.0, 1.0, 1.0) and not any(grid.origin) and bool((axes == np.abs(LPS)).all())


def _counts(before: np.ndarray[Any, Any], after: np.ndarray[Any, Any]) -> dict[str, tuple[int, int]]:
    values = sorted({*np.unique(before).tolist(), *np.unique(after).tolist()} - {0})
    return {str(value): (int((before == value).sum()), int((after == value).sum())) for value in values}


def _listed(dataset: Dataset, repaired: dict[str, str]) -> dict[str, Any]:
    """The dataset as a list of cases: repaired labels, and everything else where it is."""
    rows = []
    for case in (c for c in dataset.cases if c.images):
        row: dict[str, Any] = {"case": case.id, "image": [str(path.resolve()) for path in case.images]}
        row |= {"patient": case.subject}
        if case.id in repaired:
            row |= {"label": repaired[case.id]}
        elif isinstance(case.label, Path):
            row |= {"label": str(case.label.resolve())}
        rows.append(row)
    said: dict[str, Any] = {"name": dataset.name}
    said |= {"channels": list(dataset.declared_channels)} if dataset.declared_channels else {}
    said |= {"labels": dict(dataset.declared_labels)} if dataset.declared_labels is not None else {}
    said |= {"regions": dict(dataset.regions), "ignore": list(dataset.ignore), "splits": list(dataset.splits)}
    return {**said, "cases": rows}


def _readable(root: Path, done: list[Repair], refused: dict[str, str]) -> str:
    lines = [f"# Repairs of {root}", "", f"{len(done)} label file(s) written anew; no original was changed.", ""]
    for one in done:
        counts = ", ".join(
            f"{value}: {a} to {b}" if a != b else f"{value}: {a}" for value, (a, b) in one.voxels.items()
        )
        lines += [f"## {one.case}", "", f"- from {one.original}", f"- to {one.written}"]
        lines += [*(f"- {change}" for change in one.changes), f"- voxels of each label: {counts or 'none'}", ""]
    if refused:
        lines += [
            "## Left as they were",
            "",
            *(f"- {case}: {' '.join(why.split())}" for case, why in refused.items()),
            "",
        ]
    return "\n".join(lines)
