"""What is done with one scan: it is read, predicted, written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from attentus import io
from attentus.errors import AttentusError
from attentus.infer.dicom_out import save_dicom
from attentus.infer.segment import check_channels
from attentus.io.sniff import stem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from attentus.infer.cohort.scans import Scan
    from attentus.infer.forecast import Forecast
    from attentus.io.dicom_write import Dicom
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
    dicom: Dicom | None = None
    """How results become DICOM; None where they do not."""

    def of_model(self) -> dict[str, Any]:
        """What the model is asked for: all that is wanted, and what writing it takes."""
        fractions = self.dicom is not None and self.dicom.kind == "fractional"
        asked = {name: value for name, value in vars(self).items() if name != "dicom"}
        return {**asked, "probabilities": self.probabilities or fractions}

    def facts(self) -> dict[str, Any]:
        """Plain values: what decides what comes out."""
        return {**self.of_model(), "max_ram": None, "dicom": self.dicom and self.dicom.facts()}


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


def store(order: Order, prediction: Prediction, wanted: Wanted | None = None) -> Done:
    """Write what was predicted; the labels last, so that where they are, all is.

    Raises:
        BadFile: the disk is full, the place cannot be written to, or a file is there that may not be replaced.
        BadInput: DICOM is wanted of a scan that is none.
    """
    wanted = wanted or Wanted()
    result = order.scan.result
    base = result.with_name(stem(result))
    maps = {f"attention_{name.replace('.', '-')}": volume for name, volume in prediction.attention.items()}
    if prediction.probabilities is not None and wanted.probabilities:
        maps["probabilities"] = prediction.probabilities
    others = {base.with_name(f"{base.name}_{name}.nii.gz"): volume for name, volume in maps.items()}
    for file, volume in others.items():
        io.write(volume.like(volume.array.astype(np.float32)), file, overwrite=order.overwrite)
    if wanted.dicom:
        report = base.with_name(f"{base.name}_sr.dcm") if wanted.dicom.report else None
        save_dicom(prediction, result, wanted.dicom, report, overwrite=order.overwrite)
        others |= {report: prediction.labels} if report else {}
    else:
        io.write(prediction.labels, result, overwrite=order.overwrite)
    changes = prediction.removed_ml, prediction.added_ml
    return Done(
        *(order.scan.result, prediction.seconds, volumes_ml(prediction), *changes),
        level=prediction.level,
        others=tuple(others),
        notes=prediction.notes,
    )


def volumes_ml(prediction: Prediction) -> dict[str, float]:
    """Volume of each structure, millilitres; a region that holds others counts with them."""
    counts = np.zeros(1 + max(prediction.names.values()), np.int64)
    for plane in prediction.labels.array[0]:  # plane by plane, because counting widens numbers to eight bytes
        counts += np.bincount(plane.ravel(), minlength=len(counts))
    voxel = prediction.labels.grid.voxel_ml
    values = {name: list(prediction.parts.get(name, (value,))) for name, value in prediction.names.items()}
    return {name: float(counts[held].sum() * voxel) for name, held in values.items()}


def bytes_of(prediction: Prediction) -> int:
    """What a prediction takes in memory."""
    volumes = [prediction.labels, *prediction.attention.values()]
    volumes += [] if prediction.probabilities is None else [prediction.probabilities]
    return sum(volume.array.nbytes for volume in volumes)


def in_words(error: BaseException) -> str:
    """A failure as one scan's line in the list; what was not foreseen says what kind of error it is."""
    return str(error) if isinstance(error, AttentusError) else f"{type(error).__name__}: {error}"
