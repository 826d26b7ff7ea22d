"""Probabilities of a structure over the scan, as heat maps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from attentus.errors import BadInput, UnknownName
from attentus.report.cases import image_of, scene_of
from attentus.report.charts import Chart
from attentus.report.pictures import HEAT, OPAQUE, Picture, draw
from attentus.report.plot import number

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from attentus.cascade import Cascade
    from attentus.infer.model import Model
    from attentus.progress import Progress
    from attentus.report.pictures import Scene
    from attentus.report.run import Run

STEPS = 48
"""Fields of the colour bar."""


def probability(
    run: Run, case: str, structures: Sequence[str], progress: Progress
) -> tuple[dict[str, list[Picture]], str]:
    """Predict a held-back case again and draw the probability of structures, with the outline of the reference.

    Args:
        run: finished; of a cascade only the fold that has not seen the case is asked.
        case: its id.
        structures: some of the recipe's.
        progress: shows the windows.

    Returns:
        Pictures of each structure, and in words what they show of the scan.

    Raises:
        UnknownName: no such structure.
        BadInput: weights, case or dataset cannot be read.
    """
    for name in structures:
        if name not in run.structures:
            raise UnknownName("structure", name, run.structures)
    scene, facts = scene_of(run, case)
    found, _, _ = image_of(run, case)
    model = _model(run, case)
    said = model.predict(found, probabilities=True, progress=progress).probabilities
    if said is None:  # it was asked for
        raise BadInput(f"{run.folder}: gave no probabilities of '{case}'.")
    outputs = tuple(model.names) if run.is_cascade else model.recipe.outputs
    maps = {name: np.asarray(said.canonical().array[outputs.index(name)], np.float32) for name in structures}
    return {name: over(scene, values, (0.0, 1.0), f"Probability of {name}") for name, values in maps.items()}, facts


def over(scene: Scene, values: NDArray[np.floating], span: tuple[float, float], what: str) -> list[Picture]:
    """Values (z, y, x) over a scan in three planes, reference as an outline.

    Args:
        scene: the case.
        values: on its grid.
        span: what gets no colour, and the brightest.
        what: words that begin the alternative text.

    Raises:
        BadInput: values of another shape than the scan.
    """
    if values.shape != scene.grid.shape:
        raise BadInput(f"The map has {values.shape} voxels (z, y, x), the scan {scene.grid.shape}.")
    return draw(replace(scene, heat=values, heat_range=span, fills=False), what)[0]


def bar(low: float, high: float, words: str) -> Chart:
    """The colours of a heat map, from what is not drawn to the brightest."""
    from matplotlib import colormaps

    width, left = 240.0, 16.0
    rect = Markup('<rect x="{:.1f}" y="4" width="{:.1f}" height="12" fill="rgb({},{},{})"/>')
    drawn = []
    for k in range(STEPS):
        share = k / (STEPS - 1)
        rgb = (round(OPAQUE * share * part) for part in colormaps[HEAT](share, bytes=True)[:3])  # over black
        drawn.append(rect.format(left + width * k / STEPS, width / STEPS + 0.3, *rgb))
    text = Markup('<text x="{:.0f}" y="32" text-anchor="{}">{}</text>')
    ends = ((left, "start", number(low)), (left + width / 2, "middle", words), (left + width, "end", number(high)))
    drawn += [text.format(*one) for one in ends]
    head = Markup('<svg class="chart" viewBox="0 0 {:g} 38" role="img" aria-label="{}: {} to {}">')
    svg = head.format(width + 2 * left, words, number(low), number(high)) + Markup("").join(drawn) + Markup("</svg>")
    return Chart("", svg)


def _model(run: Run, case: str) -> Model | Cascade:
    """What held the case back: the run itself, or one fold of a cascade."""
    from attentus.cascade.model import Cascade
    from attentus.infer.model import Model

    if not run.is_cascade:
        return Model.load(run.folder)
    fold = fold_of(run.data.get("folds", {}), case)
    if fold is None:
        raise BadInput(f"{run.folder}: no fold held '{case}' back.")
    return Cascade.load(run.folder, fold=fold)


def fold_of(folds: dict[str, list[str]], case: str) -> int | None:
    """The number of the fold that held a case back."""
    return next((int(name.removeprefix("fold")) for name, cases in folds.items() if case in cases), None)


def probability_file(file: Path, channel: int) -> NDArray[np.float32]:
    """One channel of a volume such as `attentus predict --probabilities` writes: (z, y, x).

    Raises:
        BadInput: it cannot be read or has no such channel.
    """
    from attentus import io

    volume = io.read(file)
    if not 0 <= channel < volume.channels:
        raise BadInput(f"{file}: has {volume.channels} channel(s), counted from 0; there is no {channel}.")
    return np.asarray(volume.array[channel], np.float32)
