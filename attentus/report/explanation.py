"""What `attentus explain` writes: maps as volumes, numbers, and a page that shows them over the scan."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from attentus import io
from attentus.io.atomic import replacing_folder
from attentus.io.plain import json_text
from attentus.report.page import render
from attentus.report.pictures import Picture, Scene, colour, draw
from attentus.report.slices import has_geometry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from attentus.explain.maps import Explanation
    from attentus.types import Volume

SCORES, CHANNELS, PAGE = "scores.json", "channels.json", "index.html"
WORDS = {
    "attention": "attention",
    "before": "features before",
    "after": "features after",
    "towards": "where the point looks",
}
KINDS = {
    "gate": "gate: features are multiplied by it",
    "residual": "residual mask: features are multiplied by one plus it",
    "channel": "channel factors",
    "received": "received attention, 1 is what every position would get if all were alike",
}


class Drawn(NamedTuple):
    """One map for the page."""

    title: str
    pictures: list[Picture]
    span: str
    """Values that are dark and bright."""


class Module(NamedTuple):
    """One attention module for the page."""

    name: str
    kind: str
    maps: list[Drawn]
    facts: list[tuple[str, str]]
    """What is known of it whatever the target, named."""
    targets: list[tuple[str, list[str]]]
    """Structure to the numbers of `COLUMNS`."""


COLUMNS = {
    "mass_inside": "Mass inside",
    "mass_near": "Mass near",
    "expected": "Expected inside",
    "pointing": "Highest voxel inside",
    "best_dice": "Best Dice",
    "threshold": "at",
}
"""Scores against a target as the page calls them."""


def write_explanation(found: Explanation, out: Path, *, overwrite: bool = False) -> list[str]:
    """Write a folder: labels, a NIfTI file per map, channels.json, scores.json and index.html.

    Maps are float32 on the scan's own grid. The page needs no network.

    Args:
        found: see `explain.attention`.
        out: the folder.
        overwrite: whether an earlier one may be replaced.

    Returns:
        Names of the files.

    Raises:
        BadFile: the folder exists and may not be replaced, or cannot be written to.
    """
    with replacing_folder(out, holds=SCORES, overwrite=overwrite) as folder:
        io.write(found.prediction.labels, folder / "labels.nii.gz")
        for what, maps in _all_maps(found).items():
            for name, volume in maps.items():
                whole = volume.like(np.asarray(volume.array, np.float32))
                io.write(whole, folder / f"{what}_{name.replace('.', '-')}.nii.gz")
        vectors = {n: {"mean": v.mean, "sd": v.sd, "windows": v.windows} for n, v in found.vectors.items()}
        if vectors:
            (folder / CHANNELS).write_text(json_text(vectors), encoding="utf-8")
        (folder / SCORES).write_text(json_text(found.facts()), encoding="utf-8")
        (folder / PAGE).write_text(to_html(found), encoding="utf-8")
        return sorted(file.name for file in folder.iterdir())


def to_html(found: Explanation) -> str:
    """The page."""
    source = found.scan.source
    name = source.path.name if source and source.path else "scan"
    structures = list(found.prediction.names)
    return render(
        "explanation.html.j2",
        name=name,
        model=found.prediction.model,
        modules=[_module(found, module) for module in found.kinds],
        columns=list(COLUMNS.values()),
        target=found.target,
        near=f"{found.near_mm:g}",
        point=found.point,
        structures=structures,
        colour=colour,
    )


def _all_maps(found: Explanation) -> dict[str, Mapping[str, Volume]]:
    return {
        "attention": found.prediction.attention,
        "towards": found.towards,
        "before": found.before,
        "after": found.after,
    }


def _module(found: Explanation, name: str) -> Module:
    numbers = found.scores[name]
    drawn = [_drawn(found, name, what, maps[name]) for what, maps in _all_maps(found).items() if name in maps]
    facts = [(words, _shown(numbers[key])) for key, words in _FACTS.items() if key in numbers]
    flips = [f"{axis} {_shown(r)}" for axis, r in numbers.get("flips", {}).items()]
    if flips:
        facts.append(("Alike when mirrored (r)", ", ".join(flips)))
    targets = [
        (target, [_shown(scores[key]) for key in COLUMNS]) for target, scores in numbers.get("targets", {}).items()
    ]
    return Module(name, KINDS[found.kinds[name]], drawn, facts, targets)


_FACTS = {
    "channels": "Channels",
    "mean": "Mean",
    "sd": "SD",
    "lowest": "Lowest",
    "highest": "Highest",
    "entropy": "Entropy (1: spread evenly)",
}


def _drawn(found: Explanation, name: str, what: str, volume: Volume) -> Drawn:
    array = volume.array[0]
    low, high = float(array.min()), float(array.max())
    target = (found.prediction.labels if found.reference is None else found.reference).array[0]
    scene = Scene(  # prediction and reference the same, so that nothing is marked as missed or false
        found.scan.array[0],
        target,
        target,
        found.scan.grid,
        tuple(found.prediction.names.values()),
        has_geometry(found.scan),
        array,
        (low, high),
    )
    pictures, _ = draw(scene, f"{name}, {WORDS[what]}")
    return Drawn(WORDS[what], pictures, f"dark {_shown(low)}, bright {_shown(high)}")


def _shown(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return "–" if value is None or math.isnan(value) else f"{value:.3g}"
