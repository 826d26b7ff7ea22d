"""One scan through one model, or several at once: slab by slab, so that no probability map is ever held whole."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from attentus.aside import Aside
from attentus.data.resolve import values_in
from attentus.errors import BadInput
from attentus.infer.clean import clean as clean_labels
from attentus.infer.forecast import SLABS_AT_ONCE, Forecast, forecast
from attentus.infer.sliding import Options, Walk
from attentus.progress import Progress, Silent
from attentus.recipes import Clean, Recipe
from attentus.transforms.prepare import Preparation, activate, decide, empty_probabilities
from attentus.types import Prediction, Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from attentus.infer.sliding import Maps, Run, Source, Window
    from attentus.transforms.prepare import Step

    Keep = Callable[[tuple[int, ...]], NDArray[np.float16]]

NO_VOTE = -1e30
"""Logit of an output without a vote; finite, because resampling multiplies it by zero."""
LEAST = 1e-7
"""Mean probabilities closer than this to 0 or 1 are taken for it where they become logits again."""

LAYERS_IN_MEMORY = 2**30
"""Bytes that the sums of a member's layers may take before they go to a temporary file."""

_MODALITIES = {
    "CT": ("ct", "cbct", "cect"),
    "MR": ("mr", "mri", "t1", "t1w", "t1c", "t1ce", "t1gd", "t2", "t2w", "flair", "adc", "dwi"),
    "PT": ("pt", "pet"),
    "US": ("us", "ultrasound"),
}
"""What data sets call their channels; a name that is not here says nothing."""

Vote = Literal["mean", "majority"]


@dataclass(frozen=True)
class Member:
    """A net that takes part, and how it is used."""

    recipe: Recipe
    window: Window
    run: Callable[[Preparation, Window], Run]
    """The net made ready for a scan."""
    layers: int = 0
    """Maps that it returns besides the logits."""
    beside: Callable[[Preparation], tuple[Source, Sequence[float]]] | None = None
    """Rows of something else on the prepared grid, which windows carry as further channels, and what lies outside."""


@dataclass(frozen=True)
class Wish:
    """What is wanted of a segmentation besides labels.

    Args:
        clean: post-process as the recipe says.
        probabilities: keep them.
        vote: how several members decide: by mean probability, or each has one vote per voxel.
        limit: bytes that the process may take; the sums of windows go to a temporary file where that is needed.
        keep: makes arrays, zeros (maps, z, y, x), in which other maps than logits are kept as they are, on the prepared
            grid; None brings them to the scan's grid like the logits.
    """

    clean: bool = True
    probabilities: bool = False
    vote: Vote = "mean"
    limit: int | None = None
    keep: Keep | None = None


@dataclass(eq=False)
class Out:
    """What a scan becomes, filled slab by slab."""

    labels: NDArray[np.unsignedinteger]
    probabilities: NDArray[np.float16] | None = None
    maps: dict[str, NDArray[np.float16]] = field(default_factory=dict)
    kept: dict[str, NDArray[np.float16]] = field(default_factory=dict)
    """Maps on the prepared grid."""


def segment(members: Sequence[Member], volume: Volume, wish: Wish, progress: Progress | None = None) -> Prediction:
    """Segment a scan.

    Args:
        members: nets of one recipe, as folds and seeds give them; labels and post-processing are the first one's.
        volume: (C, z, y, x) in its canonical orientation.
        wish: what is wanted.
        progress: shows the windows.

    Returns:
        Labels, and what else was asked for, on the canonical grid of the scan, but for maps that `keep` keeps. `model`
        and `level` are left empty.

    Raises:
        BadInput: other channels than the recipe names, NaN, or members that do not fit together.
    """
    started = time.perf_counter()
    recipe = members[0].recipe
    scans, plans, walks = begin(members, volume)
    way, regions = scans[0].way_back, recipe.regions
    table = _values(recipe)
    if wish.limit is not None:
        _fit(walks, expect(members, volume), wish.limit)
    out = Out(np.zeros(volume.grid.shape, table.dtype))
    if wish.probabilities:
        out.probabilities = empty_probabilities(len(recipe.outputs), volume.grid.shape, regions=regions)
    how = recipe.infer.clean if wish.clean else {}
    thresholds = [how.get(structure.name, Clean()).threshold for structure in recipe.labels]

    def bring(taken: list[Maps], steps: tuple[Step, ...]) -> None:
        slabs = [_slab(m, s, maps, step) for m, s, maps, step in zip(members, scans, taken, steps, strict=True)]
        logits = _together([slab.pop("logits") for slab in slabs], regions=regions, vote=wish.vote)
        rows = steps[0].rows
        out.labels[way.box][rows] = table[decide(logits, regions=regions, thresholds=thresholds)]
        if out.probabilities is not None:
            out.probabilities[(slice(None), *way.box)][:, rows] = activate(logits, regions=regions)
        for name, maps in slabs[0].items():
            out.maps[name][(slice(None), *way.box)][:, rows] = maps

    with (progress or Silent()).task("windows", sum(len(w.how.starts(w.shape)) for w in walks)) as task:
        for walk in walks:
            walk.task = task
        with Aside(SLABS_AT_ONCE) as aside:
            for steps in zip(*plans, strict=True):
                if not all(walk.ready(step.needs.stop) for walk, step in zip(walks, steps, strict=True)):
                    aside.wait()  # windows take all cores, and memory
                taken = [walk.rows(step.needs.start, step.needs.stop) for walk, step in zip(walks, steps, strict=True)]
                if wish.keep is not None:
                    _keep(out, taken[0], steps[0].needs, scans[0].grid.shape, wish.keep)
                for name in taken[0].keys() - {"logits"} - out.maps.keys():
                    out.maps[name] = np.zeros((len(taken[0][name]), *volume.grid.shape), np.float16)
                aside.do(bring, taken, steps)
    names = {structure.name: structure.value for structure in recipe.labels}
    values = values_in(recipe)
    changes = clean_labels(out.labels, volume.grid.spacing, how, names, values)
    return Prediction(
        labels=volume.like(out.labels[None]),
        names=names,
        probabilities=None if out.probabilities is None else volume.like(out.probabilities),
        attention={
            **{name: volume.like(maps) for name, maps in out.maps.items()},
            **{name: Volume(maps, scans[0].grid) for name, maps in out.kept.items()},
        },
        parts={name: held for name, held in values.items() if len(held) > 1},
        removed_ml=changes.removed_ml,
        added_ml=changes.added_ml,
        seconds=time.perf_counter() - started,
    )


def check_channels(volume: Volume, recipe: Recipe) -> None:
    """Refuse a scan with other channels than a recipe names, or, where DICOM says so, from another kind of scanner.

    Raises:
        BadInput: naming both.
    """
    name = f"{volume.source.path}: " if volume.source and volume.source.path else ""
    seen = volume.source.header.get("modality") if volume.source else None
    expected = {kind for channel in recipe.channels if (kind := modality(channel))}
    if seen in _MODALITIES and expected and seen not in expected:
        takes = " and ".join(sorted(expected))
        raise BadInput(f"{name}the image is {seen}; this model takes {takes} ({', '.join(recipe.channels)}).")
    if volume.channels != len(recipe.channels):
        raise BadInput(
            f"{name}the image has {volume.channels} channel(s); this model takes {len(recipe.channels)}"
            f" ({', '.join(recipe.channels)}), in this order."
        )


def modality(channel: str) -> str | None:
    """The DICOM modality that a channel's name speaks of: CT, MR, PT or US; None where it speaks of none."""
    words = re.findall(r"[a-z0-9]+", channel.lower())
    return next((kind for kind, names in _MODALITIES.items() if any(word in names for word in words)), None)


def mute(recipe: Recipe) -> list[int]:
    """Outputs that the loss left out of the softmax (its option `active`): they were not trained and have no vote."""
    active = recipe.loss.options.get("active")
    return [] if active is None else [k for k in range(len(recipe.outputs)) if k not in active]


def _scans(members: Sequence[Member], volume: Volume) -> list[Preparation]:
    """The scan as each member prepares it; members that prepare alike share."""
    known: dict[str, Preparation] = {}
    for member in members:
        key = member.recipe.prepare.model_dump_json()
        if key not in known:
            known[key] = Preparation.of(volume, member.recipe.prepare)
    scans = [known[member.recipe.prepare.model_dump_json()] for member in members]
    first = members[0].recipe
    for member, scan in zip(members, scans, strict=True):
        if member.recipe.labels != first.labels or scan.way_back.box != scans[0].way_back.box:
            raise BadInput(
                f"The models '{first.name}' and '{member.recipe.name}' segment other structures or crop otherwise:\n"
                "  an ensemble is made of models of one recipe, such as the folds of a cross-validation."
            )
    return scans


def begin(members: Sequence[Member], volume: Volume) -> tuple[list[Preparation], list[list[Step]], list[Walk]]:
    """Each member before its first window: the scan as it prepares it, the slabs it comes back in, its walk.

    Raises:
        BadInput: see `segment`.
    """
    check_channels(volume, members[0].recipe)
    scans = _scans(members, volume)
    maps = len(members[0].recipe.outputs) + max(member.layers for member in members)
    plans = [scan.way_back.plan(maps) for scan in scans]
    return scans, plans, [_walk(m, scan, plan) for m, scan, plan in zip(members, scans, plans, strict=True)]


def expect(members: Sequence[Member], volume: Volume) -> Forecast:
    """What segmenting a scan will take, measured on one batch of windows of each member."""
    scans, _, walks = begin(members, volume)
    recipe = members[0].recipe
    labels = volume.array[0].size * _values(recipe).itemsize
    return forecast(walks, scans, len(recipe.outputs), labels=labels)


def _fit(walks: list[Walk], expected: Forecast, limit: int) -> None:
    """Put the sums on disk if they do not fit.

    Raises:
        BadInput: not even then.
    """
    if expected.least > limit:
        raise BadInput(
            f"This takes at least {expected.least / 2**30:.1f} GiB; the limit is {limit / 2**30:.1f} GiB.\n"
            "  Allow more (--max-ram), or predict in smaller batches (infer.batch)."
        )
    for walk in walks:
        walk.on_disk |= expected.most > limit


def _values(recipe: Recipe) -> NDArray[np.unsignedinteger]:
    """Class number to the integer in label files."""
    values = np.array([0, *(structure.value for structure in recipe.labels)])
    return values.astype(np.uint8 if values.max() < 256 else np.uint16)


def _walk(member: Member, scan: Preparation, plan: list[Step]) -> Walk:
    how = member.recipe.infer
    skip = None if how.skip_below is None else tuple(float(s(np.array(how.skip_below))) for s in scan.scales)
    options = Options(tuple(2 + "zyx".index(axis) for axis in how.mirror), skip, not member.recipe.regions)
    ahead = max(step.needs.stop - step.needs.start for step in plan)
    source: Source = scan.rows
    outside: Sequence[float] = scan.outside
    if member.beside is not None:
        more, theirs = member.beside(scan)
        source, outside = _joined(scan.rows, more), (*outside, *theirs)
    walk = Walk(member.run(scan, member.window), source, scan.grid.shape, outside, member.window, options, ahead)
    plane = 4 * scan.grid.shape[1] * scan.grid.shape[2]
    walk.on_disk = member.layers * walk.capacity * plane > LAYERS_IN_MEMORY
    return walk


def _joined(one: Source, other: Source) -> Source:
    """The channels of two sources, one behind the other."""

    def both(first: int, last: int) -> NDArray[np.float32]:
        return np.concatenate([one(first, last), other(first, last)])

    return both


def _keep(out: Out, maps: Maps, rows: slice, shape: tuple[int, int, int], make: Keep) -> None:
    """Take all maps but the logits out of some rows and keep them."""
    for name in [name for name in maps if name != "logits"]:
        half = torch.from_numpy(maps.pop(name)).half().numpy()  # many times faster than numpy's own rounding
        if name not in out.kept:
            out.kept[name] = make((len(half), *shape))
        out.kept[name][:, rows] = half


def _slab(member: Member, scan: Preparation, maps: Maps, step: Step) -> Maps:
    """Maps of one member on the scan's own voxels."""
    maps["logits"][mute(member.recipe)] = NO_VOTE
    brought = {name: scan.way_back.bring(values, step) for name, values in maps.items()}
    if member.recipe.infer.temperature != 1:
        brought["logits"] = brought["logits"] / np.float32(member.recipe.infer.temperature)
    return brought


def _together(logits: list[NDArray[np.float32]], *, regions: bool, vote: Vote) -> NDArray[np.float32]:
    """Several opinions (K, z, y, x) as one, again as logits."""
    if len(logits) == 1:
        return logits[0]
    mean = np.zeros_like(logits[0])
    for one in logits:
        mean += _ballot(one, regions=regions) if vote == "majority" else activate(one, regions=regions)
    mean /= len(logits)
    np.clip(mean, LEAST, 1 - LEAST, out=mean)
    return np.log(mean / (1 - mean)) if regions else np.log(mean)


def _ballot(logits: NDArray[np.float32], *, regions: bool) -> NDArray[np.bool_]:
    """One vote per voxel for a class; for or against each region."""
    if regions:
        return logits > 0
    votes: NDArray[np.bool_] = decide(logits) == np.arange(len(logits), dtype=np.uint8)[:, None, None, None]
    return votes
