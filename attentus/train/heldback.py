"""Held-back cases of a finished training: predicted once, and kept on disk where post-processing may change them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from attentus.data.resolve import values_in
from attentus.errors import AttentusError, BadFile, BadInput
from attentus.infer.clean import among, clean
from attentus.infer.model import Model, recipe_of
from attentus.metrics.pair import Pair
from attentus.progress import Progress, Silent
from attentus.train.evaluate import ignored, reference
from attentus.transforms.prepare import SLAB_VOXELS, decide

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from attentus.data.dataset import Dataset
    from attentus.recipes import Clean, Recipe
    from attentus.types import Case, Triple

TINY = 6e-8
"""The smallest probability above 0 that half precision knows."""


@dataclass(frozen=True)
class Run:
    """A finished training and the cases on which it was validated."""

    folder: Path
    recipe: Recipe
    cases: tuple[Case, ...]


@dataclass(frozen=True, eq=False)
class Held:
    """A case as the model sees it and as it is, cut to the box in which either has something."""

    id: str
    subject: str
    recipe: Recipe
    spacing: Triple
    folder: Path
    """Holds labels.npy, truth.npy, and if wanted probabilities.npy (float16) and ignored.npy."""

    @property
    def names(self) -> dict[str, int]:
        """Structure to label value."""
        return {structure.name: structure.value for structure in self.recipe.labels}

    def array(self, name: str) -> NDArray[Any]:
        """One of the arrays, (z, y, x) or (K, z, y, x), mapped from disk."""
        loaded: NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return loaded

    def cleaned(self, how: Mapping[str, Clean]) -> NDArray[np.unsignedinteger]:
        """Labels (z, y, x) as they are after post-processing."""
        labels = np.array(self._decided({name: rule.threshold for name, rule in how.items() if rule.threshold}))
        clean(labels, self.spacing, how, self.names, values_in(self.recipe))
        return labels

    def dice(self, how: Mapping[str, Clean]) -> list[float]:
        """Dice of every structure after post-processing; 1 where there is none and none is found."""
        labels, truth = self.cleaned(how), self.array("truth")
        if self.recipe.ignore:
            labels[self.array("ignored")] = 0
        return [
            Pair(among(labels, values), among(truth, values), self.spacing).measure("dice")
            for values in values_in(self.recipe).values()
        ]

    def _decided(self, thresholds: Mapping[str, float]) -> NDArray[np.unsignedinteger]:
        """Labels before cleaning; with thresholds they are decided anew from probabilities, once."""
        if not thresholds:
            return self.array("labels")
        name = "labels " + " ".join(f"{self.names[key]}={value}" for key, value in sorted(thresholds.items()))
        if not (self.folder / f"{name}.npy").is_file():
            np.save(self.folder / f"{name}.npy", self._decide([thresholds.get(each) for each in self.names]))
        return self.array(name)

    def _decide(self, thresholds: Sequence[float | None]) -> NDArray[np.unsignedinteger]:
        """Labels by probabilities, a few slices at a time."""
        shares, regions = self.array("probabilities"), self.recipe.regions
        values = np.array([0, *self.names.values()], self.array("labels").dtype)
        labels = np.empty(shares.shape[1:], values.dtype)
        step = max(1, SLAB_VOXELS // shares[:, 0].size)
        for first in range(0, len(labels), step):
            slab = np.asarray(shares[:, first : first + step], np.float32)
            logits = np.log(np.maximum(slab, TINY))
            if regions:
                logits -= np.log(np.maximum(1 - slab, TINY))
            labels[first : first + step] = values[decide(logits, regions=regions, thresholds=thresholds)]
        return labels


def runs_of(folder: Path, dataset: Dataset) -> list[Run]:
    """The training in a model folder, or those of all folds and seeds in a folder of runs.

    Raises:
        BadFile: neither, or a training that is not finished.
        BadInput: they segment different things, or the dataset is not the one they were trained on.
    """
    folders = (
        [folder] if (folder / "recipe.yaml").is_file() else sorted(p.parent for p in folder.glob("fold*/recipe.yaml"))
    )
    if not folders:
        raise BadFile(folder, "is no model folder and holds none", "Name the folder that training wrote.")
    runs = [_run(each, dataset) for each in folders]
    for run in runs[1:]:
        mine, first = ((r.recipe.labels, r.recipe.regions, r.recipe.infer.clean) for r in (run, runs[0]))
        if mine != first:
            raise BadInput(
                f"{run.folder} has other structures or another infer.clean than {runs[0].folder}: tune them one by one."
            )
    return runs


def _run(folder: Path, dataset: Dataset) -> Run:
    recipe = recipe_of(folder)
    try:
        facts = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        ids, labels = list(facts["validation"]), facts["labels"]
    except (OSError, ValueError, KeyError):
        raise BadFile(folder, "does not say which cases were held back (data.json)", "Name a trained model.") from None
    if not (folder / "scores.json").is_file():
        raise BadFile(folder, "is not finished (it has no scores.json)", "Train it to its end first.")
    if labels != dict(dataset.labels):
        raise BadInput(f"{folder} was trained on labels {labels}, {dataset.root} has {dict(dataset.labels)}.")
    known = {case.id for case in dataset.labelled}
    lacking = [case for case in ids if case not in known]
    if lacking:
        raise BadInput(
            f"{dataset.root} lacks held-back case(s) of {folder}, or their labels: {', '.join(lacking)}.\n"
            "  Name the dataset that the model was trained on."
        )
    return Run(folder, recipe, tuple(dataset[case] for case in ids))


def predict_held(
    runs: Sequence[Run],
    dataset: Dataset,
    place: Path,
    lowest: float | None,
    progress: Progress | None = None,
) -> tuple[list[Held], dict[str, str]]:
    """Predict every held-back case by the model that has not seen it, one in memory at a time.

    Args:
        runs: see `runs_of`. A case that several of them held back appears once for each, as "case (run)".
        dataset: which the cases are from.
        place: folder for what is kept, a few bytes per voxel of the boxes.
        lowest: smallest threshold that will be asked for; None keeps no probabilities.
        progress: shows the cases.

    Returns:
        The cases, and case to message for those that failed.
    """
    held: list[Held] = []
    failures: dict[str, str] = {}
    everyone = [case.id for run in runs for case in run.cases]
    with (progress or Silent()).task("predicting", len(everyone)) as task:
        for run in runs:
            model = Model.load(run.folder)
            for case in run.cases:
                name = case.id if everyone.count(case.id) == 1 else f"{case.id} ({run.folder.name})"
                try:
                    one = _predict(model, case, dataset, place / uuid4().hex, lowest)
                    held.append(replace(one, id=name))
                except AttentusError as error:
                    failures[name] = str(error)
                task.advance()
    return held, failures


def _predict(model: Model, case: Case, dataset: Dataset, folder: Path, lowest: float | None) -> Held:
    found = model.predict(case, clean=False, probabilities=lowest is not None)
    truth = reference(case, dataset, model.recipe)
    truth.grid.require_match(found.labels.grid, case.id, "reference", "prediction")
    busy = (found.labels.array[0] > 0) | (truth.array[0] > 0)
    if found.probabilities is not None and lowest is not None:
        for share in found.probabilities.array[0 if model.recipe.regions else 1 :]:
            busy |= share > lowest
    box = tuple(spacious(busy))
    folder.mkdir(parents=True)
    np.save(folder / "labels.npy", found.labels.array[0][box])
    np.save(folder / "truth.npy", truth.array[0][box])
    if found.probabilities is not None:
        np.save(folder / "probabilities.npy", found.probabilities.array[(slice(None), *box)])
    if model.recipe.ignore:
        np.save(folder / "ignored.npy", ignored(case, dataset, model.recipe)[0][box])
    return Held(case.id, case.subject, model.recipe, truth.grid.spacing, folder)


def spacious(busy: NDArray[np.bool_]) -> Iterator[slice]:
    """The box of a mask with a voxel to spare, so that a volume of slices stays one."""
    for axis, size in enumerate(busy.shape):
        used = np.flatnonzero(busy.any(axis=tuple(other for other in range(3) if other != axis)))
        yield slice(max(int(used[0]) - 1, 0), int(used[-1]) + 2) if used.size else slice(0, min(size, 2))
