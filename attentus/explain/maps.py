"""The attention of a model on one scan, module by module, on the scan's own grid."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from attentus import io
from attentus.data.resolve import values_in
from attentus.errors import BadInput, UnknownName
from attentus.explain.flips import flip_agreement
from attentus.explain.point import towards
from attentus.infer.attention import LAYERS, Capture, Layers, evaluating, on_disk, scored
from attentus.infer.clean import among
from attentus.infer.model import read_volume
from attentus.infer.segment import Member, Wish, segment
from attentus.metrics.attention import NEAR_MM, Target
from attentus.transforms.prepare import Preparation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    import numpy as np
    from numpy.typing import NDArray

    from attentus.infer.attention import Vector
    from attentus.infer.model import Model
    from attentus.progress import Progress
    from attentus.transforms.prepare import WayBack
    from attentus.types import Case, Prediction, Volume


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a model says about a scan and where its attention was; maps come to the scan's grid when asked for."""

    scan: Volume
    prediction: Prediction
    """Its `attention` holds one map (1, z, y, x) per module: 0..1, or for "received" times what all would get."""
    kinds: Mapping[str, str]
    """Module to "gate", "residual", "channel" or "received"; see `nets.parts.AttentionTap`."""
    before: Mapping[str, Volume] = field(default_factory=dict)
    """Mean size of the features that go into each module, if asked for."""
    after: Mapping[str, Volume] = field(default_factory=dict)
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    """Factors of modules that weigh channels."""
    towards: Mapping[str, Volume] = field(default_factory=dict)
    """Where the point looks that was asked about, by module."""
    point: tuple[int, int, int] | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)
    """Module to numbers, see docs/how-to/explain.md."""
    target: str = ""
    """What maps were compared with: "label" or "prediction"."""
    reference: Volume | None = None
    near_mm: float = NEAR_MM

    def facts(self) -> dict[str, Any]:
        """Plain values for scores.json."""
        return {
            "model": self.prediction.model,
            "seconds": self.prediction.seconds,
            "target": self.target,
            "near_mm": self.near_mm,
            "point": self.point,
            "modules": dict(self.scores),
        }


def attention(
    model: Model,
    scan: Volume | Case | str | PathLike[str],
    *,
    label: Volume | str | PathLike[str] | None = None,
    modules: Sequence[str] = (),
    point: tuple[int, int, int] | None = None,
    features: bool = False,
    near_mm: float = NEAR_MM,
    flips: bool = True,
    progress: Progress | None = None,
) -> Explanation:
    """Segment a scan and keep where the model's attention was.

    Maps are stitched by the windows, weights and flips of the prediction and brought to the scan's own grid by the same
    interpolation as its logits. One map per module is kept: the mean over its channels if it has several. While the
    windows roll, some rows of each map are in memory; whole ones lie in a temporary file, half precision, in the
    model's resolution, and come to the scan's grid one at a time, when they are asked for.

    Args:
        model: with attention.
        scan: volume, case, file, or folder of a DICOM series.
        label: the truth on the scan's grid, in the model's label values; without it maps are compared with the
            prediction.
        modules: names of modules to keep, as `nets.taps` has them; all if empty.
        point: voxel (z, y, x) of the scan in its canonical orientation, from 0: where it looks, for modules that
            let positions look at each other.
        features: also keep the features before and after each module, mean absolute value over the channels.
        near_mm: what counts as near a target, mm.
        flips: also measure how alike the maps of mirrored windows are; a few more passes.
        progress: shows the windows.

    Raises:
        BadInput: a net without attention, a scan or label that cannot be used, a point outside the scan.
        UnknownName: no such module.
    """
    volume = read_volume(scan)
    capture = _capture(model, modules, features=features)
    _check_point(point, volume, capture)
    member = Member(model.recipe, model.window, lambda _scan, _window: capture, len(capture.layers))
    with evaluating(model.net), capture:
        found = segment([member], volume, Wish(keep=on_disk), progress)
        prepared = Preparation.of(volume, model.recipe.prepare)
        alike = flip_agreement(capture, prepared, model.window) if flips else {}
        looks = towards(model, prepared, volume, point) if point else {}
    layers = _layers(capture, found, prepared.way_back, volume)
    prediction = replace(found, model=model.recipe.name, attention=layers["attention"])
    reference = None if label is None else _reference(label, volume)
    scores = _scores(model, capture, prediction, reference or prediction.labels, near_mm)
    for name, numbers in alike.items():
        scores[name]["flips"] = numbers
    return Explanation(
        volume,
        prediction,
        capture.kinds,
        layers["before"],
        layers["after"],
        capture.vectors,
        Layers({name: each for name, each in looks.items() if name in capture.kinds}, prepared.way_back, volume),
        point,
        scores,
        "prediction" if reference is None else "label",
        reference,
        near_mm,
    )


def _capture(model: Model, modules: Sequence[str], *, features: bool) -> Capture:
    device = next(model.net.parameters()).device
    capture = Capture(model.net, model.recipe.net.dims, device, features=features)
    if not capture.kinds:
        raise BadInput(f"The net '{model.recipe.net.name}' of {model.recipe.name} has no attention to look at.")
    for name in modules:
        if name not in capture.kinds:
            raise UnknownName("attention module", name, capture.kinds)
    capture.keep_only(modules or tuple(capture.kinds))
    return capture


def _check_point(point: tuple[int, int, int] | None, volume: Volume, capture: Capture) -> None:
    if point is None:
        return
    if not all(0 <= at < n for at, n in zip(point, volume.grid.shape, strict=True)):
        raise BadInput(f"The point {point} lies outside the scan, which has {volume.grid.shape} voxels (z, y, x).")
    if "received" not in capture.kinds.values():
        raise BadInput(
            "A point can be asked where it looks only in modules whose positions look at each other: those of"
            " msconvlstm-att. Leave the point out."
        )


def _layers(capture: Capture, found: Prediction, way: WayBack, volume: Volume) -> dict[str, Layers]:
    """What to the maps of all modules."""
    kept: dict[str, dict[str, NDArray[np.float16]]] = {"attention": {}, "before": {}, "after": {}}
    for place, (name, what) in enumerate(capture.layers):
        kept[what][name] = found.attention[LAYERS].array[place]
    return {what: Layers(arrays, way, volume) for what, arrays in kept.items()}


def _reference(label: Volume | str | PathLike[str], volume: Volume) -> Volume:
    truth = label.canonical() if hasattr(label, "canonical") else io.read_labels(label)
    volume.grid.require_match(truth.grid, "explain")
    return truth


def _scores(
    model: Model, capture: Capture, prediction: Prediction, target: Volume, near_mm: float
) -> dict[str, dict[str, Any]]:
    """Numbers for every module; maps are compared with every structure that is there."""
    spacing = target.grid.spacing
    masks = {name: among(target.array[0], values) for name, values in values_in(model.recipe).items()}
    targets = {name: Target(mask, spacing, near_mm) for name, mask in masks.items() if mask.any()}
    return scored(capture, ((name, volume.array[0]) for name, volume in prediction.attention.items()), targets)
