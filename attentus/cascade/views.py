"""What the stages of a cascade get to see in training: every case cut to its box, as a dataset of its own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from attentus import io
from attentus.cascade.boxes import Region, bounds, widened
from attentus.cascade.model import STAGES, Found, confined, where
from attentus.data.dataset import Dataset
from attentus.data.resolve import values_in
from attentus.errors import AttentusError, BadInput
from attentus.io.atomic import write_text
from attentus.progress import Progress, track
from attentus.train.evaluate import reference
from attentus.types import Case, Prediction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from attentus.recipes import Box, CascadeRecipe
    from attentus.types import Grid, Volume

VIEWS, BOXES = "views", "boxes.json"


@dataclass(frozen=True)
class Cut:
    """Where a stage looks in one case, and how that came about."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    origin: str
    """"predicted", or why it is around the reference."""
    recall: Mapping[str, float] = field(default_factory=dict)
    """Share of each structure of the stage that lies inside; those the case does not have are left out."""

    @property
    def region(self) -> Region:
        """The voxels."""
        return Region(self.start, self.stop)


@dataclass(frozen=True)
class Training:
    """A cascade in the making."""

    plan: CascadeRecipe
    """Resolved."""
    dataset: Dataset
    folder: Path
    progress: Progress

    def place(self, stage: str) -> Path:
        """Folder of a stage."""
        return self.folder / STAGES / stage

    def held_back(self, stage: str) -> dict[str, Path]:
        """Case to what a model of a stage that has not seen it said about it, as a file."""
        return {
            file.name.removesuffix(".nii.gz"): file
            for run in sorted(self.place(stage).glob("fold*/scores.json"))
            for file in sorted((run.parent / "validation").glob("*.nii.gz"))
        }


def view(job: Training, stage: str) -> tuple[Dataset, dict[str, str]]:
    """What a stage sees: the dataset itself, or, if the stage has a box, one whose cases are cut to it.

    Cases keep their names and subjects, so that they lie on the same sides of every split. Boxes are written to
    boxes.json; a case that was cut to the same box before is not cut again.

    Returns:
        The dataset, and case to message for those that could not be cut.

    Raises:
        BadInput: there is no case left.
    """
    box = job.plan.stages[stage].box
    if box is None:
        return job.dataset, {}
    folder = job.folder / VIEWS / stage
    before = cuts_of(job.folder, stage)
    cases, cuts, failures = [], {}, {}
    said = {name: job.held_back(name) for name in job.plan.stages} if job.plan.learn_from == "predicted" else {}
    for case in track(job.progress, f"cutting boxes for stage '{stage}'", list(job.dataset.labelled)):
        try:
            cut = _look(job, stage, box, case, said)
            cases.append(_cut(case, cut, folder, done=before.get(case.id) == cut))
            cuts[case.id] = cut
        except AttentusError as error:
            failures[case.id] = str(error)
    if not cases:
        raise BadInput(f"No case could be cut for stage '{stage}':\n  " + "\n  ".join(failures.values()))
    facts = {case: asdict(cut) for case, cut in cuts.items()}
    write_text(folder / BOXES, json.dumps({"cases": facts, "left out": failures}, indent=1))
    own = Dataset(
        *(f"{job.dataset.name}, {stage}", folder, "cascade", tuple(cases), job.dataset.channels, job.dataset.labels)
    )
    return own, failures


def cuts_of(folder: Path, stage: str) -> dict[str, Cut]:
    """The boxes of a stage's training cases; empty for a stage that looks at whole scans.

    Args:
        folder: of the cascade.
        stage: its name.
    """
    file = folder / VIEWS / stage / BOXES
    if not file.is_file():
        return {}
    stored: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["cases"]
    return {
        case: Cut(tuple(facts["start"]), tuple(facts["stop"]), facts["origin"], facts["recall"])
        for case, facts in stored.items()
    }


def _look(job: Training, stage: str, box: Box, case: Case, said: Mapping[str, Mapping[str, Path]]) -> Cut:
    """Where a stage looks in a training case."""
    grid = io.read_grid(case.images[0]).canonical()[1]
    before = box.around.partition(".")[0]
    region, origin = None, "reference, as the cascade says"
    if job.plan.learn_from == "predicted":
        region, origin = None, "reference, because no fold that was trained held the case back"
        if case.id in said[before]:
            region, _ = where(box, _found(job.plan, case, said, grid), grid)
            origin = "predicted" if region else "reference, because nothing was found"
    if region is None:
        region = _around_reference(job, case, box, grid)
    recipe = job.plan.stages[stage].recipe
    recall = _recall(reference(case, job.dataset, recipe), values_in(recipe), region)
    return Cut(region.start, region.stop, origin, recall)


def _found(
    plan: CascadeRecipe, case: Case, said: Mapping[str, Mapping[str, Path]], grid: Grid
) -> dict[str, Found | None]:
    """What the stages so far said about a case that they had not seen."""
    found: dict[str, Found | None] = {}
    for name, stage in plan.stages.items():
        if case.id not in said[name]:
            continue
        labels = io.read_labels(said[name][case.id])
        start = grid.offset_of(labels.grid)
        if start is None:
            raise BadInput(f"{said[name][case.id]}: does not lie on voxels of {case.images[0]}; train again.")
        region = Region((0, 0, 0), labels.grid.shape).moved(start)
        one = Found(region, Prediction(labels, {}), values_in(stage.recipe))
        found[name] = confined(one, stage.inside, found)
    return found


def _around_reference(job: Training, case: Case, box: Box, grid: Grid) -> Region:
    """The box around the reference; the whole scan where there is none."""
    stage, _, structure = box.around.partition(".")
    recipe = job.plan.stages[stage].recipe
    labels = reference(case, job.dataset, recipe)
    grid.require_match(labels.grid, case.id)
    one = Found(Region.whole(grid), Prediction(labels, {}), values_in(recipe))
    inner = bounds(one.mask(structure))
    return Region.whole(grid) if inner is None else widened(inner, grid, box)


def _recall(truth: Volume, values: Mapping[str, Sequence[int]], region: Region) -> dict[str, float]:
    shares = {}
    for name in values:
        whole = Found(Region.whole(truth.grid), Prediction(truth, {}), {name: tuple(values[name])}).mask(name)
        if count := int(whole.sum()):
            shares[name] = int(whole[region.slices].sum()) / count
    return shares


def _cut(case: Case, cut: Cut, folder: Path, *, done: bool) -> Case:
    """Write the voxels of a box, image and labels."""
    image, label = (folder / kind / f"{case.id}.nii.gz" for kind in ("images", "labels"))
    if not (done and image.is_file() and label.is_file()):
        scan, truth = io.read_case(case, as_stored=True), io.read_labels(case.label)  # type: ignore[arg-type]
        scan.grid.require_match(truth.grid, case.id)
        io.write(cut.region.of(scan), image, overwrite=True)
        io.write(cut.region.of(truth), label, overwrite=True)
    return Case(case.id, (image,), label, case.subject)
