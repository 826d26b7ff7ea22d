"""Several models as one: each looks where an earlier one found something. It has the face of a `Model`.

cascade.yaml          the cascade, every stage's recipe resolved
stages/NAME/foldK     the models of a stage, each a model folder; those of one stage vote
views/NAME            what a stage saw in training: cases cut to boxes, and boxes.json, which says why there
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus.cascade.boxes import Region, bounds, widened
from attentus.data.resolve import values_in
from attentus.errors import BadFile
from attentus.infer import ensemble
from attentus.infer.model import Model, read_volume
from attentus.recipes import CascadeRecipe, Recipe, answer_recipe, load_cascade
from attentus.types import Prediction, Volume

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    import torch
    from numpy.typing import NDArray

    from attentus.infer import Ensemble
    from attentus.infer.forecast import Forecast
    from attentus.infer.segment import Vote
    from attentus.infer.speed import Speed
    from attentus.progress import Progress
    from attentus.recipes import Box
    from attentus.types import Case, Grid

FILE = "cascade.yaml"
STAGES = "stages"


@dataclass(frozen=True, eq=False)
class Found:
    """What a stage said, and where it looked."""

    region: Region
    prediction: Prediction
    values: Mapping[str, tuple[int, ...]]
    """The label values that form each structure."""

    def mask(self, structure: str) -> NDArray[np.bool_]:
        """Voxels (z, y, x) of its region; all structures if the name is empty."""
        labels = self.prediction.labels.array[0]
        return np.isin(labels, self.values[structure]) if structure else labels > 0

    def mask_in(self, region: Region, structure: str) -> NDArray[np.bool_]:
        """The same on another region; false where this stage did not look."""
        mask = np.zeros(region.shape, bool)
        mask[self.region.within(region)] = self.mask(structure)[region.within(self.region)]
        return mask


@dataclass(eq=False)
class Cascade:
    """Models of several stages."""

    plan: CascadeRecipe
    """Resolved."""
    models: Mapping[str, Model | Ensemble]
    """By stage."""
    folder: Path | None = None

    @classmethod
    def load(
        cls, folder: str | PathLike[str], *, vote: Vote = "mean", fold: int | None = None, **options: Any
    ) -> Cascade:
        """Load the folder of a cascade.

        Args:
            folder: as `fit_cascade` wrote it.
            vote: how the folds of a stage decide together.
            fold: only the models of this fold, which have not seen its held-back cases.
            **options: see `Model.load`; changes of `infer` hold for every stage.

        Raises:
            BadFile: no cascade, or one whose stages are not all trained.
        """
        folder = Path(folder)
        if not is_cascade(folder):
            raise BadFile(folder, f"holds no cascade ({FILE})", "Name the folder that training a cascade wrote.")
        plan = load_cascade(folder / FILE)
        models: dict[str, Model | Ensemble] = {}
        for name in plan.stages:
            place = folder / STAGES / name
            if not ensemble.member_folders(place):
                raise BadFile(place, "holds no model", "The training did not come to this stage; run it again.")
            models[name] = (
                ensemble.load(place, vote=vote, **options)
                if fold is None
                else Model.load(place / f"fold{fold}", **options)
            )
        return cls(plan, models, folder)

    @cached_property
    def recipe(self) -> Recipe:
        """What the cascade takes and finds, as a recipe: channels, and the structures of its answer."""
        return answer_recipe(self.plan)

    @property
    def names(self) -> dict[str, int]:
        """Structure to the integer it has in label files."""
        return {structure.name: structure.value for structure in self.recipe.labels}

    @property
    def fingerprint(self) -> str:
        """Of the cascade and all its models; see `Model.fingerprint`."""
        parts = [self.plan.model_dump_json(), *(model.fingerprint for model in self.models.values())]
        return blake2b(" ".join(parts).encode(), digest_size=16).hexdigest()

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        model = next(iter(self.models.values()))
        return (model if isinstance(model, Model) else model.models[0]).device

    def at_speed(self, speed: Speed, *, scans: int = 1) -> Cascade:
        """The same for predicting only, faster; see `Model.at_speed`."""
        faster = {name: model.at_speed(speed, scans=scans) for name, model in self.models.items()}
        return replace(self, models=faster)

    def predict(
        self,
        scan: Volume | Case | str | PathLike[str],
        *,
        clean: bool = True,
        probabilities: bool = False,
        attention: bool = False,
        max_ram: int | None = None,
        progress: Progress | None = None,
    ) -> Prediction:
        """Segment one scan, stage by stage.

        Where a stage finds nothing to look around, what comes after it is empty and `Prediction.notes` says so.

        Args:
            scan: volume, case, file, or folder of a DICOM series.
            clean: post-process every stage as its recipe says.
            probabilities: keep the probability of each structure of the answer, 0 where its stage did not look or may
                not find anything.
            attention: keep the attention coefficients of every stage, named STAGE.MODULE, on the grid of its box.
            max_ram: see `Model.predict`.
            progress: shows the windows of each stage.

        Returns:
            Labels, and what else was asked for, on the scan's own grid.

        Raises:
            BadInput: see `Model.predict`.
        """
        started = time.perf_counter()
        volume = read_volume(scan)
        wanted: dict[str, Any] = {"clean": clean, "probabilities": probabilities, "attention": attention}
        found: dict[str, Found | None] = {}
        notes: list[str] = []
        for name, stage in self.plan.stages.items():
            region, empty = where(stage.box, found, volume.grid)
            if empty:
                fate = "was left out, what it would find is empty" if region is None else "looked at the whole scan"
                notes.append(f"stage '{empty[0]}' found no {empty[1] or 'structure'}, so stage '{name}' {fate}")
            found[name] = None
            if region is not None:
                said = self.models[name].predict(region.of(volume), **wanted, max_ram=max_ram, progress=progress)
                found[name] = confined(Found(region, said, values_in(stage.recipe)), stage.inside, found)
        joined = self._joined(volume, found, probabilities=probabilities)
        return replace(joined, notes=tuple(notes), seconds=time.perf_counter() - started)

    def forecast(self, scan: Volume | Case | str | PathLike[str]) -> Forecast:
        """What `predict` will take at most, as if every stage looked at the whole scan; see `Model.forecast`."""
        volume = read_volume(scan)
        each = [model.forecast(volume) for model in self.models.values()]
        worst = max(each, key=lambda one: one.most)
        return replace(worst, windows=sum(e.windows for e in each), seconds=sum(e.seconds for e in each))

    def _joined(self, volume: Volume, found: Mapping[str, Found | None], *, probabilities: bool) -> Prediction:
        """The answer on the scan's grid."""
        names = self.names
        labels = np.zeros((1, *volume.grid.shape), np.uint8 if max(names.values()) < 256 else np.uint16)
        shares = np.zeros((len(names), *volume.grid.shape), np.float16) if probabilities else None
        removed: dict[str, float] = {}
        added: dict[str, float] = {}
        for number, (structure, place) in enumerate(self.plan.answer.items()):
            stage, _, own = place.partition(".")
            said = found[stage]
            if said is None:
                continue
            labels[(0, *said.region.slices)][said.mask(own)] = names[structure]
            for before, after in ((said.prediction.removed_ml, removed), (said.prediction.added_ml, added)):
                if own in before:
                    after[structure] = before[own]
            if shares is not None and said.prediction.probabilities is not None:
                channel = self.plan.stages[stage].recipe.outputs.index(own)
                shares[(number, *said.region.slices)] = said.prediction.probabilities.array[channel]
        attention = {
            f"{stage}.{module}": coefficients
            for stage, said in found.items()
            for module, coefficients in (said.prediction.attention.items() if said else ())
        }
        return Prediction(
            labels=volume.like(labels),
            names=names,
            probabilities=None if shares is None else volume.like(shares),
            attention=attention,
            parts={name: held for name, held in values_in(self.recipe).items() if len(held) > 1},
            removed_ml=removed,
            added_ml=added,
            model=self.plan.name,
        )


def where(
    box: Box | None, found: Mapping[str, Found | None], grid: Grid
) -> tuple[Region | None, tuple[str, str] | None]:
    """Where a stage looks.

    Args:
        box: of the stage.
        found: what earlier stages said; None of those that did not look anywhere.
        grid: of the scan.

    Returns:
        The region, None if there is nothing to look at; and, if nothing was found there, which stage did not find
        which structure.
    """
    if box is None:
        return Region.whole(grid), None
    stage, _, structure = box.around.partition(".")
    before = found[stage]
    inner = None if before is None else bounds(before.mask(structure))
    if before is None or inner is None:
        return Region.whole(grid) if box.if_empty == "whole" else None, (stage, structure)
    return widened(inner.moved(before.region.start), grid, box), None


def confined(found: Found, inside: str | None, earlier: Mapping[str, Found | None]) -> Found:
    """What a stage found, without what lies outside of what an earlier one found."""
    if inside is None:
        return found
    stage, _, structure = inside.partition(".")
    around = earlier[stage]
    mask = np.zeros(found.region.shape, bool) if around is None else around.mask_in(found.region, structure)
    said = found.prediction
    before, labels = said.labels.array[0], np.where(mask, said.labels.array[0], 0)
    voxel = said.labels.grid.voxel_ml
    removed = dict(said.removed_ml)
    for name, values in found.values.items():
        lost = int(np.isin(before, values).sum()) - int(np.isin(labels, values).sum())
        if lost:
            removed[name] = removed.get(name, 0.0) + lost * voxel
    shares = said.probabilities and said.probabilities.like(said.probabilities.array * mask)
    kept = replace(said, labels=said.labels.like(labels[None]), probabilities=shares, removed_ml=removed)
    return replace(found, prediction=kept)


def is_cascade(folder: str | PathLike[str]) -> bool:
    """Whether a folder is that of a cascade."""
    return (Path(folder) / FILE).is_file()


def load(folder: str | PathLike[str], *, vote: Vote = "mean", **options: Any) -> Model | Ensemble | Cascade:
    """Load a model folder, all models of a folder of folds as one, or a cascade.

    Args:
        folder: of a model, of several, or of a cascade.
        vote: how several decide together.
        **options: see `Model.load`.

    Raises:
        BadFile: none of these.
    """
    if is_cascade(folder):
        return Cascade.load(folder, vote=vote, **options)
    return ensemble.load(folder, vote=vote, **options)


def load_at(folder: str | PathLike[str], speed: Speed, *, scans: int = 1, **options: Any) -> Model | Ensemble | Cascade:
    """`load`, for predicting some scans at a level of speed; see `Model.at_speed`."""
    return load(folder, **options).at_speed(speed, scans=scans)
