"""A trained model: one folder that holds everything needed to segment a scan.

recipe.yaml           the resolved recipe: labels, channels, preparation, net, windows
weights.safetensors   the best weights
last.safetensors      the last state of the training, from which it can go on (optional)
card.md               what it is and how it was made, for people
scores.json           how it did on the cases held back (optional)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

from attentus import io, nets
from attentus.errors import BadFile
from attentus.infer.early_exit import EarlyExit, check_early_exit
from attentus.infer.segment import Member, Wish, expect, mute, segment
from attentus.infer.sliding import Window, runner
from attentus.infer.speed import Engine, level_named
from attentus.io.atomic import replacing, write_text
from attentus.recipes import Recipe, build, dump
from attentus.types import Case, Prediction, Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from os import PathLike

    from torch import nn

    from attentus.infer.forecast import Forecast
    from attentus.infer.speed import Speed
    from attentus.progress import Progress

WEIGHTS = {"best": "weights.safetensors", "last": "last.safetensors"}
NET_PREFIX = "net."
"""Weights of the net carry this prefix in a training state, which holds more than them."""


@dataclass(eq=False)
class Model:
    """A net with its recipe."""

    recipe: Recipe
    """Resolved: labels, channels and spacing are written out."""
    net: nn.Module
    folder: Path | None = None
    engine: Engine | None = None
    """What computes the net, if not torch as in training; see `at_speed`."""

    @classmethod
    def load(
        cls,
        folder: str | PathLike[str],
        *,
        weights: Literal["best", "last"] = "best",
        device: str | torch.device | None = None,
        infer: Mapping[str, Any] | None = None,
    ) -> Model:
        """Load a model folder.

        Args:
            folder: as `fit` or `save` wrote it.
            weights: "best" on validation, or "last".
            device: where to run; None takes a GPU if there is one.
            infer: fields of the recipe's `infer` section that shall be others, e.g. {"early_exit": 0.99}.

        Raises:
            BadFile: not a model folder, or damaged weights.
            RecipeError: its recipe is from a version this one cannot read, or a field of `infer` does not fit it.
        """
        folder = Path(folder)
        recipe = recipe_of(folder)
        if infer:
            tree = recipe.model_dump()
            recipe = build({**tree, "infer": {**tree["infer"], **infer}}, recipe.name)
        with _Unfilled():
            net = create_net(recipe)
        check_early_exit(recipe, net)
        _load_weights(net, folder / WEIGHTS[weights])
        return cls(recipe, net.to(device or default_device()).eval(), folder)

    def save(self, folder: str | PathLike[str]) -> None:
        """Write recipe and weights; other files in the folder are left alone."""
        write_text(Path(folder) / "recipe.yaml", dump(self.recipe))
        save_weights(self.net, Path(folder) / WEIGHTS["best"])

    @property
    def names(self) -> dict[str, int]:
        """Structure to the integer it has in label files."""
        return {structure.name: structure.value for structure in self.recipe.labels}

    @property
    def fingerprint(self) -> str:
        """Of recipe, weights and level of speed: differs between models that may answer differently."""
        digest = blake2b(self.recipe.model_dump_json().encode(), digest_size=16)
        digest.update(b"" if self.engine is None else self.engine.level.precision.encode())
        for name, tensor in self.net.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @property
    def window(self) -> Window:
        """How this model walks over a scan."""
        return window_of(self.recipe)

    @property
    def device(self) -> torch.device:
        """Where the net lies."""
        return next(self.net.parameters()).device

    def predict(
        self,
        scan: Volume | Case | str | PathLike[str],
        *,
        clean: bool = True,
        probabilities: bool = False,
        attention: bool = False,
        max_ram: int | None = None,
        progress: Progress | None = None,
    ) -> Prediction:
        """Segment one scan.

        Args:
            scan: volume, case, file, or folder of a DICOM series.
            clean: post-process as the recipe says (`infer.clean`); False gives the most probable class everywhere.
            probabilities: keep the softmax probabilities, background first, or with regions a sigmoid for each.
            attention: keep the attention coefficients of every gate; then all are computed, without early exit.
            max_ram: bytes the process may take; where that is needed, sums of windows lie in a temporary file. The
                result is the same.
            progress: shows the windows.

        Returns:
            Labels, and what else was asked for, on the scan's own grid.

        Raises:
            BadInput: the scan cannot be read, has other channels than the model, or holds NaN; it cannot be done in
                `max_ram`.
        """
        volume = read_volume(scan)
        net = self.net if attention else self.runner()
        wish = Wish(clean, probabilities, limit=max_ram)
        was_training = net.training
        net.eval()
        try:
            found = segment([self.member(net, attention=attention)], volume, wish, progress)
        finally:
            net.train(was_training)
        level = sum(net.levels) / len(net.levels) if isinstance(net, EarlyExit) else None
        return replace(found, model=self.recipe.name, level=level)

    def forecast(self, scan: Volume | Case | str | PathLike[str]) -> Forecast:
        """What `predict` will take, measured on one batch of windows.

        Raises:
            BadInput: see `predict`.
        """
        return expect([self.member()], read_volume(scan))

    def member(self, net: nn.Module | None = None, *, attention: bool = False) -> Member:
        """The model as one of those that segment a scan; attention and early exit are always computed by torch."""
        if self.engine and net in (None, self.net) and not attention:
            return Member(self.recipe, self.window, self.engine.run)
        run = runner(net or self.net, self.recipe.net.dims, next(self.net.parameters()).device, attention=attention)
        return Member(self.recipe, self.window, lambda _scan, _window: run)

    def at_speed(self, speed: Speed, *, scans: int = 1) -> Model:
        """The same model for predicting only, faster: see `attentus.infer.speed.LEVELS`.

        The backend is chosen at the first scan, by a probe; for large windows kernels are compiled meanwhile. Converted
        networks are kept in the model's folder.

        Args:
            speed: "best", "balanced" or "fast".
            scans: how many the job has; a backend that costs some time to set up pays when there are many.

        Raises:
            UnknownName: no such level.
        """
        level = level_named(speed)
        cache = None if self.folder is None else self.folder / "compiled"
        engine = Engine(self.net, self.recipe.net.dims, level, cache, scans)
        engine.begin(self.window)
        return Model(level.of(self.recipe), self.net, self.folder, engine)

    def runner(self) -> nn.Module:
        """What is asked about every window: the net, or with `infer.early_exit` its heads one by one."""
        agreement = self.recipe.infer.early_exit
        if agreement is None:
            return self.net
        return EarlyExit(self.net, agreement, regions=self.recipe.regions, mute=mute(self.recipe))


def recipe_of(folder: Path) -> Recipe:
    """The recipe of a model folder.

    Raises:
        BadFile: not a model folder.
        RecipeError: the recipe is from a version this one cannot read.
    """
    if (folder / "cascade.yaml").is_file():
        raise BadFile(folder, "is a cascade of several models", "Name one of them, e.g. stages/NAME/fold0.")
    if not (folder / "recipe.yaml").is_file():
        raise BadFile(folder, "is no model folder (it has no recipe.yaml)", "Name the folder that training wrote.")
    return Recipe.load(folder / "recipe.yaml")


def create_net(recipe: Recipe) -> nn.Module:
    """The net of a resolved recipe, freshly initialised.

    Raises:
        UnknownName, BadInput: no such net or option.
    """
    how = recipe.net
    return nets.create(how.name, how.dims, len(recipe.channels), len(recipe.outputs), **how.options)


class _Unfilled(TorchFunctionMode):
    """Leaves random numbers out while a net is made whose weights are read next: 30 million take a quarter second."""

    def __torch_function__(
        self, function: Callable[..., Any], _: object, args: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        named = named or {}
        if function in FILLING or getattr(function, "__module__", "") == torch.nn.init.__name__:
            return args[0] if args else named["tensor"]
        return function(*args, **named)


FILLING = (torch.Tensor.uniform_, torch.Tensor.normal_)
"""What the functions of `torch.nn.init` call that do not say what they do."""


def price(recipe: Recipe) -> nets.Cost:
    """Parameters of a resolved recipe's net and the operations of one of its windows, counted without its weights.

    Raises:
        UnknownName, BadInput: no such net or option.
    """
    with torch.device("meta"):
        net = create_net(recipe)
    return nets.cost(net, len(recipe.channels), window_of(recipe).size[-recipe.net.dims :])


def window_of(recipe: Recipe) -> Window:
    """The window a recipe trains and predicts with, (z, y, x)."""
    patch = recipe.train.patch
    z, y, x = patch if len(patch) == 3 else (1, *patch)
    return Window((z, y, x), recipe.infer.overlap, recipe.infer.blend, recipe.infer.batch)


def default_device() -> str:
    """The GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def save_weights(net: nn.Module, path: Path) -> None:
    """Write a net's weights as safetensors."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})


def _load_weights(net: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise BadFile(
            path, "does not exist", "The training has not come to its first validation, or the file was lost."
        )
    try:
        with safe_open(path, framework="pt") as file:
            whole = any(name.startswith(NET_PREFIX) for name in file.keys())  # noqa: SIM118 - not a dict
        tensors = load_file(path)
        if whole:
            tensors = {k.removeprefix(NET_PREFIX): v for k, v in tensors.items() if k.startswith(NET_PREFIX)}
        net.load_state_dict(tensors)
    except (SafetensorError, OSError) as error:
        raise BadFile(path, f"is damaged ({error})", "Copy it again, or train again.") from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise BadFile(path, f"does not fit the net of recipe.yaml ({reason})", "Keep both files of one run.") from None


def read_volume(scan: Volume | Case | str | PathLike[str]) -> Volume:
    """A scan in its canonical orientation, numbers as stored."""
    if isinstance(scan, Volume):
        return scan.canonical()
    return io.read_case(scan, as_stored=True) if isinstance(scan, Case) else io.read(scan, as_stored=True)
