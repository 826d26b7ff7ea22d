"""The best, the median and the worst case of a run, drawn. What cannot be drawn says why."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from attentus import io
from attentus.data import Dataset
from attentus.errors import AttentusError, BadInput
from attentus.metrics.summary import case_means
from attentus.progress import track
from attentus.report.pictures import Picture, Scene, draw
from attentus.report.slices import has_geometry
from attentus.report.tables import REMARKS, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attentus.progress import Progress
    from attentus.recipes import Recipe
    from attentus.report.run import Run
    from attentus.types import Case, Scores, Volume


class StructureScore(NamedTuple):
    """How one structure of a drawn case did."""

    name: str
    dice: str
    remark: str


@dataclass(frozen=True)
class DrawnCase:
    """One case for the page."""

    role: str
    """Best, Median or Worst."""
    case: str
    mean: str
    structures: list[StructureScore]
    pictures: list[Picture] = field(default_factory=list)
    facts: str = ""
    """Channel, grey levels, voxel size."""
    problem: str = ""
    """Why there are no pictures."""


def choose(scores: Scores) -> dict[str, str]:
    """Case to role: best, median and worst by mean Dice; fewer roles for fewer than three cases."""
    return roles(case_means(scores, "dice"))


def roles(means: Mapping[str, float]) -> dict[str, str]:
    """Case to role by a number of which more is better; cases without a finite one get none."""
    ranked = [case for case, mean in sorted(means.items(), key=lambda item: -item[1]) if math.isfinite(mean)]
    if len(ranked) < 3:
        return dict(zip(ranked, ("Best", "Worst") if len(ranked) > 1 else ("Only case",), strict=False))
    return {ranked[0]: "Best", ranked[len(ranked) // 2]: "Median", ranked[-1]: "Worst"}


def draw_cases(run: Run, progress: Progress) -> list[DrawnCase]:
    """Draw the chosen cases of a run, one volume in memory at a time."""
    if run.scores is None:
        return []
    means = case_means(run.scores, "dice")
    drawn = []
    for case, role in track(progress, "drawing cases", list(choose(run.scores).items())):
        plain = DrawnCase(role, case, shown(means[case], "dice"), _structures(run.scores, case))
        try:
            scene, facts = scene_of(run, case)
            pictures, levels = draw(scene, f"{role} case {case}")
            drawn.append(replace(plain, pictures=pictures, facts=f"{facts}; {levels.words}"))
        except AttentusError as error:
            drawn.append(replace(plain, problem=f"No pictures: {run.discreet(str(error))}"))
    return drawn


def image_of(run: Run, case: str) -> tuple[Case, Dataset, Volume]:
    """A case of the dataset a run was trained on, that dataset, and the image.

    Raises:
        AttentusError: the dataset is gone, has no such case, or the image cannot be read.
    """
    root = run.data.get("root")
    if not root or not Path(root).exists():
        raise BadInput("the dataset is no longer where it was during training. Bring it back there to see its images.")
    dataset = replace(Dataset.open(root), declared_labels=run.data.get("labels"))
    found = dataset[case]
    return found, dataset, io.read_case(found)


def scene_of(run: Run, case: str) -> tuple[Scene, str]:
    """What is drawn of a held-back case, and what it shows: channel and voxel size.

    Raises:
        AttentusError: dataset, image, labels or prediction cannot be read, or no longer fit each other.
    """
    from attentus.train.evaluate import reference

    found, dataset, image = image_of(run, case)
    truth = reference(found, dataset, run.recipe)
    prediction = io.read_labels(run.folder / "validation" / f"{case}.nii.gz")
    image.grid.require_match(truth.grid, case, "image", "labels")
    image.grid.require_match(prediction.grid, case, "image", "prediction")
    geometry = has_geometry(image)
    scene = Scene(
        image.array[0],
        truth.array[0],
        prediction.array[0],
        image.grid,
        tuple(structure.value for structure in run.recipe.labels),
        geometry,
        window=window_of(run.recipe),
    )
    channel = run.recipe.channels[0] if run.recipe.channels else "first channel"
    z, y, x = image.grid.spacing
    size = f"voxels {z:.3g} × {y:.3g} × {x:.3g} mm (z, y, x)" if geometry else "voxel size unknown, taken as 1 mm"
    return scene, f"{channel}; {size}"


def window_of(recipe: Recipe) -> tuple[float, float] | None:
    """The window of a recipe's first channel; None where it has none."""
    first = next(iter(recipe.prepare.intensity), None)
    return None if first is None else first.window


def _structures(scores: Scores, case: str) -> list[StructureScore]:
    rows = {row.structure: row for row in scores.select(case=case, metric="dice")}
    return [
        StructureScore(name, shown(rows[name].value, "dice"), REMARKS.get(rows[name].note, ""))
        for name in scores.structures
        if name in rows
    ]
