"""Where nets look: patches of the training (RA-UNet, Fig. 6) and boxes of a cascade's stages (Fig. 7)."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from attentus.data.cache import prepare_cases
from attentus.data.resolve import members
from attentus.errors import BadInput
from attentus.recipes import load_cascade
from attentus.report.cases import scene_of
from attentus.report.pictures import Frame, Picture, Scene, colour, draw
from attentus.report.slices import fullest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attentus.data import Dataset
    from attentus.data.cache import CachedCase
    from attentus.data.patches import PatchSampler
    from attentus.recipes import Recipe
    from attentus.report.run import Run

SHOWN = 16
"""Patches drawn."""
BATCHES = 500
"""Batches searched for patches of the case that cross a picture, at most."""
HOLDS, EMPTY = "s3", "s4 again"
"""Patches that hold a structure, and that hold none."""
FIRST = 3
"""Colour of the first stage's box; the ones before are often those of structures."""


def patches(recipe: Recipe, dataset: Dataset, case: str, shown: int = SHOWN) -> tuple[list[Picture], str]:
    """Patches the training may cut from a case, on the scan as the net sees it.

    They are drawn by the sampler of the training with the recipe's seed, as if this were the only case; those that
    augmentation would need around them are left out.

    Args:
        recipe: resolved.
        dataset: has the case, labelled.
        case: its id.
        shown: patches drawn at most.

    Returns:
        Pictures, and in words what is drawn; no pictures where every patch is the whole scan.

    Raises:
        BadInput: the case cannot be prepared.
    """
    from attentus.train.fitting import sampler_of

    with TemporaryDirectory() as folder:  # cases are read through memory maps, so all is done while it is there
        ready, failures = prepare_cases(dataset.subset([case]), recipe, Path(folder))
        if failures:
            raise BadInput(failures[case])
        scene = _prepared(ready[0], recipe)
        sampler = sampler_of(recipe, ready)
        own = sampler.patch or sampler.size
        if all(size >= full for size, full in zip(own, scene.grid.shape, strict=True)):
            return [], f"a patch of {_size(own)} voxels holds the whole scan"
        frames = tuple(islice(_frames(sampler, scene), shown))
    pictures, _ = draw(replace(scene, frames=frames), f"Patches of {case}")
    return pictures, f"{len(frames)} patches of {_size(own[-recipe.net.dims :])} voxels"


def stage_boxes(run: Run, case: str) -> tuple[list[Picture], str]:
    """A case of a cascade's training with the boxes its later stages were given.

    Returns:
        Pictures, and in words where the boxes come from.

    Raises:
        BadInput: the run is no cascade, or has no box for the case.
    """
    from attentus.cascade.views import cuts_of

    if not run.is_cascade:
        raise BadInput(f"{run.folder}: is no cascade, so no stage looks in a box.")
    stages = [name for name, stage in load_cascade(run.file).stages.items() if stage.box]
    cuts = {name: found[case] for name in stages if case in (found := cuts_of(run.folder, name))}
    if not cuts:
        raise BadInput(f"{run.folder}: knows no box of '{case}'; name a case the cascade was trained or tested on.")
    order = {name: FIRST + k for k, name in enumerate(cuts)}
    frames = tuple(
        Frame(cut.start, cut.stop, colour(order[name]), f"stage {name}: {cut.origin}", name)
        for name, cut in cuts.items()
    )
    scene, _ = scene_of(run, case)
    pictures, _ = draw(replace(scene, frames=frames), f"Boxes of {case}")
    return pictures, "; ".join(f"{name}: {_size(cut.region.shape)} voxels, {cut.origin}" for name, cut in cuts.items())


def _prepared(case: CachedCase, recipe: Recipe) -> Scene:
    """A case as the net sees it, with its labels as class numbers."""
    image, labels = np.array(case.image[0]), np.array(case.labels)
    numbers = tuple(dict.fromkeys(number for group in members(recipe).values() for number in group))
    truth = np.where(np.isin(labels, numbers), labels, 0).astype(np.uint8)
    return Scene(image, truth, truth, case.grid, numbers)


def _frames(sampler: PatchSampler, scene: Scene) -> Iterator[Frame]:
    """One patch after another; in 2D those of the slice that is shown."""
    middle = fullest(scene.reference, scene.values)[0]
    own = sampler.patch or sampler.size
    for place in (place for number in range(BATCHES) for place in sampler.places(number)):
        around = ((n - size) // 2 for n, size in zip(own, sampler.size, strict=True))
        z, y, x = (a - off for a, off in zip(place.start, around, strict=True))
        if sampler.dims == 2 and z != middle:
            continue
        stop = (z + own[0], y + own[1], x + own[2])
        inside = tuple(slice(max(a, 0), b) for a, b in zip((z, y, x), stop, strict=True))
        holds = bool(scene.reference[inside].any())
        title = f"patch from {z}, {y}, {x}, {'with' if holds else 'without'} a structure"
        yield Frame((z, y, x), stop, HOLDS if holds else EMPTY, title)


def _size(size: tuple[int, ...]) -> str:
    return " × ".join(map(str, size))
