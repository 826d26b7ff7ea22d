"""Score predictions against references: arrays, volumes, files, or whole folders matched by case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attentus.errors import AttentusError
from attentus.io.sniff import stem
from attentus.metrics.case import score_volumes
from attentus.metrics.cohorts import Cohort, is_cohort, pair_up
from attentus.metrics.inputs import Comparison
from attentus.metrics.presets import Preset, preset_named
from attentus.progress import Progress, Silent, track
from attentus.types import Score, Scores, Volume

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from numpy.typing import NDArray

    from attentus.metrics.rules import Rules
    from attentus.metrics.structures import Labels, Names

    Thing = NDArray[Any] | Volume | str | PathLike[str] | Cohort | Mapping[str, Path]


def score(
    prediction: Thing,
    reference: Thing,
    *,
    labels: Labels | None = None,
    spacing: Sequence[float] | None = None,
    preset: Preset | str = "default",
    rules: Rules | None = None,
    metrics: Sequence[str] = (),
    lesions: Sequence[str] = (),
    organ: str = "",
    resample: bool = False,
    progress: Progress | None = None,
) -> Scores:
    """Measure one prediction, or a folder of them.

    Args:
        prediction: label array (z, y, x), Volume, file (NIfTI, NRRD, MHA, DICOM SEG, PNG), folder of one case (one
            file per structure, or a SEG), folder of cases (a file or folder each), or mapping of case id to path.
        reference: the same kind of thing; cases of two folders are matched by name, see `cohorts.match_cases`.
        labels: structure to label value, e.g. {"liver": 1, "tumour": 2, "kidneys": (3, 4), "everything": "any"};
            where the two sides count differently {"liver": Sides(prediction=1, reference=255)}, or a pair of such
            mappings, predictions first. Names of labels may stand for values where a side has them. None matches by
            name what both sides name (see `attentus.io.names`), or else scores every value, as "label 1", ...
        spacing: (z, y, x) mm; needed for arrays, possible for pictures, which cannot say it themselves.
        preset: metrics and conventions by name, see `PRESETS`, or one's own; it may prescribe labels, too.
        rules: conventions instead of the preset's.
        metrics: names instead of the preset's.
        lesions: structures whose pieces are to be found one by one, e.g. ["tumour"].
        organ: structure that holds them, for the tumour burden.
        resample: bring predictions on other grids onto the reference's, taking the nearest label; `Scores.rules`
            then lists the cases under "resampled". Otherwise another grid is an error.
        progress: shows the cases of a folder.

    Returns:
        Scores with one row per case, structure and metric. In a folder, cases without a partner and files that
        cannot be scored are listed in `failures`, and the rest is scored. `Scores.rules` lists structures that only
        one side names under "not scored".

    Raises:
        BadInput: arrays without spacing, different grids, two things of different kinds, no label name on both sides.
        UnknownName: no such preset or metric, or no structure called as `lesions` or `organ` say.
    """
    chosen = preset_named(preset) if isinstance(preset, str) else preset
    how = chosen.but(rules=rules, metrics=metrics, lesions=lesions, organ=organ)
    asked = (*lesions, organ) if organ else lesions
    known = () if labels is None else labels[0] if isinstance(labels, tuple) else labels
    if is_cohort(prediction, known) or is_cohort(reference, known):
        pairs, alone, names = pair_up(prediction, reference, known)
        scores = score_files(
            pairs, labels, how, names=names, spacing=spacing, resample=resample, asked=asked, progress=progress
        )
        return replace(scores, failures={**alone, **scores.failures})
    case = stem(prediction) if isinstance(prediction, str | Path) else "case"
    sides = Comparison.of({case: (prediction, reference)}, labels or how.labels, spacing=spacing, resample=resample)
    sides.require(asked)
    rows = _rows(case, sides, (prediction, reference), labels, how)
    return Scores(tuple(rows), {**how.describe(), **sides.remarks()})


def score_many(predictions: Mapping[str, Thing], reference: Thing, **options: Any) -> dict[str, Scores]:
    """Measure several predictions, e.g. of several methods, against one reference.

    Args:
        predictions: name to prediction.
        reference: see `score`.
        **options: of `score`.

    Returns:
        Name to Scores.

    Raises:
        BadInput: as `score`.
    """
    return {name: score(prediction, reference, **options) for name, prediction in predictions.items()}


def score_files(
    pairs: Mapping[str, tuple[Any, Any]],
    labels: Labels | None,
    how: Preset,
    *,
    names: tuple[Names | None, Names | None] = (None, None),
    spacing: Sequence[float] | None = None,
    resample: bool = False,
    asked: Sequence[str] = (),
    progress: Progress | None = None,
) -> Scores:
    """Score files case by case.

    Args:
        pairs: case id to prediction and reference.
        labels: see `score`.
        how: metrics and conventions.
        names: label names of all predictions and of all references; None looks for them in and beside the files.
        spacing: see `score`.
        resample: see `score`.
        asked: names of structures that have to be there.
        progress: shows the cases.

    Returns:
        Scores; cases that cannot be read or compared are in `failures`.

    Raises:
        BadInput: no label name is on both sides, or one was asked for that a side does not have.
        UnknownName: no structure of a name in `asked`.
    """
    sides = Comparison.of(pairs, labels or how.labels, names, spacing=spacing, resample=resample)
    sides.require(asked)
    rows: list[Score] = []
    failures: dict[str, str] = {}
    for case, files in track(progress or Silent(), "scoring", list(pairs.items())):
        try:
            rows += _rows(case, sides, files, labels, how)
        except AttentusError as error:
            failures[case] = str(error)
    return Scores(tuple(rows), {**how.describe(), **sides.remarks()}, failures)


def _rows(case: str, sides: Comparison, pair: tuple[Any, Any], labels: Labels | None, how: Preset) -> list[Score]:
    """One case; labels that only the preset prescribes are checked against what is there."""
    prediction, reference, values = sides.read(case, *pair)
    return score_volumes(case, prediction, reference, None if labels is None and how.labels else values, how)
