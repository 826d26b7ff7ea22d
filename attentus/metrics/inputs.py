"""The two sides of a case: read from whatever holds labels, laid on one grid, brought to one meaning of values."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus import io
from attentus.errors import BadFile, BadInput, GridMismatch, UnknownName
from attentus.io.dicom import holds_dicom
from attentus.io.dicom_seg import find_segmentations, read_segmentation
from attentus.io.layers import Layers
from attentus.io.names import Names, folder_names, own_names
from attentus.io.sniff import PICTURE_ENDINGS
from attentus.metrics.cohorts import mask_files
from attentus.metrics.structures import Side, choose, match, plain, relabel
from attentus.transforms.onto import labels_on
from attentus.types import Annotation, Grid, Volume

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from os import PathLike

    from numpy.typing import NDArray

    from attentus.metrics.structures import Labels, Sides, Values

    Thing = NDArray[Any] | Volume | Annotation | str | PathLike[str]


@dataclass(frozen=True, eq=False)
class Labelled:
    """The labels of one case, read."""

    volume: Volume
    """(1, z, y, x) uint8 or uint16, canonical."""
    side: Side


def names_of(things: Iterable[Any]) -> list[Names | None]:
    """What each of some files, folders or volumes calls its labels, without reading voxels.

    Raises:
        BadFile: a description beside a file cannot be read.
    """
    folders: dict[Path, Names | None] = {}
    return [_names_of(thing, folders) for thing in things]


def read_labelled(
    thing: Thing,
    spacing: Sequence[float] | None = None,
    names: Names | None = None,
    only: Collection[str] | None = None,
) -> Labelled:
    """Read the labels of one case.

    Args:
        thing: label array (z, y, x) or (y, x), Volume, file, folder that is one case, or annotation of a dataset.
        spacing: (z, y, x) mm; needed for arrays, possible for pictures.
        names: what its labels are called.
        only: where each structure has a file of its own, the `plain` names of those to read; None reads all.

    Raises:
        BadInput, BadFile: it is no label map, or spacing is missing or not wanted.
    """
    if isinstance(thing, str | Path):
        path = Path(thing)
        if path.is_dir() and (masks := mask_files(path)):
            wanted = {name: file for name, file in masks.items() if only is None or plain(name) in only}
            return _read_masks(wanted or dict([next(iter(masks.items()))]))  # one, for the grid
        if io.holds_segmentation(path):
            found = read_segmentation(path)
            return Labelled(found.volume.canonical(), Side(found.names, found.numbers))
        volume = io.read_labels(path)
    elif isinstance(thing, Annotation):
        volume = io.read_labels(thing)
    elif isinstance(thing, Volume):
        volume = thing.canonical()
        volume = volume.like(_small(volume.array))
    else:
        if spacing is None:
            raise BadInput("Arrays carry no spacing: pass spacing=(z, y, x) in mm.")
        return Labelled(_from_array(np.asarray(thing), spacing), Side(names))
    if spacing is not None:
        if volume.source is None or volume.source.format not in _PICTURES:
            raise BadInput("spacing can only be given for arrays and pictures; this image says its own.")
        volume = Volume(volume.array, Grid(volume.grid.shape, _triple(spacing)), volume.source)
    return Labelled(volume, Side(names))


def on_one_grid(case: str, prediction: Volume, reference: Volume, *, resample: bool) -> tuple[Volume, Volume, bool]:
    """Bring both sides onto one grid, without touching them where they share it already.

    A DICOM segmentation stores only slices that hold something; where its voxels are voxels of the other side, it is
    completed with background. Everything else is a mismatch unless resampling is allowed.

    Args:
        case: for messages.
        prediction: labels.
        reference: labels; its grid is the one on which is scored.
        resample: take, at every voxel of the reference, the nearest label of the prediction.

    Returns:
        Prediction, reference, and whether the prediction was resampled.

    Raises:
        GridMismatch: they lie on different grids; the message prints both. With `resample`: they share no place.
    """
    if not reference.grid.matches(prediction.grid):
        prediction, reference = _completed(prediction, reference)
    if reference.grid.matches(prediction.grid):
        return prediction, reference, False
    if not resample or _placeless(prediction) or _placeless(reference):
        fix = "If they show the same place, resample=True (--resample) takes the nearest label of the prediction."
        reference.grid.require_match(prediction.grid, case, "reference", "prediction", fix)
    if _is_seg(reference):  # what it leaves out is background, and predictions there are wrong
        reference = reference.laid_on(_around(reference.grid, prediction.grid)) or reference
    return _resampled(case, prediction, reference.grid), reference, True


@dataclass
class Comparison:
    """How the two sides of every case are brought together: which values mean what, on which grid."""

    structures: Mapping[str, Sides] | None
    """None scores every value."""
    names: Mapping[str, tuple[Names | None, Names | None]]
    """Case id to label names of prediction and reference."""
    spacing: Sequence[float] | None
    resample: bool
    not_scored: list[str]
    """Structures that one side alone names."""
    resampled: list[str] = field(default_factory=list)
    """Cases whose prediction was moved to the reference's grid so far."""

    @classmethod
    def of(
        cls,
        pairs: Mapping[str, tuple[Any, Any]],
        labels: Labels | None,
        names: tuple[Names | None, Names | None] = (None, None),
        *,
        spacing: Sequence[float] | None = None,
        resample: bool = False,
    ) -> Comparison:
        """Settle what is scored, before any voxel is read.

        Args:
            pairs: case id to prediction and reference.
            labels: see `structures.choose`.
            names: label names of all predictions and of all references; None looks for them in and beside the files.
            spacing: see `read_labelled`.
            resample: see `on_one_grid`.

        Raises:
            BadInput: see `structures.choose`.
        """
        sides = [
            names_of(side) if given is None else [given] * len(pairs)
            for given, side in zip(names, zip(*pairs.values(), strict=True), strict=True)
        ]
        chosen, alone = choose(labels, *sides)
        return cls(chosen, dict(zip(pairs, zip(*sides, strict=True), strict=True)), spacing, resample, alone)

    def require(self, structures: Iterable[str]) -> None:
        """Refuse names that no structure here has.

        Raises:
            UnknownName: there is none of that name.
            BadInput: labels have no names here.
        """
        for name in structures:
            if self.structures is not None and name not in self.structures:
                raise UnknownName("structure", name, self.structures)
            if self.structures is None and not re.fullmatch(r"label \d+", name):
                raise BadInput(
                    f"No structure can be called '{name}', because the labels have no names here.\n"
                    f"  Say which value it has, for example --label {name}=1 (in Python: labels={{'{name}': 1}})."
                )

    def read(self, case: str, prediction: Any, reference: Any) -> tuple[Volume, Volume, Mapping[str, Values] | None]:
        """Read both sides of a case, lay them on one grid and give them one meaning.

        Returns:
            Prediction, reference, and the values of each structure in both; None for every value.

        Raises:
            BadInput: a side cannot be read, or the grids differ.
        """
        names, truth_names = self.names[case]
        mine = read_labelled(prediction, self.spacing, names, self._wanted("prediction"))
        theirs = read_labelled(reference, self.spacing, truth_names, self._wanted("reference"))
        found, truth, moved = on_one_grid(case, mine.volume, theirs.volume, resample=self.resample)
        self.resampled += [case] if moved else []
        if self.structures is None:
            return found, truth, None
        array, labels = relabel(found.array, truth.array, match(self.structures, mine.side, theirs.side))
        return found.like(array), truth, labels

    def _wanted(self, side: str) -> set[str] | None:
        """The structures whose files have to be read on a side that has one for each; None for all."""
        wanted = {name: getattr(sides, side) for name, sides in (self.structures or {}).items()}
        if self.structures is None or "any" in wanted.values():
            return None
        listed = [
            (name, item) for name, want in wanted.items() for item in (want if isinstance(want, tuple) else [want])
        ]
        return {plain(item) if isinstance(item, str) else plain(name) for name, item in listed}

    def remarks(self) -> dict[str, str]:
        """What belongs to the rules of the result: structures left out, predictions resampled."""
        remarks = {}
        if self.not_scored:
            remarks["not scored"] = ", ".join(self.not_scored)
        if self.resample:
            cases = f": {', '.join(self.resampled)}" if self.resampled else ""
            remarks["resampled"] = f"{len(self.resampled)} of {len(self.names)} predictions, nearest label{cases}"
        return remarks


_PICTURES = ("pictures", *(e.lstrip(".") for e in PICTURE_ENDINGS))


def _names_of(thing: Any, folders: dict[Path, Names | None]) -> Names | None:
    if isinstance(thing, Volume):
        return dict(thing.source.header.get("names") or {}) or None if thing.source else None
    if not isinstance(thing, str | Path):
        return None
    path = Path(thing)
    if path.is_dir() and (masks := mask_files(path)):
        return dict.fromkeys(masks, ())
    objects = find_segmentations(path) if path.is_dir() and holds_dicom(path) else []
    file = objects[0] if objects else path
    if found := own_names(file) if file.is_file() else None:
        return found
    home = path if path.is_dir() else path.parent
    if home not in folders:
        folders[home] = folder_names(home)
    return folders[home]


def _read_masks(files: Mapping[str, Path]) -> Labelled:
    """One label map from one file per structure; where they overlap, see `Layers`."""
    (first_name, first_file), *_ = files.items()
    first = io.read_labels(first_file)
    layers = Layers(first.grid.shape, range(1, 1 + len(files)))
    for number, (name, file) in enumerate(files.items(), start=1):
        mask = io.read_labels(file) if number > 1 else first
        first.grid.require_match(mask.grid, str(file.parent), first_name, name)
        if mask.array.max() > 1 and len(np.unique(mask.array[mask.array > 0])) > 1:
            raise BadFile(
                file,
                "holds several labels, so it is no mask of one structure",
                f"{file.parent.name} is taken for one case with a file per structure. Put each case's label file in a"
                " folder of its own, or call it seg, label or mask.",
            )
        layers.add(number, mask.array[0] > 0)
    names = {name: layers.values(number) for number, name in enumerate(files, start=1)}
    return Labelled(first.like(layers.array[None]), Side(names, numbered=False))


def _from_array(array: NDArray[Any], spacing: Sequence[float]) -> Volume:
    if array.dtype.kind not in "iub":
        raise BadInput(f"Labels are whole numbers, got an array of {array.dtype}; threshold or round it first.")
    labels = _small(array)
    return Volume.from_array(labels[None], (1.0, *spacing)) if array.ndim == 2 else Volume.from_array(labels, spacing)


def _small(array: NDArray[Any]) -> NDArray[Any]:
    """Labels in a small type; those that are in one already are not copied."""
    return array if array.dtype in (np.uint8, np.uint16) else io.whole_numbers(array, "the labels")


def _triple(spacing: Sequence[float]) -> tuple[float, float, float]:
    if len(spacing) != 3:
        raise BadInput(f"Spacing is three numbers (z, y, x) in mm, got {tuple(spacing)}.")
    return float(spacing[0]), float(spacing[1]), float(spacing[2])


def _placeless(volume: Volume) -> bool:
    """Whether nothing is known about where the voxels lie: arrays and pictures."""
    return volume.source is None or volume.source.format in ("array", *_PICTURES)


def _completed(prediction: Volume, reference: Volume) -> tuple[Volume, Volume]:
    """DICOM segmentations with the empty slices they leave out; both sides as they are where that does not fit."""
    if _is_seg(prediction) and _is_seg(reference):
        larger, other = sorted((prediction.grid, reference.grid), key=lambda grid: -math.prod(grid.shape))
        target = _around(larger, other)
    elif _is_seg(prediction) or _is_seg(reference):
        target = reference.grid if _is_seg(prediction) else prediction.grid
    else:
        return prediction, reference
    mine, theirs = prediction.laid_on(target), reference.laid_on(target)
    return (mine, theirs) if mine and theirs else (prediction, reference)


def _around(grid: Grid, other: Grid) -> Grid:
    """A grid continued in every direction until it covers another one, too."""
    corners = grid.index(other.world(_corners(other)))
    start = np.minimum(np.floor(corners.min(axis=0) + 0.1).astype(int), 0)
    stop = np.maximum(np.ceil(corners.max(axis=0) - 0.1).astype(int) + 1, grid.shape)
    return grid.cropped(start.tolist(), stop.tolist())


def _corners(grid: Grid) -> NDArray[np.int_]:
    """Indices (8, 3) of the corner voxels."""
    return np.array(list(product(*((0, n - 1) for n in grid.shape))))


def _is_seg(volume: Volume) -> bool:
    return volume.source is not None and volume.source.format == "dicom-seg"


def _resampled(case: str, labels: Volume, grid: Grid) -> Volume:
    """The nearest label at every voxel of a grid, 0 outside."""
    moved = labels_on(labels, grid)
    if moved is None:
        raise GridMismatch(
            f"{case}: prediction and reference share no place, so there is nothing to resample.\n"
            f"  reference   {grid.describe()}\n  prediction  {labels.grid.describe()}"
        )
    return moved
