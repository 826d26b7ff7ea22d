"""Looks at held-back cases during a training, to see how its attention comes about.

At chosen moments the weights that a validation would judge look at the chosen cases, by the same windows. Kept are the
scores of every module's map, and of the map one axial slice, where the structures of the reference are largest, in the
module's own resolution: a few kilobytes. After Attention U-Net, Fig. 4, and ANU-Net, Fig. 12.

The training does not notice: nothing is drawn at random, no statistics are updated, and the clock stands still.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F

from attentus import io, nets
from attentus.data.resolve import members
from attentus.errors import BadFile, RecipeError, UnknownName
from attentus.infer.attention import LAYERS, Capture, evaluating, on_disk, scored
from attentus.infer.clean import among
from attentus.infer.model import window_of
from attentus.infer.segment import LAYERS_IN_MEMORY
from attentus.infer.sliding import Walk
from attentus.io.atomic import replacing, write_text
from attentus.io.plain import json_text
from attentus.metrics.attention import NEAR_MM, Target
from attentus.train.speed import eager
from attentus.types import Grid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from attentus.data.cache import CachedCase
    from attentus.data.dataset import Dataset
    from attentus.infer.sliding import Maps
    from attentus.recipes import Recipe

FOLDER = "snapshots"
FORMAT, VERSION = "attentus-snapshot", 1
LARGEST = 256
"""A slice of a map is kept with at most so many pixels a side, of the scan with twice as many."""
ROWS = 16
"""Rows of maps that are taken at a time."""
HIGHEST = 255
"""Slices are kept in so many steps from their lowest value to their highest."""
SHOWN = (0.1, 99.9)
"""Percentiles of a scan's slice beyond which values are clipped, so that a single bright voxel costs no steps."""


@dataclass(frozen=True)
class Moment:
    """A time at which the cases are looked at."""

    name: str
    """"5 %" or "epoch 3"."""
    share: float | None = None
    epoch: float | None = None

    def reached(self, done: float, epochs: float) -> bool:
        """Whether it lies behind, or is now."""
        return done >= self.share if self.share is not None else epochs >= (self.epoch or 0)


@dataclass(frozen=True, eq=False)
class Picture:
    """The slice of a case on which maps are shown."""

    case: str
    image: NDArray[np.float32]
    """(y, x), first channel as the net sees it."""
    labels: NDArray[np.uint8]
    """(y, x), structures of the recipe counted from 1, inner ones painted over outer ones."""
    grid: Grid
    """Of this slice, (1, y, x)."""
    place: int
    """Which slice of the prepared case it is, from 0."""
    slices: int
    geometry: bool
    """Whether millimetres and orientation are known; formats such as PNG do not say."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What was seen at one moment."""

    step: int
    epoch: float
    share: float
    """Of the training, 0..1."""
    moments: tuple[str, ...]
    """Moments that fell on this step."""
    scores: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """Case to module to numbers, see `infer.attention.scored`; None where one is not defined."""
    maps: Mapping[str, Mapping[str, NDArray[np.float32]]]
    """Case to module to slice (y, x), all of the case's extent in the module's own resolution."""


class Looks:
    """Takes snapshots of a run.

    Args:
        folder: of the run.
        recipe: resolved, with cases in `train.snapshots`.
        cases: which are looked at.
        geometry: case to whether millimetres and orientation are known.
        after_step: where the training stands; what was seen later is forgotten, it will be seen again.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        cases: Sequence[CachedCase],
        geometry: Mapping[str, bool],
        after_step: int = 0,
    ) -> None:
        self.folder, self.recipe, self.cases = folder / FOLDER, recipe, cases
        self.places = {case.id: _fullest(case.labels, recipe) for case in cases}
        taken = _forget(self.folder, after_step)
        self.open = [moment for moment in moments_of(recipe) if moment.name not in taken]
        if not (self.folder / "cases.json").is_file():
            self._write_pictures(geometry)

    def due(self, done: float, epochs: float) -> list[str]:
        """Names of the moments that are reached and were not seen yet.

        Args:
            done: share of the training that lies behind.
            epochs: that lie behind.
        """
        return [moment.name for moment in self.open if moment.reached(done, epochs)]

    def take(self, net: nn.Module, moments: Sequence[str], *, step: int, done: float, epochs: float) -> None:
        """Look at the cases and write down what is seen; a crash leaves either all of it or nothing."""
        seen: dict[str, Any] = {}
        slices: dict[str, NDArray[Any]] = {}
        for number, case in enumerate(self.cases):
            seen[case.id], found = self._look(net, case)
            for name, one in found.items():
                slices[f"{number}/{name}"], seen[case.id][name]["slice"] = _in_steps(one)
        facts = {"format": FORMAT, "version": VERSION, "step": step, "epoch": epochs, "share": done}
        with replacing(self.folder / f"{_name(step)}.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **slices)  # type: ignore[arg-type]
        write_text(self.folder / f"{_name(step)}.json", json_text({**facts, "moments": list(moments), "cases": seen}))
        self.open = [moment for moment in self.open if moment.name not in moments]

    def _look(self, net: nn.Module, case: CachedCase) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
        """Scores of every module, and the chosen slice of those that make maps."""
        image, labels, place = case.image, case.labels, self.places[case.id]
        z, y, x = labels.shape
        capture = Capture(net, self.recipe.net.dims, next(net.parameters()).device)
        capture.keep_only(self.recipe.train.snapshots.modules or tuple(capture.kinds))
        how = window_of(self.recipe)
        walk = Walk(capture, lambda first, last: image[:, first:last], (z, y, x), case.outside, how, ahead=ROWS)
        walk.on_disk = 4 * len(capture.layers) * walk.capacity * y * x > LAYERS_IN_MEMORY
        whole = on_disk((len(capture.layers), z, y, x))
        with evaluating(net), eager(net), capture:
            for first in range(0, z, ROWS):
                rows: Maps = walk.rows(first, min(first + ROWS, z))
                if LAYERS in rows:
                    whole[:, first : first + ROWS] = rows[LAYERS]
        masks = {name: among(labels, numbers) for name, numbers in members(self.recipe).items()}
        targets = {name: Target(mask, case.grid.spacing, NEAR_MM) for name, mask in masks.items() if mask.any()}
        names = [name for name, _ in capture.layers]
        scores = scored(capture, zip(names, whole, strict=True), targets)
        kept = {}
        for layer, one in zip(capture.layers, whole, strict=True):
            size = _kept((y, x), capture.sizes[layer][-2:], how.size[1:])
            kept[layer[0]] = _averaged(np.array(one[place], np.float32), size)
        return scores, kept

    def _write_pictures(self, geometry: Mapping[str, bool]) -> None:
        facts: list[dict[str, Any]] = []
        arrays: dict[str, NDArray[Any]] = {}
        for number, case in enumerate(self.cases):
            place, labels = self.places[case.id], case.labels
            size = (min(labels.shape[1], 2 * LARGEST), min(labels.shape[2], 2 * LARGEST))
            flat = _averaged(np.array(case.image[0, place], np.float32), size)
            shown, limits = _in_steps(flat.clip(*np.percentile(flat, SHOWN)))
            arrays |= {f"{number}/image": shown, f"{number}/labels": _painted(labels[place], size, self.recipe)}
            facts.append(
                {
                    "case": case.id,
                    "slice": place,
                    "slices": len(labels),
                    "values": limits,
                    "grid": asdict(_of_slice(case.grid, place, size)),
                    "geometry": geometry[case.id],
                }
            )
        with replacing(self.folder / "cases.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        write_text(self.folder / "cases.json", json_text({"format": FORMAT, "version": VERSION, "cases": facts}))


def moments_of(recipe: Recipe) -> list[Moment]:
    """When a recipe wants its cases to be looked at."""
    how = recipe.train.snapshots
    shares = [Moment(f"{100 * share:g} %", share=share) for share in dict.fromkeys(how.shares)]
    return [*shares, *(Moment(f"epoch {epoch:g}", epoch=epoch) for epoch in dict.fromkeys(how.epochs))]


def check_snapshots(recipe: Recipe, net: nn.Module) -> None:
    """Refuse what cannot be looked at, before a training begins.

    Raises:
        RecipeError: a net without attention.
        UnknownName: no such attention module.
    """
    how = recipe.train.snapshots
    if not how.cases:
        return
    known = nets.taps(net)
    if not known:
        raise RecipeError(
            f"train.snapshots: the net '{recipe.net.name}' has no attention to look at; set train.snapshots.cases to 0."
        )
    for name in how.modules:
        if name not in known:
            raise UnknownName("attention module", name, known)


def check_cases(recipe: Recipe, held_back: Iterable[str]) -> None:
    """Refuse a case that is not held back.

    Raises:
        UnknownName: naming it.
    """
    wanted, known = recipe.train.snapshots.cases, set(held_back)
    for name in () if isinstance(wanted, int) else wanted:
        if name not in known:
            raise UnknownName("case that is held back", name, known)


def choose(recipe: Recipe, held_back: Sequence[CachedCase], test: Sequence[CachedCase] = ()) -> list[CachedCase]:
    """The cases that a recipe wants to be looked at, without those that could not be prepared.

    Args:
        recipe: with names or a number in `train.snapshots.cases`.
        held_back: cases that validate; a number takes so many of these, evenly spread.
        test: cases that may be named, too.
    """
    wanted = recipe.train.snapshots.cases
    if isinstance(wanted, int):
        return spread(held_back, wanted)
    known = {case.id: case for case in [*held_back, *test]}
    return [known[name] for name in dict.fromkeys(wanted) if name in known]


def spread(cases: Sequence[CachedCase], most: int) -> list[CachedCase]:
    """At most that many cases, evenly spread over the list."""
    count = min(most, len(cases))
    return [cases[k * len(cases) // count] for k in range(count)]


def geometry_of(dataset: Dataset, cases: Iterable[CachedCase]) -> dict[str, bool]:
    """Case to whether its files know millimetres and orientation."""
    return {case.id: io.has_geometry(dataset[case.id].images[0]) for case in cases}


def read_snapshots(folder: Path) -> tuple[list[Picture], list[Snapshot]]:
    """What was seen in a run, in the order of the training; nothing where no snapshots were taken.

    Args:
        folder: of the run.

    Raises:
        BadFile: a file that is damaged or from another version.
    """
    place = folder / FOLDER
    if not (place / "cases.json").is_file():
        return [], []
    files = sorted(place.glob("step-*.json"))
    pictures = _pictures(place)
    return pictures, [_snapshot(file, [picture.case for picture in pictures]) for file in files]


def _pictures(place: Path) -> list[Picture]:
    facts, arrays = _read(place / "cases.json")
    return [
        Picture(
            one["case"],
            _from_steps(arrays[f"{number}/image"], one["values"]),
            arrays[f"{number}/labels"],
            _grid(one["grid"]),
            one["slice"],
            one["slices"],
            one["geometry"],
        )
        for number, one in enumerate(facts["cases"])
    ]


def _snapshot(file: Path, cases: Sequence[str]) -> Snapshot:
    facts, arrays = _read(file)
    maps: dict[str, dict[str, NDArray[np.float32]]] = {case: {} for case in cases}
    for key, stored in arrays.items():
        number, _, name = key.partition("/")
        case = cases[int(number)]
        maps[case][name] = _from_steps(stored, facts["cases"][case][name]["slice"])
    return Snapshot(facts["step"], facts["epoch"], facts["share"], tuple(facts["moments"]), facts["cases"], maps)


def _read(file: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """A JSON file and the arrays beside it."""
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        known = (facts["format"], facts["version"]) == (FORMAT, VERSION)
        with np.load(file.with_suffix(".npz"), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        cure = f"Delete the folder {FOLDER} of the run; nothing else needs it."
        raise BadFile(file, f"cannot be read ({error})", cure) from None
    if not known:
        raise BadFile(file, "is from another version of Attentus", "Look at it with that version.")
    return facts, arrays


def _grid(stored: Mapping[str, Any]) -> Grid:
    direction = tuple(tuple(axis) for axis in stored["direction"])
    return Grid(tuple(stored["shape"]), tuple(stored["spacing"]), tuple(stored["origin"]), direction)  # type: ignore[arg-type]


def _forget(folder: Path, after_step: int) -> set[str]:
    """Remove what was seen after a step, or only half written; names of the moments that remain."""
    taken: set[str] = set()
    for file in sorted(folder.glob("step-*.npz")):
        written = file.with_suffix(".json")
        if written.is_file() and int(file.stem.rpartition("-")[2]) <= after_step:
            taken |= {*_read(written)[0]["moments"]}
        else:
            written.unlink(missing_ok=True)
            file.unlink()
    return taken


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _fullest(labels: NDArray[np.uint8], recipe: Recipe) -> int:
    """The axial slice in which the structures are largest, each counting the same; the middle where there is none."""
    shares = np.zeros(len(labels))
    for numbers in members(recipe).values():
        areas = among(labels, numbers).sum(axis=(1, 2))
        shares += areas / max(areas.max(), 1)
    return int(shares.argmax()) if shares.any() else len(labels) // 2


def _kept(extent: Sequence[int], own: Sequence[int], window: Sequence[int]) -> tuple[int, int]:
    """Pixels (y, x) of a slice in the resolution that a module has in a window, at most `LARGEST`."""
    y, x = (max(1, round(full * size / of)) for full, size, of in zip(extent, own, window, strict=True))
    return min(y, extent[0], LARGEST), min(x, extent[1], LARGEST)


def _averaged(one: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """A picture (y, x) in fewer pixels of the same extent."""
    small: NDArray[np.float32] = F.adaptive_avg_pool2d(torch.from_numpy(one)[None], size)[0].numpy()
    return small


def _in_steps(one: NDArray[np.float32]) -> tuple[NDArray[np.uint8], list[float]]:
    """Values as whole numbers 0 to `HIGHEST`, and what the first and the last of them stand for."""
    lowest, highest = float(one.min()), float(one.max())
    scale = HIGHEST / (highest - lowest) if highest > lowest else 0.0
    return np.rint((one - lowest) * scale).astype(np.uint8), [lowest, highest]


def _from_steps(stored: NDArray[np.uint8], limits: Sequence[float]) -> NDArray[np.float32]:
    lowest, highest = limits
    values: NDArray[np.float32] = lowest + stored.astype(np.float32) * np.float32((highest - lowest) / HIGHEST)
    return values


def _painted(labels: NDArray[np.uint8], size: tuple[int, int], recipe: Recipe) -> NDArray[np.uint8]:
    """Structures of a slice counted from 1, inner ones painted over outer ones, in fewer pixels of the same extent."""
    middles = [((np.arange(n) + 0.5) * full / n).astype(int) for n, full in zip(size, labels.shape, strict=True)]
    few = labels[np.ix_(*middles)]
    painted = np.zeros(size, np.uint8)
    for value, numbers in enumerate(members(recipe).values(), start=1):
        painted[among(few, numbers)] = value
    return painted


def _of_slice(grid: Grid, place: int, size: tuple[int, int]) -> Grid:
    """The grid of a slice in so many pixels (y, x) of the same extent."""
    y, x = (full / n for full, n in zip(grid.shape[1:], size, strict=True))
    left, back, up = (float(v) for v in grid.world((place, (y - 1) / 2, (x - 1) / 2)))
    spacing = (grid.spacing[0], grid.spacing[1] * y, grid.spacing[2] * x)
    return Grid((1, *size), spacing, (left, back, up), grid.direction)
