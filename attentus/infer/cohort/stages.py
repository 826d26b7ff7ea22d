"""What is done with one scan: it is read, predicted, written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from attentus import io
from attentus.errors import AttentusError
from attentus.infer.segment import check_channels
from attentus.io.sniff import stem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from attentus.infer.cohort.scans import Scan
    from attentus.infer.forecast import Forecast
    from attentus.progress import Progress
    from attentus.recipes import Recipe
    from attentus.types import Prediction, Volume


class Segmenter(Protocol):
    """A model, or several that answer as one."""

    @property
    def recipe(self) -> Recipe:
        """Names channels and labels."""

    @property
    def names(self) -> dict[str, int]:
        """Structure to the integer it has in label files."""

    @property
    def fingerprint(self) -> str:
        """Differs between models that may answer differently."""

    def predict(
        self,
        scan: Volume,
        *,
        clean: bool = True,
        probabilities: bool = False,
        attention: bool = False,
        max_ram: int | None = None,
        progress: Progress | None = None,
    ) -> Prediction:
        """Segment one scan."""


class Forecaster(Protocol):
    """A model that says what a scan will take."""

    def forecast(self, scan: Volume) -> Forecast:
        """Time and memory."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of every scan; it decides what is written."""

    clean: bool = True
    """Post-process as the model's recipe says."""
    probabilities: bool = False
    attention: bool = False
    max_ram: int | None = None
    """Changes no result."""


@dataclass(frozen=True)
class Order:
    """A scan to do."""

    scan: Scan
    overwrite: bool = False
    """Whether its results may replace files."""


@dataclass(frozen=True)
class Done:
    """What became of a scan."""

    file: Path
    seconds: float
    volumes_ml: Mapping[str, float]
    removed_ml: Mapping[str, float]
    """What post-processing took from structures."""
    added_ml: Mapping[str, float]
    """What it gave to structures."""
    level: float | None = None
    """With early exit, see `Prediction.level`."""
    repeated: bool = False
    """It was there already, from an earlier command."""
    others: tuple[Path, ...] = ()
    """Files beside the labels: probabilities, attention."""
    notes: tuple[str, ...] = ()
    """See `Prediction.notes`."""

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "file": str(self.file), "others": [str(file) for file in self.others]}


def fetch(scan: Scan, recipe: Recipe) -> Volume:
    """Read a scan and look whether it is one for this recipe.

    Raises:
        BadInput: it cannot be read, or shows something else.
    """
    volume = io.read(scan.path, series=scan.series, as_stored=True)
    check_channels(volume, recipe)
    return volume


def store(order: Order, prediction: Prediction) -> Done:
    """Write what was predicted; the labels last, so that where they are, all is.

    Raises:
        BadFile: the disk is full, the place cannot be written to, or a file is there that may not be replaced.
    """
    base = order.scan.result.with_name(stem(order.scan.result))
    maps = {f"attention_{name.replace('.', '-')}": volume for name, volume in prediction.attention.items()}
    if prediction.probabilities is not None:
        maps["probabilities"] = prediction.probabilities
    others = {base.with_name(f"{base.name}_{name}.nii.gz"): volume for name, volume in maps.items()}
    for file, volume in others.items():
        io.write(volume.like(volume.array.astype(np.float32)), file, overwrite=order.overwrite)
    io.write(prediction.labels, order.scan.result, overwrite=order.overwrite)
    changes = prediction.removed_ml, prediction.added_ml
    return Done(
        *(order.scan.result, prediction.seconds, volumes_ml(prediction), *changes),
        level=prediction.level,
        others=tuple(others),
        notes=prediction.notes,
    )


def volumes_ml(prediction: Prediction) -> dict[str, float]:
    """Volume of each structure, millilitres."""
    counts = np.zeros(1 + max(prediction.names.values()), np.int64)
    for plane in prediction.labels.array[0]:  # plane by plane, because counting widens numbers to eight bytes
        counts += np.bincount(plane.ravel(), minlength=len(counts))
    voxel = prediction.labels.grid.voxel_ml
    return {name: float(counts[value] * voxel) for name, value in prediction.names.items()}


def bytes_of(prediction: Prediction) -> int:
    """What a prediction takes in memory."""
    volumes = [prediction.labels, *prediction.attention.values()]
    volumes += [] if prediction.probabilities is None else [prediction.probabilities]
    return sum(volume.array.nbytes for volume in volumes)


def in_words(error: BaseException) -> str:
    """A failure as one scan's line in the list; what was not foreseen says what kind of error it is."""
    return str(error) if isinstance(error, AttentusError) else f"{type(error).__name__}: {error}"
