"""What a report shows of one held-back case beside its outlines: surfaces, probabilities, and what the net sees."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from attentus.data.resolve import values_in
from attentus.errors import AttentusError
from attentus.recipes import load_cascade
from attentus.report import heat, histograms, levels, looking, surfaces
from attentus.report.cases import choose, image_of, scene_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from attentus.progress import Progress
    from attentus.recipes import Prepare
    from attentus.report.charts import Chart
    from attentus.report.pictures import Picture
    from attentus.report.run import Run

QUICK = 30.0
"""Seconds that predicting the case again may take without being asked for."""


@dataclass(frozen=True)
class Group:
    """Charts or pictures under one heading."""

    title: str
    words: str
    """What is shown."""
    charts: list[Chart] = field(default_factory=list)
    rows: list[list[Picture]] = field(default_factory=list)
    """Pictures that stand side by side."""
    note: str = ""
    problem: str = ""
    """Why there is nothing."""


def middle_case(run: Run) -> str | None:
    """The median case of a run, or the best where there are fewer than three."""
    chosen = {} if run.scores is None else choose(run.scores)
    return next((case for case, role in chosen.items() if role == "Median"), next(iter(chosen), None))


def of_the_case(run: Run, case: str, *, probabilities: bool | None, progress: Progress) -> list[Group]:
    """Surfaces in three dimensions, and heat maps of what the model thought.

    Args:
        run: finished.
        case: a held-back one.
        probabilities: whether to predict the case again; None does where the run took at most `QUICK` seconds for it.
        progress: shows the windows.
    """
    groups = [_tried(run, "Surfaces", SURFACES, lambda: _surfaces(run, case))]
    took = _seconds(run).get(case)
    if probabilities or (probabilities is None and took is not None and took <= QUICK):
        groups.append(_tried(run, "Probabilities", HEAT, lambda: _heat(run, case, progress)))
    return [group for group in groups if group is not None]


def what_the_net_sees(run: Run, case: str) -> list[Group]:
    """Values before and after the window, patches, and the boxes of a cascade."""
    groups = [_tried(run, "Values", VALUES, lambda: _histograms(run, case))]
    if run.is_cascade:
        groups.append(_tried(run, "Boxes", BOXES, lambda: _boxes(run, case)))
    else:
        groups.append(_tried(run, "Patches", PATCHES, lambda: _patches(run, case)))
    return [group for group in groups if group is not None]


def pruning(run: Run) -> list[Chart]:
    """The levels of the net, if they were measured."""
    file = run.folder / levels.FILE
    return [levels.bubbles(*levels.read(file))] if file.is_file() else []


SURFACES = (
    "The surface of the prediction, coloured by how far it lies outside (red) or inside (blue) of the reference. Drag,"
    " or press arrow keys, to turn it; letters say where the patient's sides are. Drawn smoother than it was measured."
)
HEAT = "Brighter is more probable. The outline is the reference."
VALUES = "How often values occur in the part of the scan that is used, before and after the recipe's window."
PATCHES = (
    "Where the training may look: patches its sampler would cut from this case, on the scan as the net sees it. Dashed"
    " ones hold no structure."
)
BOXES = "Where the later stages of the cascade looked in this case."


def _tried(run: Run, title: str, words: str, draw: Callable[[], Group | None]) -> Group | None:
    """A group, or why there is none."""
    try:
        return draw()
    except AttentusError as error:
        return Group(title, words, problem=f"Not drawn: {run.discreet(str(error))}")


def _surfaces(run: Run, case: str) -> Group | None:
    scene, _ = scene_of(run, case)
    if min(scene.grid.shape) < 2:
        return None
    found = {}
    for name, values in values_in(run.recipe).items():
        mask, truth = (np.isin(labels, values) for labels in (scene.prediction, scene.reference))
        if mask.any() and truth.any():
            found[name] = surfaces.surface(mask, truth, scene.grid)
    end = surfaces.limit([one.distance for one in found.values()])
    charts = [surfaces.panel(one, end, name, f"{name}, prediction against reference") for name, one in found.items()]
    return Group("Surfaces", SURFACES, charts) if charts else None


def _heat(run: Run, case: str, progress: Progress) -> Group:
    drawn, facts = heat.probability(run, case, run.structures, progress)
    named = [[picture._replace(plane=f"{name}, {picture.plane}") for picture in row] for name, row in drawn.items()]
    return Group("Probabilities", HEAT, [heat.bar(0.0, 1.0, "probability")], named, f"{facts}.")


def _histograms(run: Run, case: str) -> Group:
    _, _, image = image_of(run, case)
    return Group("Values", VALUES, histograms.windowing(image, prepare_of(run), run.recipe.channels))


def _patches(run: Run, case: str) -> Group | None:
    _, dataset, _ = image_of(run, case)
    pictures, words = looking.patches(run.recipe, dataset, case)
    return Group("Patches", PATCHES, rows=[pictures], note=f"{words}.") if pictures else None


def _boxes(run: Run, case: str) -> Group:
    pictures, words = looking.stage_boxes(run, case)
    return Group("Boxes", BOXES, rows=[pictures], note=f"{words}.")


def prepare_of(run: Run) -> Prepare:
    """How a run prepares a scan; of a cascade, how its first stage does."""
    if not run.is_cascade:
        return run.recipe.prepare
    return next(iter(load_cascade(run.file).stages.values())).recipe.prepare


def _seconds(run: Run) -> Mapping[str, float]:
    """Case to the time it took when the run was evaluated."""
    try:
        timing = json.loads((run.folder / "scores.json").read_text(encoding="utf-8")).get("timing", {})
        return {case: float(took) for case, took in timing.get("seconds", {}).items()}
    except (OSError, ValueError, AttributeError):
        return {}
