"""Many scans, one after the other: which there are, where their results go, and what failed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus import io
from attentus.data.resolve import values_in
from attentus.errors import AttentusError, BadFile
from attentus.io.atomic import write_text
from attentus.io.dicom import find_series, holds_dicom
from attentus.io.picture import slice_files
from attentus.io.sniff import PICTURE_ENDINGS, READABLE_ENDINGS, ending, stem
from attentus.progress import Progress, Silent, track

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from attentus.infer.ensemble import Ensemble
    from attentus.infer.model import Model
    from attentus.types import Prediction

WRITABLE = ("nii.gz", "nii", "nrrd", "mha", "png")


@dataclass(frozen=True)
class Scan:
    """Something to predict and where its labels go."""

    name: str
    path: Path
    result: Path
    series: str | None = None
    """Of a DICOM folder that holds several series: the UID of this one."""


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

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "file": str(self.file)}


def find_scans(path: Path, out: Path, wanted: str | None = None) -> list[Scan]:
    """Find the scans behind a path and name their results.

    Args:
        path: one file, one DICOM series, or a folder of files, DICOM series or both.
        out: a file name with a known ending for a single scan, otherwise a folder.
        wanted: ending of the results, such as "nrrd"; None takes nii.gz, and png for pictures.

    Raises:
        BadFile: nothing there, an ending that cannot be written, or several scans for one result file.
    """
    if wanted is not None and wanted.lstrip(".") not in WRITABLE:
        raise BadFile(out, f"'{wanted}' is no format that can be written", f"Use one of {', '.join(WRITABLE)}.")
    if not path.exists():
        raise BadFile(path, "does not exist", "Check the path and its spelling.")
    sources = [(stem(path), path, None)] if path.is_file() else _in_folder(path)
    if not sources:
        raise BadFile(path, "holds no scan", "Name a folder with NIfTI, NRRD, MHA, DICOM or picture files.")
    if ending(out).lstrip(".") in WRITABLE:
        if len(sources) > 1:
            raise BadFile(out, f"is one file, but {path} holds {len(sources)} scans", "Name a folder for the results.")
        name, source, series = sources[0]
        return [Scan(name, source, out, series)]
    return [
        Scan(name, source, out / f"{name}.{(wanted or _usual(source)).lstrip('.')}", series)
        for name, source, series in sources
    ]


def predict_cohort(
    model: Model | Ensemble,
    scans: list[Scan],
    *,
    clean: bool = True,
    probabilities: bool = False,
    attention: bool = False,
    max_ram: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Done | str]:
    """Predict scans one by one and write their labels, and labels.json, which names them, beside them.

    A region that holds others is named with all their values.

    Args:
        model: whose labels are written.
        scans: see `find_scans`.
        clean: post-process as the model's recipe says.
        probabilities: also write NAME_probabilities.nii.gz, background first.
        attention: also write NAME_attention_GATE.nii.gz for every gate.
        max_ram: see `Model.predict`.
        overwrite: whether existing results may be replaced.
        progress: shows the scans.

    Returns:
        Scan name to what was done, or to a message if it failed.
    """
    done: dict[str, Done | str] = {}
    for scan in track(progress or Silent(), "predicting", scans):
        try:
            if scan.result.exists() and not overwrite:
                raise BadFile(
                    scan.result, "exists already", "Allow overwriting (--overwrite), or choose another folder."
                )
            volume = io.read(scan.path, series=scan.series, as_stored=True)
            prediction = model.predict(
                volume, clean=clean, probabilities=probabilities, attention=attention, max_ram=max_ram
            )
            _write(prediction, scan, overwrite=overwrite)
            changes = prediction.removed_ml, prediction.added_ml
            done[scan.name] = Done(
                scan.result, prediction.seconds, volumes_ml(prediction), *changes, level=prediction.level
            )
        except AttentusError as error:
            done[scan.name] = str(error)
    for folder in {scan.result.parent for scan in scans if isinstance(done[scan.name], Done)}:
        labels = {name: v[0] if len(v) == 1 else list(v) for name, v in values_in(model.recipe).items()}
        write_text(folder / "labels.json", json.dumps({"model": model.recipe.name, "labels": labels}, indent=1))
    return done


def volumes_ml(prediction: Prediction) -> dict[str, float]:
    """Volume of each structure, millilitres."""
    counts = np.zeros(1 + max(prediction.names.values()), np.int64)
    for plane in prediction.labels.array[0]:  # plane by plane, because counting widens numbers to eight bytes
        counts += np.bincount(plane.ravel(), minlength=len(counts))
    voxel = prediction.labels.grid.voxel_ml
    return {name: float(counts[value] * voxel) for name, value in prediction.names.items()}


def _write(prediction: Prediction, scan: Scan, *, overwrite: bool) -> None:
    io.write(prediction.labels, scan.result, overwrite=overwrite)
    base = scan.result.with_name(stem(scan.result))
    if prediction.probabilities is not None:
        volume = prediction.probabilities
        file = base.with_name(f"{base.name}_probabilities.nii.gz")
        io.write(volume.like(volume.array.astype(np.float32)), file, overwrite=overwrite)
    for name, volume in prediction.attention.items():
        file = base.with_name(f"{base.name}_attention_{name.replace('.', '-')}.nii.gz")
        io.write(volume.like(volume.array.astype(np.float32)), file, overwrite=overwrite)


def _in_folder(folder: Path) -> list[tuple[str, Path, str | None]]:
    """Name, path and series of every scan in a folder: image files, then DICOM series, each by its folder."""
    files = [p for p in sorted(folder.iterdir()) if ending(p) in READABLE_ENDINGS and not p.name.startswith(".")]
    if files:
        return [(stem(p), p, None) for p in files]
    if not holds_dicom(folder):
        return [(p.name, p, None) for p in sorted(folder.iterdir()) if p.is_dir() and slice_files(p)]
    places: dict[str, list[tuple[Path, str, str]]] = {}
    for series in find_series(folder):
        home = series.files[0].parent
        places.setdefault(home.name, []).append((home, series.uid, series.description))
    return [
        (name if len(group) == 1 else f"{name}_{number}", home, uid)
        for name, group in sorted(places.items())
        for number, (home, uid, _) in enumerate(group, start=1)
    ]


def _usual(source: Path) -> str:
    return "png" if ending(source) in PICTURE_ENDINGS else "nii.gz"
