"""What attention is replaced by to see whether it matters, and a model that runs so."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from attentus import nets
from attentus.infer.segment import Member
from attentus.transforms.prepare import Preparation
from attentus.transforms.resample import resample

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from attentus.infer.model import Model
    from attentus.infer.sliding import Maps, Run, Source, Window
    from attentus.nets import AttentionPoint
    from attentus.nets.parts import AttentionTap, Coefficients
    from attentus.types import Volume

CONTROLS = {
    "none": "no attention: every factor 1, no residual mask, nothing gathered",
    "mean": "its own mean: the same factor everywhere, of each map of each window; channels all alike",
    "shuffled": "its own map with the positions of each window in random order",
    "channels": "its own factors with the channels in random order",
    "other": "that of another patient at the same place, relative to the size of the scans",
}
"""Name of a replacement to what it is."""


def controls_for(point: AttentionPoint) -> list[str]:
    """The replacements that mean something for a module: positions need more than one, channels too."""
    fitting = {
        "shuffled": math.prod(point.size) > 1,
        "channels": point.maps > 1 and point.kind != "received",
    }
    return [name for name in CONTROLS if fitting.get(name, True)]


def replaced(
    model: Model, modules: Sequence[str], control: str, *, donor: Volume | None = None, seed: int = 0
) -> Member:
    """A model in which some modules' attention is replaced, ready for one scan.

    Args:
        model: with these modules.
        modules: whose attention.
        control: one of `CONTROLS`.
        donor: scan of the other patient, for "other".
        seed: of the random orders.
    """
    run = _Run(model, modules, control, seed)
    beside = None
    if control == "other":
        if donor is None:
            raise ValueError("the attention of another patient needs one")
        prepared = Preparation.of(donor, model.recipe.prepare)

        def beside(scan: Preparation) -> tuple[Source, Sequence[float]]:
            whole = resample(prepared.rows(0, prepared.grid.shape[0]), scan.grid.shape)
            return lambda first, last: whole[:, first:last], prepared.outside

    return Member(model.recipe, model.window, run.ready, beside=beside)


class _Run:
    """The net on windows, with some of its coefficients replaced."""

    def __init__(self, model: Model, modules: Sequence[str], control: str, seed: int) -> None:
        self.net, self.dims = model.net, model.recipe.net.dims
        self.modules, self.control = modules, control
        self.device = next(model.net.parameters()).device
        self.channels = len(model.recipe.channels)
        self.kinds = {name: tap.kind for name, tap in nets.taps(model.net).items()}
        self.random = torch.Generator().manual_seed(seed)

    def ready(self, _scan: Preparation, _window: Window) -> Run:
        """The function that a walk asks about windows."""
        return self

    @torch.inference_mode()
    def __call__(self, windows: NDArray[np.float32]) -> Maps:
        """Windows (N, C, z, y, x), those of another patient as further channels, to "logits"."""
        x = torch.from_numpy(windows).to(self.device)
        flat = x[:, :, 0] if self.dims == 2 else x
        theirs = self._heard(flat[:, self.channels :]) if self.control == "other" else {}
        changes = {name: self._change(name, theirs) for name in self.modules}
        with nets.replacing(self.net, changes):
            logits = self.net(flat[:, : self.channels])[0].float()
        return {"logits": (logits[:, :, None] if self.dims == 2 else logits).cpu().numpy()}

    def _heard(self, windows: Tensor) -> dict[str, list[Coefficients]]:
        """Coefficients of every pass through every module, in order."""
        heard: dict[str, list[Coefficients]] = {}

        def keep(name: str, _tap: AttentionTap, own: Coefficients, _before: Tensor, _after: Tensor) -> None:
            heard.setdefault(name, []).append(own)

        with nets.watching(self.net, keep):
            self.net(windows.contiguous())
        return heard

    def _change(self, name: str, theirs: dict[str, list[Coefficients]]) -> Any:
        """What a module's coefficients become."""
        if self.control == "none":
            return lambda _own: None
        if self.control == "mean":
            along_channels = self.kinds[name] == "channel"
            return lambda own: _each(own, lambda one: _averaged(one, channels=along_channels))
        if self.control == "other":
            passes = iter(theirs[name])
            return lambda _own: next(passes)
        return self._in_random_order

    def _in_random_order(self, own: Coefficients) -> Coefficients:
        """Positions, or channels, of all parts of the coefficients in one and the same order."""
        first = own if isinstance(own, torch.Tensor) else own[0]
        if self.control == "channels":
            order = torch.randperm(first.shape[1], generator=self.random).to(first.device)
            return _each(own, lambda one: one[:, order])
        order = torch.randperm(first[0, 0].numel(), generator=self.random).to(first.device)
        return _each(own, lambda one: one.flatten(2)[:, :, order].view(one.shape))


def _each(own: Coefficients, change: Any) -> Coefficients:
    if isinstance(own, torch.Tensor):
        return change(own)  # type: ignore[no-any-return]
    return tuple(change(one) for one in own)


def _averaged(one: Tensor, *, channels: bool) -> Tensor:
    axes = (1,) if channels else tuple(range(2, one.ndim))
    return one.mean(axes, keepdim=True).expand(one.shape)
