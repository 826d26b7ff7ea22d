"""Cases of a plan, written in the layout of the Medical Segmentation Decathlon.

Of the DICOM headers nothing is copied but geometry, modality and the names of structures. `import.json` holds what was
asked for and what was done; it lets a second call go on where the first one stopped.
"""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass, field
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from attentus import io
from attentus.errors import AttentusError, BadFile, BadInput, MissingExtra
from attentus.io.atomic import require_free, sweep, write_text
from attentus.io.dicom import load_series
from attentus.io.dicom_seg import read_segmentation
from attentus.io.rtstruct import rasterise, read_structures
from attentus.progress import Progress, Silent, track
from attentus.transforms.onto import covered, onto, shares_place
from attentus.types import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from attentus.data.imports.choose import Case, Plan
    from attentus.data.imports.survey import ImageSeries, LabelObject
    from attentus.types import Grid

RECORD = "import.json"
FOLDERS = (("imagesTr", "labelsTr"), ("imagesTs", None))
Overlap = Literal["smaller", "later"]


@dataclass
class Facts:
    """What was done for a case. No patient data."""

    fingerprint: str
    shape: tuple[int, ...] = ()
    """(z, y, x)."""
    spacing: tuple[float, ...] = ()
    """(z, y, x), mm."""
    labels_ml: dict[str, float] = field(default_factory=dict)
    overlaps: dict[str, int] = field(default_factory=dict)
    """"inner over outer" to the voxels that both claimed, and the first got."""
    notes: list[str] = field(default_factory=list)
    labelled: bool = True


@dataclass(frozen=True)
class Result:
    """What an import did."""

    folder: Path
    cases: dict[str, Facts]
    """All that are there now."""
    written: int
    """How many of them this call wrote."""
    failures: dict[str, str]
    """Case to message."""


def convert(
    plan: Plan,
    out: Path,
    *,
    overlap: Overlap = "smaller",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Write the cases of a plan; what an earlier call with the same plan wrote is left as it is.

    Args:
        plan: from `choose`.
        out: folder to make.
        overlap: who gets a voxel that several labels claim: the one with fewer voxels in this case, or the later one.
        overwrite: whether an earlier import may be replaced.
        progress: shows the cases.

    Raises:
        BadInput: the plan cannot be done as asked for.
        BadFile: the folder holds something else, or another import, or cannot be written to.
        MissingExtra: there are DICOM segmentations, and highdicom is not installed.
    """
    if plan.refusal:
        raise BadInput(plan.refusal)
    asked = {"channels": list(plan.channels), "labels": list(plan.labels), "overlap": overlap}
    earlier = _earlier(out, asked, overwrite=overwrite)
    record = {case.name: earlier[case.name] for case in plan.cases if _done(out, case, earlier)}
    _refuse_others(out, plan, earlier)
    todo = [case for case in plan.cases if case.name not in record]
    sweep(place for case in todo for place in _places(out, case) if place)
    failures: dict[str, str] = {}
    for case in track(progress or Silent(), "importing", todo):
        try:
            record[case.name] = _write_case(out, case, plan, overlap)
        except MissingExtra:
            raise
        except (AttentusError, ValueError, MemoryError) as error:
            failures[case.name] = str(error) or type(error).__name__
        _keep(out, asked, record)
    ordered = {case.name: record[case.name] for case in plan.cases if case.name in record}
    if ordered:
        write_text(out / "dataset.json", json.dumps(_description(plan, ordered, out.name), indent=1) + "\n")
    return Result(out, ordered, len(todo) - len(failures), failures)


def write_mapping(plan: Plan, file: Path, *, overwrite: bool = False) -> None:
    """Write which patient, study and series each case comes from, as CSV. It undoes the de-identification.

    Raises:
        BadFile: the file exists, or cannot be written.
    """
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["case", "subject", "channel", "patient", "study_uid", "series_uid", "folder"])
    for case in plan.cases:
        for channel, image in zip(plan.channels, case.images, strict=True):
            owner = image.owner
            table.writerow([case.name, case.subject, channel, owner.patient, owner.study, owner.series, image.folder])
    require_free(file, overwrite=overwrite)
    write_text(file, text.getvalue(), overwrite=overwrite)


def _write_case(out: Path, case: Case, plan: Plan, overlap: Overlap) -> Facts:
    if case.problem:
        raise ValueError(case.problem)
    facts = Facts(case.fingerprint, notes=list(case.notes), labelled=bool(case.structures))
    image = _image(case, plan, facts)
    facts.shape, facts.spacing = image.grid.shape, image.grid.spacing
    where, where_labels = _places(out, case)
    if where_labels is not None:
        labels = _labels(case, plan, image.grid, overlap, facts)
        io.write(Volume(labels[None], image.grid), where_labels, overwrite=True)
    io.write(image, where, overwrite=True)
    return facts


def _image(case: Case, plan: Plan, facts: Facts) -> Volume:
    """The channels on the first one's grid, in 16-bit integers where nothing is lost."""
    first = _load(case.images[0])
    arrays = [first.array[0]]
    for channel, series in zip(plan.channels[1:], case.images[1:], strict=True):
        other = _load(series)
        if other.grid.matches(first.grid):
            arrays.append(other.array[0])
            continue
        if not shares_place(other.grid, first.grid):
            raise ValueError(
                f"channel {channel} lies nowhere near {plan.channels[0]}, so it cannot be resampled onto it"
            )
        lowest = float(other.array.min())
        arrays.append(onto(other.array[0], other.grid, first.grid, outside=lowest))
        share = float(covered(other.grid, first.grid).mean())
        beyond = f", which it covers to {share:.0%}; {lowest:g} elsewhere" if share < 0.9995 else ""
        facts.notes.append(f"{channel} resampled onto {plan.channels[0]}{beyond}")
    array = np.stack(arrays)
    whole = bool((array == np.rint(array)).all()) and array.min() >= -32768 and array.max() <= 32767
    return Volume(array.astype(np.int16) if whole else array, first.grid)


def _load(series: ImageSeries) -> Volume:
    if series.series is None:
        raise ValueError(series.damage)
    return load_series(series.series)


def _labels(case: Case, plan: Plan, grid: Grid, overlap: Overlap, facts: Facts) -> NDArray[Any]:
    """The label map (z, y, x): masks painted one over the other, the one that wins last."""
    masks: dict[str, NDArray[np.bool_]] = {}
    for label, mask in _masks(case, grid, facts):
        masks[label] = masks[label] | mask if label in masks else mask
    order = sorted(masks, key=plan.labels.index)
    if overlap == "smaller":
        order.sort(key=lambda label: -int(masks[label].sum()))
    labels = np.zeros(grid.shape, np.uint8 if len(plan.labels) < 256 else np.uint16)
    for label in order:
        below = np.bincount(labels[masks[label]], minlength=1 + len(plan.labels))
        for value in np.flatnonzero(below[1:]):
            facts.overlaps[f"{label} over {plan.labels[value]}"] = int(below[1 + value])
        labels[masks[label]] = 1 + plan.labels.index(label)
    counts = np.bincount(labels.ravel(), minlength=1 + len(plan.labels))
    facts.labels_ml = {label: float(counts[1 + plan.labels.index(label)] * grid.voxel_ml) for label in order}
    facts.notes += [f"{label}: no voxel is left of it" for label in order if not facts.labels_ml[label]]
    if not counts[1:].any():
        raise ValueError("none of its labels has a voxel: they lie outside the image, or are empty")
    return labels


def _masks(case: Case, grid: Grid, facts: Facts) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Label and mask (z, y, x) of every structure; what is odd goes to the notes."""
    for drawn in dict.fromkeys(drawn for drawn, _, _ in case.structures):
        becomes = {name: label for source, name, label in case.structures if source is drawn}
        yield from (_from_contours if drawn.kind == "RTSTRUCT" else _from_segments)(drawn, becomes, grid, facts)


def _from_contours(
    drawn: LabelObject, becomes: Mapping[str, str], grid: Grid, facts: Facts
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    for structure in read_structures(drawn.file, tuple(becomes)):
        facts.notes += [f"{structure.name}: left out {what}" for what in structure.ignored]
        try:
            yield becomes[structure.name], rasterise(structure, grid)
        except ValueError as error:
            raise BadFile(
                drawn.file,
                f"structure {structure.name}: {error}",
                "Leave it out (--label), or export it on this series.",
            ) from None


def _from_segments(
    drawn: LabelObject, becomes: Mapping[str, str], grid: Grid, facts: Facts
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    found = read_segmentation(drawn.file, list(becomes))
    volume, (axes, canonical) = found.volume.canonical(), grid.canonical()
    laid = volume.laid_on(canonical)
    if laid is None and not shares_place(volume.grid, canonical):
        raise BadFile(drawn.file, "lies nowhere near the images it refers to", "Leave it out, or export it again.")
    if laid is None:
        facts.notes.append("segments resampled onto the image, nearest voxel")
        laid = Volume(onto(volume.array[0], volume.grid, canonical, order=0)[None], canonical)
    stored = axes.inverse.apply(laid.array[0])
    for name, label in becomes.items():
        yield label, np.isin(stored, found.names[name])


def _places(out: Path, case: Case) -> tuple[Path, Path | None]:
    images, labels = FOLDERS[0 if case.structures else 1]
    file = f"{case.name}.nii.gz"
    return out / images / file, out / labels / file if labels else None


def _earlier(out: Path, asked: Mapping[str, Any], *, overwrite: bool) -> dict[str, Facts]:
    """What an earlier call wrote here, for the same request."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return {}
    file = out / RECORD
    if not file.is_file():
        raise BadFile(out, f"exists and was not made by an import (no {RECORD})", "Choose an empty or a new folder.")
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        cases = {name: Facts(**facts) for name, facts in tree["cases"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadFile(file, f"cannot be read ({error})", "Remove the folder and import again.") from None
    if overwrite:
        _remove(out, cases)
        return {}
    if tree.get("asked") != asked:
        different = ", ".join(key for key in asked if (tree.get("asked") or {}).get(key) != asked[key])
        raise BadFile(
            out,
            f"holds an import with other {different}",
            "Ask for the same to go on with it, choose another folder, or replace it (--overwrite).",
        )
    return cases


def _done(out: Path, case: Case, earlier: Mapping[str, Facts]) -> bool:
    """Whether all of a case is there, made from the same series."""
    facts = earlier.get(case.name)
    files = (place for place in _places(out, case) if place)
    return facts is not None and facts.fingerprint == case.fingerprint and all(file.is_file() for file in files)


def _refuse_others(out: Path, plan: Plan, earlier: Mapping[str, Facts]) -> None:
    """Names stand for the same scans as before, or nothing is touched."""
    now = {case.name: case.fingerprint for case in plan.cases}
    changed = [name for name, facts in earlier.items() if now.get(name) != facts.fingerprint]
    if changed:
        raise BadFile(
            out,
            f"holds cases made from other scans than these: {', '.join(changed[:5])}{' ...' * (len(changed) > 5)}",
            "Choose another folder or replace it (--overwrite). With --names hash, scans may be added later.",
        )


def _remove(out: Path, cases: Mapping[str, Facts]) -> None:
    """Take away what an earlier import wrote, and nothing else."""
    for name, facts in cases.items():
        for folder in FOLDERS[0] if facts.labelled else FOLDERS[1][:1]:
            (out / str(folder) / f"{name}.nii.gz").unlink(missing_ok=True)
    for file in ("dataset.json", RECORD):
        (out / file).unlink(missing_ok=True)


def _keep(out: Path, asked: Mapping[str, Any], record: Mapping[str, Facts]) -> None:
    tree = {"asked": asked, "cases": {name: asdict(facts) for name, facts in record.items()}}
    write_text(out / RECORD, json.dumps(tree, indent=1) + "\n")


def _description(plan: Plan, cases: Mapping[str, Facts], name: str) -> dict[str, Any]:
    subjects = {case.name: case.subject for case in plan.cases}
    training = [case for case, facts in cases.items() if facts.labelled]
    test = [case for case, facts in cases.items() if not facts.labelled]
    return {
        "name": name,
        "description": "Imported from DICOM.",
        "reference": "attentus data import",
        "tensorImageSize": "4D" if len(plan.channels) > 1 else "3D",
        "modality": {str(k): channel for k, channel in enumerate(plan.channels)},
        "labels": {"0": "background", **{str(k): label for k, label in enumerate(plan.labels, start=1)}},
        "numTraining": len(training),
        "numTest": len(test),
        "training": [
            {"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz", "subject": subjects[c]}
            for c in training
        ],
        "test": [f"./imagesTs/{case}.nii.gz" for case in test],
    }
