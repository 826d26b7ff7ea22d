"""Score predictions against references: arrays, volumes, files, or whole folders matched by case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus import io
from attentus.errors import AttentusError, BadFile, BadInput
from attentus.io.dicom import holds_dicom
from attentus.io.sniff import READABLE_ENDINGS, ending, stem
from attentus.metrics.case import score_volumes
from attentus.metrics.presets import Preset, Values, preset_named
from attentus.progress import Progress, Silent, track
from attentus.types import Grid, Score, Scores, Volume

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from numpy.typing import NDArray

    from attentus.metrics.rules import Rules


def score(
    prediction: NDArray[Any] | Volume | str | PathLike[str],
    reference: NDArray[Any] | Volume | str | PathLike[str],
    *,
    labels: Mapping[str, Values] | None = None,
    spacing: Sequence[float] | None = None,
    preset: Preset | str = "default",
    rules: Rules | None = None,
    metrics: Sequence[str] = (),
    lesions: Sequence[str] = (),
    organ: str = "",
    progress: Progress | None = None,
) -> Scores:
    """Measure one prediction, or a folder of them.

    Args:
        prediction: label array (z, y, x), Volume, file, or folder of files.
        reference: the same kind of thing; files of two folders are matched by name without ending.
        labels: structure to label value, e.g. {"liver": 1, "tumour": 2, "kidneys": (3, 4), "everything": "any"}.
            None scores every value found, named "label 1", "label 2", ...
        spacing: (z, y, x) mm; needed for arrays, possible for pictures, which cannot say it themselves.
        preset: metrics and conventions by name, see `PRESETS`; or one's own.
        rules: conventions instead of the preset's.
        metrics: names instead of the preset's.
        lesions: structures whose pieces are to be found one by one, e.g. ["tumour"].
        organ: structure that holds them, for the tumour burden.
        progress: shows the cases of a folder.

    Returns:
        Scores with one row per case, structure and metric. In a folder, cases without a partner and files that
        cannot be scored are listed in `failures`, and the rest is scored.

    Raises:
        BadInput: arrays without spacing, different shapes or grids, two things of different kinds.
        UnknownName: no such preset or metric.
    """
    chosen = preset_named(preset) if isinstance(preset, str) else preset
    how = chosen.but(rules=rules, metrics=metrics, lesions=lesions, organ=organ)
    if _is_cohort(prediction) and _is_cohort(reference):
        pairs, alone = match_files(label_files(Path(str(prediction))), label_files(Path(str(reference))))
        scores = score_files(pairs, labels, how, spacing=spacing, progress=progress)
        return replace(scores, failures={**alone, **scores.failures})
    name = stem(prediction) if isinstance(prediction, str | Path) else "case"
    volumes = _as_labels(prediction, spacing), _as_labels(reference, spacing)
    return Scores(tuple(score_volumes(name, *volumes, labels, how)), how.describe())


def score_files(
    pairs: Mapping[str, tuple[Path, Path]],
    labels: Mapping[str, Values] | None,
    how: Preset,
    *,
    spacing: Sequence[float] | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score files case by case.

    Args:
        pairs: case id to prediction and reference.
        labels: see `score`.
        how: metrics and conventions.
        spacing: see `score`.
        progress: shows the cases.

    Returns:
        Scores; cases that cannot be read or compared are in `failures`.
    """
    rows: list[Score] = []
    failures: dict[str, str] = {}
    for case, files in track(progress or Silent(), "scoring", list(pairs.items())):
        try:
            prediction, reference = (_as_labels(file, spacing) for file in files)
            rows += score_volumes(case, prediction, reference, labels, how)
        except AttentusError as error:
            failures[case] = str(error)
    return Scores(tuple(rows), how.describe(), failures)


def match_files(
    predictions: Mapping[str, Path], references: Mapping[str, Path]
) -> tuple[dict[str, tuple[Path, Path]], dict[str, str]]:
    """Pair files by case id.

    Returns:
        Case id to (prediction, reference), and case id to a message for those without a partner.

    Raises:
        BadInput: no file has a partner.
    """
    pairs = {case: (predictions[case], references[case]) for case in predictions.keys() & references.keys()}
    if not pairs:
        raise BadInput(
            f"None of {len(predictions)} prediction(s) has a reference of the same name among {len(references)}.\n"
            "  Files are matched by name without ending: liver_3.nii.gz with liver_3.nrrd."
        )
    alone = dict.fromkeys(references.keys() - predictions.keys(), "there is no prediction of this case")
    alone |= dict.fromkeys(predictions.keys() - references.keys(), "there is no reference of this case")
    return dict(sorted(pairs.items())), dict(sorted(alone.items()))


def label_files(folder: Path) -> dict[str, Path]:
    """Case id (name without ending) to file, for every image file in a folder.

    Raises:
        BadFile: no such folder.
    """
    if not folder.is_dir():
        raise BadFile(folder, "is no folder", "Name the folder that holds one label file per case.")
    files = (p for p in sorted(folder.iterdir()) if ending(p) in READABLE_ENDINGS and not p.name.startswith("."))
    return {stem(path): path for path in files}


def _is_cohort(thing: object) -> bool:
    """A folder of label files; a folder of DICOM files is one volume."""
    return isinstance(thing, str | Path) and Path(thing).is_dir() and not holds_dicom(Path(thing))


def _as_labels(thing: Any, spacing: Sequence[float] | None) -> Volume:
    if isinstance(thing, Volume):
        volume = thing.canonical()
    elif isinstance(thing, str | Path):
        volume = io.read_labels(thing)
    else:
        if spacing is None:
            raise BadInput("Arrays carry no spacing: pass spacing=(z, y, x) in mm.")
        return _from_array(np.asarray(thing), spacing)
    if spacing is None:
        return volume
    if volume.source is None or volume.source.format not in ("pictures", "png", "jpeg", "tiff", "bmp"):
        raise BadInput("spacing can only be given for arrays and pictures; this image says its own.")
    return Volume(volume.array, Grid(volume.grid.shape, _triple(spacing)))


def _from_array(array: NDArray[Any], spacing: Sequence[float]) -> Volume:
    if array.dtype.kind not in "iub":
        raise BadInput(f"Labels are whole numbers, got an array of {array.dtype}; threshold or round it first.")
    if array.ndim == 2:
        return Volume.from_array(array[None].astype(np.uint16), (1.0, *spacing))
    return Volume.from_array(array.astype(np.uint16), spacing)


def _triple(spacing: Sequence[float]) -> tuple[float, float, float]:
    if len(spacing) != 3:
        raise BadInput(f"Spacing is three numbers (z, y, x) in mm, got {tuple(spacing)}.")
    return float(spacing[0]), float(spacing[1]), float(spacing[2])
