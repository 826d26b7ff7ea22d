"""Attention over a training: filmstrips of maps over a slice, and curves of their scores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from attentus.report.charts import Chart, over_training
from attentus.report.pictures import Backdrop, Scene, heat_bar, heat_scale

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from markupsafe import Markup

    from attentus.report.run import Run
    from attentus.train.snapshots import Picture, Snapshot

LARGEST = 150.0
"""Largest side of a picture, px."""
SCALE = "heat-scale"
"""The id of the colours on the page."""
AGAINST = {"mass_inside": "Mass inside", "pointing": "Highest voxel inside", "best_dice": "Best Dice with"}
"""Scores against a structure as the page calls them."""


class Column(NamedTuple):
    """One moment."""

    name: str
    detail: str


class Row(NamedTuple):
    """One module."""

    name: str
    kind: str
    bar: Markup
    """The colours of this row and what they mean."""
    pictures: list[Markup]
    """One per moment."""


class Strip(NamedTuple):
    """One case."""

    case: str
    place: str
    """Where the slice was cut."""
    defs: Markup
    plain: Markup
    """The slice without any map."""
    rows: list[Row]


class Film(NamedTuple):
    """All that the page shows of it."""

    columns: list[Column]
    strips: list[Strip]
    geometry: bool
    """Whether it is known where left and right are."""
    scale: Markup
    charts: list[Chart]


def make_film(run: Run) -> Film | None:
    """Lay out what was seen in a run; None where nothing was."""
    if not run.pictures or not run.snapshots:
        return None
    columns = [
        Column(", ".join(one.moments), f"step {one.step:,}, epoch {_epochs(one.epoch)}") for one in run.snapshots
    ]
    strips = [_strip(run, picture, number) for number, picture in enumerate(run.pictures)]
    geometry = all(picture.geometry for picture in run.pictures)
    return Film(columns, strips, geometry, heat_scale(SCALE), _curves(run))


def _strip(run: Run, picture: Picture, number: int) -> Strip:
    scene = Scene(
        picture.image[None],
        picture.labels[None],
        picture.labels[None],
        picture.grid,
        tuple(range(1, len(run.recipe.labels) + 1)),
        picture.geometry,
    )
    frame = Backdrop(scene, f"film{number}", LARGEST)
    names = list(dict.fromkeys(name for one in run.snapshots for name in one.maps[picture.case]))
    rows = [_row(run.snapshots, picture.case, name, frame) for name in names]
    place = f"slice {picture.place + 1} of {picture.slices}" if picture.slices > 1 else ""
    return Strip(picture.case, place, frame.defs(), frame.plain(f"{picture.case}, {place}".strip(", ")), rows)


def _row(seen: Sequence[Snapshot], case: str, name: str, frame: Backdrop) -> Row:
    """One module over the training; all moments share its colours, so that they can be compared."""
    maps = [one.maps[case][name] for one in seen]
    low, high = min(float(one.min()) for one in maps), max(float(one.max()) for one in maps)
    pictures = [
        frame.under(one, (low, high), f"{case}, {name} at step {when.step}: {one.min():.3g} to {one.max():.3g}")
        for one, when in zip(maps, seen, strict=True)
    ]
    return Row(name, seen[0].scores[case][name]["kind"], heat_bar(SCALE, f"{low:.3g}", f"{high:.3g}"), pictures)


def _curves(run: Run) -> list[Chart]:
    """Means over the cases of what was measured."""
    charts: list[Chart | None] = [_curve(run, "Entropy", lambda numbers: numbers.get("entropy"))]
    for structure in run.structures:
        for key, words in AGAINST.items():
            even = key == "mass_inside"
            charts.append(
                _curve(
                    run,
                    f"{words} {structure}",
                    _against(structure, key),
                    _against(structure, "expected") if even else None,
                )
            )
    return [chart for chart in charts if chart is not None]


def _against(structure: str, key: str) -> Callable[[Any], Any]:
    return lambda numbers: numbers.get("targets", {}).get(structure, {}).get(key)


def _curve(run: Run, title: str, take: Callable[[Any], Any], even: Callable[[Any], Any] | None = None) -> Chart | None:
    names = list(dict.fromkeys(name for one in run.snapshots for case in one.maps.values() for name in case))
    curves = {
        short: [(float(one.step), _mean([take(case[name]) for case in one.scores.values()])) for one in run.snapshots]
        for name, short in zip(names, _short(names), strict=True)
    }
    dotted = []
    if even is not None:
        expected = _mean([even(case[name]) for one in run.snapshots for case in one.scores.values() for name in names])
        dotted = [(float(one.step), expected) for one in run.snapshots]
    return over_training(title, curves, dotted)


def _short(names: list[str]) -> list[str]:
    """Names without the parts that all begin with."""
    parts, shared = [name.split(".") for name in names], 0
    while len({tuple(own[: shared + 1]) for own in parts}) == 1 and all(len(own) > shared + 1 for own in parts):
        shared += 1
    return [".".join(own[shared:]) for own in parts]


def _epochs(number: float) -> str:
    """Tenths of an epoch are near enough; hundredths at the beginning."""
    return f"{number:.1f}" if number >= 10 else f"{number:.2g}"


def _mean(values: list[float | None]) -> float:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan
