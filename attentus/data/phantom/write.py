"""A folder of phantoms, laid out like those of the Medical Segmentation Decathlon: dataset.json, imagesTr, labelsTr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from attentus import io
from attentus.data.phantom.abdomen import LABELS as ABDOMEN
from attentus.data.phantom.abdomen import abdomen
from attentus.data.phantom.brain import CHANNELS, brain
from attentus.data.phantom.brain import LABELS as GLIOMA
from attentus.errors import BadFile, BadInput, UnknownName
from attentus.io.atomic import write_text
from attentus.progress import Progress, Silent, track
from attentus.types import AxisMap, Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from attentus.data.phantom.result import Phantom


class Kind(NamedTuple):
    """One sort of phantom."""

    make: Callable[..., Phantom]
    name: str
    description: str
    channels: tuple[str, ...]
    labels: Mapping[str, int]


KINDS = {
    "abdomen": Kind(
        abdomen,
        "Phantom abdomen",
        "Synthetic CT of the abdomen: liver with tumours, spleen, kidneys, pancreas, aorta. No patient was scanned.",
        ("CT",),
        ABDOMEN,
    ),
    "brain": Kind(
        brain,
        "Phantom brain",
        "Synthetic MRI of brains with gliomas, four channels, skull-stripped. No patient was scanned.",
        CHANNELS,
        GLIOMA,
    ),
}
FLIPS = ((False, False, False), (False, True, False), (False, True, True), (False, False, True), (True, True, True))
"""Ways to store the axes (z, y, x), each the other way round or not, as scanners and converters do: nibabel calls them
LPS, LAS, RAS, RPS and RAI."""


def write_dataset(
    out: Path,
    cases: int,
    *,
    seed: int = 0,
    kind: str = "abdomen",
    coarse: float = 1.0,
    tumours: tuple[float, float] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write synthetic cases with labels, `phantom_000` and so on; dataset.json comes last and tells what was drawn.

    Args:
        out: a folder that is empty or does not exist yet.
        cases: how many.
        seed: another seed gives other patients; case k is the same however many are written.
        kind: "abdomen" (CT) or "brain" (MRI with four channels).
        coarse: factor on the voxel size, see `abdomen`.
        tumours: least and largest diameter of tumours in the liver, mm, see `abdomen`.
        progress: shows the cases.

    Returns:
        The folder.

    Raises:
        BadInput: the folder is not empty, or a number makes no sense.
        UnknownName: no such kind.
    """
    out, how = Path(out), {"coarse": coarse, **({"tumours": tumours} if tumours else {})}
    if kind not in KINDS:
        raise UnknownName("phantom", kind, KINDS)
    if cases < 1:
        raise BadInput(f"The number of cases must be at least 1, got {cases}.")
    if seed < 0:
        raise BadInput(f"The seed must be 0 or above, got {seed}.")
    if tumours and (kind != "abdomen" or not 0 < tumours[0] <= tumours[1] <= 100):
        raise BadInput(f"Liver tumours have two diameters up to 100 mm, the smaller first, got {tumours} for {kind}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadFile(out, "exists already and is not an empty folder", "Give the name of a new folder, or empty it.")
    facts: dict[str, Any] = {}
    for number in track(progress or Silent(), "drawing phantoms", range(cases)):
        name = f"phantom_{number:03d}"
        facts[name] = _write_case(out, name, kind, how, np.random.SeedSequence([seed, number]))
    description = _describe(kind, facts) | {"phantom": {"seed": seed, "kind": kind, **how, "facts": facts}}
    write_text(out / "dataset.json", json.dumps(description, indent=2) + "\n")
    return out


def _write_case(
    out: Path, name: str, kind: str, how: Mapping[str, Any], numbers: np.random.SeedSequence
) -> dict[str, Any]:
    own, way = (int(n) for n in numbers.generate_state(2))
    image, labels, facts = KINDS[kind].make(own, **how)
    axes = AxisMap(flip=FLIPS[way % len(FLIPS)])
    for folder, volume, kind_of_number in (("imagesTr", image, np.int16), ("labelsTr", labels, np.uint8)):
        turned = Volume(axes.apply(volume.array).astype(kind_of_number), volume.grid.reoriented(axes))
        io.write(turned, out / folder / f"{name}.nii.gz")
    return facts


def _describe(kind: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    made = KINDS[kind]
    return {
        "name": made.name,
        "description": made.description,
        "reference": "attentus data phantom",
        "licence": "CC0-1.0",
        "tensorImageSize": "4D" if len(made.channels) > 1 else "3D",
        "modality": {str(i): channel for i, channel in enumerate(made.channels)},
        "labels": {str(value): label for label, value in made.labels.items()},
        "numTraining": len(facts),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in facts],
        "test": [],
    }
