"""The data that experiments run on here: folders that are given, or phantoms; and what their labels are called."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from attentus import io
from attentus.data import Dataset
from attentus.data.phantom import write_dataset
from attentus.data.phantom.write import KINDS
from attentus.data.splits import share_out
from attentus.errors import AttentusError, BadInput, UnknownName, did_you_mean
from attentus.io.atomic import replacing_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from attentus.progress import Progress
    from attentus.reproduce.paper import Paper, Source
    from attentus.types import Grid

    Names = Mapping[str, tuple[str, ...]]
    """Label that the recipes name to the labels of the data that stand for it."""

AIR = -500
"""HU; no other modality has such values."""
LOOKED_AT = 20
"""Scans whose size is looked at, evenly spread."""


@dataclass(frozen=True)
class Request:
    """What the user says about data."""

    data: Mapping[str, Path]
    """Source to folder; "" serves every source. Empty: phantoms."""
    structures: Mapping[str, str]
    """Label of the recipes to labels of the data, joined by +."""
    cases: int
    """How many phantoms are drawn per source."""
    coarse: float
    """Factor on their voxel size."""


@dataclass(frozen=True)
class Material:
    """What stands for one source of a paper."""

    key: str
    source: Source
    dataset: Dataset | None
    """None where phantoms have not been drawn yet."""
    names: Names
    differs: tuple[str, ...]
    """How it differs from what the paper had, in sentences."""
    grids: tuple[Grid, ...] = ()
    """Of some of the scans, canonical."""
    hounsfield: bool = True
    """Whether values of the scans are Hounsfield units, or may be: windows mean nothing elsewhere."""
    why: str = ""
    """Why nothing can be run on it; empty if it can."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Labels of the recipes that the data do not have."""
        return tuple(part for part in self.source.parts if part not in self.names)


def materials(
    paper: Paper, keys: Sequence[str], asked: Request, place: Path, progress: Progress | None
) -> list[Material]:
    """What stands for some of the sources of a paper.

    Args:
        paper: whose.
        keys: the sources.
        asked: folders, or none.
        place: where phantoms are drawn.
        progress: shows the drawing; None draws nothing, as for a plan.

    Raises:
        UnknownName: a source or label that the paper does not have.
        BadInput: a label that the data do not have.
        BadFile: a folder that holds no dataset.
    """
    for key in asked.data:
        if key and key not in paper.sources:
            raise UnknownName(f"source of data in the paper '{paper.name}'", key, paper.sources)
    parts = {part for source in paper.sources.values() for part in source.parts}
    for part in asked.structures:
        if part not in parts:
            raise UnknownName(f"structure in the recipes of '{paper.name}'", part, parts)
    opened = {folder: Dataset.open(folder) for folder in dict.fromkeys(asked.data.values())}
    found = []
    for key in keys:
        source = paper.sources[key]
        folder = asked.data.get(key, asked.data.get(""))
        if not asked.data:
            found.append(_phantoms(key, source, asked, place, progress))
        elif folder is None:
            found.append(Material(key, source, None, {}, (), why=f"no data are given for it (--data {key}=FOLDER)"))
        else:
            dataset, note = _apart(paper, (key, keys), opened[folder], asked)
            found.append(_given(key, source, dataset, asked, note))
    _check_structures(found, asked)
    if all(material.why for material in found):
        raise BadInput("\n  ".join(["Nothing can be run on these data.", *(f"{m.key}: {m.why}." for m in found)]))
    return found


def label_names(source: Source, known: Sequence[str], asked: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Find the labels that recipes name among those that the data have, whatever their case.

    Args:
        source: what the recipes name, and how else it may be called.
        known: labels and regions of the data.
        asked: what the user says stands for a label; goes first.

    Returns:
        Label of the recipes to labels of the data; what is not there is left out. The only label of the data stands
        for the first label of the recipes, if nothing else does.
    """
    own = {name.lower(): name for name in known}
    found = {}
    for part, others in source.parts.items():
        for spelling in (asked[part],) if part in asked else (*others, part):
            wanted = [name.strip() for name in spelling.split("+")]
            if all(name.lower() in own for name in wanted):
                found[part] = tuple(own[name.lower()] for name in wanted)
                break
    if not found and len(known) == 1:
        return {next(iter(source.parts)): (known[0],)}
    return found


def _phantoms(key: str, source: Source, asked: Request, place: Path, progress: Progress | None) -> Material:
    """Synthetic scans; sources of one kind and seed share them."""
    folder = place / f"{source.phantom}-{source.seed}"
    if progress is not None and not (folder / "dataset.json").is_file():
        with replacing_folder(folder, holds="dataset.json") as drawn:
            write_dataset(
                drawn, asked.cases, seed=source.seed, kind=source.phantom, coarse=asked.coarse, progress=progress
            )
    kind = KINDS[source.phantom]
    said = (
        f"{source.title}: {asked.cases} synthetic scans of the {source.phantom} stand in, with voxels {asked.coarse:g}"
        f" times as large as a scanner's (seed {source.seed}). What holds on phantoms need not hold on patients."
    )
    dataset = Dataset.open(folder) if (folder / "dataset.json").is_file() else None
    labels = [name for name in kind.labels if name != "background"]
    names = label_names(source, labels, asked.structures)
    grids = () if dataset is None else _grids(dataset)
    return Material(key, source, dataset, names, (said,), grids, hounsfield=source.phantom == "abdomen")


def _given(key: str, source: Source, dataset: Dataset, asked: Request, note: str) -> Material:
    """A folder of the user."""
    known = [*dataset.labels, *dataset.regions]
    names = _plain(label_names(source, known, asked.structures), dataset)
    said = [
        f"{source.title}: {dataset.name}, {len(dataset.labelled)} labelled cases with {len(dataset.channels)}"
        f" channel{'' if len(dataset.channels) == 1 else 's'}, stands in{note}."
    ]
    for part, labels in names.items():
        if part in asked.structures or (len(known) == 1 and part.lower() != known[0].lower()):
            said.append(f"{source.title}: {' and '.join(labels)} stand{'s' * (len(labels) == 1)} in for {part}.")
    missing = [part for part in source.parts if part not in names]
    if missing and names:
        said.append(f"{source.title}: these data have no {', no '.join(missing)}; what is about them is left out.")
    why = "" if names else _nothing_found(source, known)
    return Material(key, source, dataset, names, tuple(said), _grids(dataset), hounsfield(dataset), why)


def hounsfield(dataset: Dataset) -> bool:
    """Whether scans are CT: a channel is called so, or the first that can be read has values as low as air's."""
    if any(re.search(r"(^|[^a-z])ct([^a-z]|$)", channel.lower()) for channel in dataset.channels):
        return True
    for case in dataset.labelled:
        try:
            return bool(io.read_case(case).array.min() < AIR)
        except AttentusError:
            continue
    return False


def _plain(names: Names, dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """The same with regions of the dataset replaced by the labels that form them."""
    return {
        part: tuple(dict.fromkeys(label for name in own for label in dataset.regions.get(name, (name,))))
        for part, own in names.items()
    }


def _nothing_found(source: Source, known: Sequence[str]) -> str:
    first, example = next(iter(source.parts)), "+".join(known[:2]) or "LABEL"
    return (
        f"the data have none of the labels {', '.join(source.parts)}, but {', '.join(known) or 'none'}"
        f" (say what stands in, e.g. --structure '{first}={example}')"
    )


def _apart(paper: Paper, which: tuple[str, Sequence[str]], dataset: Dataset, asked: Request) -> tuple[Dataset, str]:
    """The half of a folder that serves two wanted sources between which models travel; the whole of others.

    Returns:
        The cases of the source `which[0]` out of the wanted ones `which[1]`, and words on them.
    """
    key, wanted = which
    for later in wanted:
        earlier = paper.sources[later].apart
        folders = {asked.data.get(name, asked.data.get("")) for name in (later, earlier or later)}
        if earlier in wanted and key in (later, earlier) and len(folders) == 1:
            first, second = share_out(dataset.labelled, (1.0, 1.0), seed=0)
            other = earlier if key == later else later
            half = dataset.subset(second if key == later else first)
            return half, f" with half of its cases; the other half serves as '{other}'"
    return dataset, ""


def _check_structures(found: Sequence[Material], asked: Request) -> None:
    """What the user named must be there.

    Raises:
        BadInput: it is in none of the data.
    """
    for part, spelling in asked.structures.items():
        mine = [
            material for material in found if part in material.source.parts and (material.dataset or not asked.data)
        ]
        if mine and not any(part in material.names for material in mine):
            known = {name for m in mine if m.dataset for name in (*m.dataset.labels, *m.dataset.regions)}
            raise BadInput(
                f"--structure {part}={spelling}: the data have no such label.{did_you_mean(spelling, known)}"
            )


def _grids(dataset: Dataset) -> tuple[Grid, ...]:
    cases = dataset.labelled
    grids = []
    for case in cases[:: max(1, -(-len(cases) // LOOKED_AT))]:
        try:
            grids.append(io.read_grid(case.images[0]))
        except AttentusError:
            continue  # preparing the case will name the file
    return tuple(grids)


def with_absent(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """The same dataset, which also names labels that no voxel has, with integers that are free.

    Raises:
        BadInput: no integer up to 255 is free.
    """
    labels = dict(dataset.labels)
    free = (value for value in range(255, 0, -1) if value not in dataset.labels.values())
    for name in names:
        value = next(free, None)
        if value is None:
            raise BadInput(f"{dataset.root}: all label values are taken, so '{name}' cannot be named.")
        labels.setdefault(name, value)
    return replace(dataset, declared_labels=labels)
