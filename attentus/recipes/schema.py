"""What a recipe may say.

Every field's docstring is its only documentation: help, YAML comments and the reference page are made from it. Values
are checked before anything runs; an unknown key is answered with the nearest known one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Range = tuple[float, float]
Axis = Literal["z", "y", "x"]


class Section(BaseModel):
    """A part of a recipe: frozen, no unknown keys, field docstrings kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class Structure(Section):
    """One thing to segment."""

    name: str
    """What it is called in results."""
    parts: tuple[str, ...] = ()
    """Labels of the dataset that form it, e.g. [left kidney, right kidney]; its own name if empty."""
    value: int = Field(default=0, ge=0, le=65535)
    """Integer it gets in label files; 0 takes the dataset's own (the smallest of its parts)."""


class Intensity(Section):
    """How the values of one channel are brought to a common scale, in the order of the fields."""

    window: Range | None = None
    """Clip to this range first: HU in CT, e.g. [-160, 240]."""
    percentiles: Range | None = None
    """Clip to these percentiles of the scan's own values, e.g. [0.5, 99.5]; for MRI, whose values have no unit."""
    normalise: Literal["zscore", "zscore-nonzero", "range", "none"] = "zscore"
    """Then scale: "zscore" to mean 0 and deviation 1 over the whole scan, "zscore-nonzero" over the voxels that are
    not 0 (skull-stripped MRI; the others stay 0), "range" from the window or minimum..maximum to 0..1, or "none"."""

    @model_validator(mode="after")
    def _one_clip(self) -> Intensity:
        if self.window and self.percentiles:
            raise ValueError("window and percentiles exclude each other: choose one")
        for low, high in filter(None, (self.window, self.percentiles)):
            if not low < high:
                raise ValueError(f"a range runs from low to high, got [{low}, {high}]")
        return self


class Prepare(Section):
    """From the scan as read to what the net sees; training and inference share it."""

    spacing: Literal["keep", "median"] | tuple[Positive | None, Positive | None, Positive | None] = "keep"
    """Voxel size (z, y, x) mm to resample to; null keeps an axis as it is, "median" takes the dataset's median."""
    crop_above: float | None = None
    """Cut to the box of voxels above this value in any channel (0 for skull-stripped MRI, -500 HU to drop air)."""
    order: Literal[1, 3] = 1
    """Interpolation of images: 1 linear, 3 cubic spline. Labels always take the nearest voxel."""
    anti_alias: NotNegative = 0.0
    """Gaussian blur before resampling, standard deviation in voxels of the scan, on axes that get coarser."""
    intensity: tuple[Intensity, ...] = (Intensity(),)
    """One entry for all channels, or one per channel."""


class Net(Section):
    """Which network."""

    name: str
    """See `attentus.nets.names()`."""
    dims: Literal[2, 3] = 3
    """3 looks at volumes, 2 at axial slices."""
    options: dict[str, Any] = {}
    """Options of that net, `preset` among them."""


class Loss(Section):
    """What training minimises."""

    name: str = "dice-cross-entropy"
    """See `attentus.losses.names()`."""
    options: dict[str, Any] = {}
    """Options of that loss."""
    head_weights: tuple[NotNegative, ...] | None = None
    """Weights of the net's outputs, final one first; null takes its paper's, or halves from one to the next."""


class Augment(Section):
    """Random changes to training patches. All zero and empty: none."""

    flip: tuple[Axis, ...] = ()
    """Axes that may be mirrored, each with probability 1/2. Left and right organs forbid x."""
    affine: Share = 0.0
    """Probability of turning, scaling and shifting a patch (one resampling)."""
    rotate: tuple[NotNegative, NotNegative, NotNegative] = (0.0, 0.0, 0.0)
    """Largest angle about the axes (z, y, x), degrees. In 2D only z turns."""
    scale: tuple[Positive, Positive] = (1.0, 1.0)
    """Smallest and largest zoom."""
    shift: Share = 0.0
    """Largest shift, as a share of the patch."""
    intensity: Share = 0.0
    """Probability of each of the changes of intensity below, drawn per patch and change."""
    noise: NotNegative = 0.0
    """Largest standard deviation of Gaussian noise, in normalised units."""
    brightness: NotNegative = 0.0
    """Largest offset, in normalised units."""
    contrast: tuple[Positive, Positive] = (1.0, 1.0)
    """Smallest and largest factor on the deviation from the patch's mean."""
    gamma: tuple[Positive, Positive] = (1.0, 1.0)
    """Smallest and largest exponent on the patch's values scaled to 0..1."""

    @model_validator(mode="after")
    def _acts(self) -> Augment:
        moves = any(self.rotate) or self.scale != (1.0, 1.0) or self.shift
        if self.affine and not moves:
            raise ValueError("affine is on but rotate, scale and shift allow no change: widen one or set affine to 0")
        changes = self.noise or self.brightness or self.contrast != (1.0, 1.0) or self.gamma != (1.0, 1.0)
        if self.intensity and not changes:
            raise ValueError("intensity is on but noise, brightness, contrast and gamma allow no change")
        for low, high in (self.scale, self.contrast, self.gamma):
            if low > high:
                raise ValueError(f"a range runs from low to high, got [{low}, {high}]")
        return self


class Schedule(Section):
    """How the step size changes over the training."""

    name: Literal["constant", "cosine", "polynomial", "step"] = "polynomial"
    """Shape of the fall: cosine and polynomial (power 0.9) end at zero, step multiplies by `factor` at times."""
    warm_up: Share = 0.0
    """Share of the training over which the step size rises from zero."""
    every: Share = 0.25
    """For "step": share of the training after which the step size drops."""
    factor: Positive = 0.5
    """For "step": what it is multiplied by."""


class Train(Section):
    """The training itself."""

    patch: tuple[Count, ...]
    """Size of what the net sees at once, (z, y, x) voxels, or (y, x) for 2D nets."""
    batch: Count = 2
    """Patches per step."""
    steps: Count = 10_000
    """Weight updates."""
    foreground: Share = 0.33
    """Share of patches centred on a voxel of a structure, structures taking turns; the others lie anywhere."""
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    """The rule of the updates; "sgd" has Nesterov momentum 0.99."""
    learning_rate: Positive = 1e-3
    """Step size after the warm-up."""
    weight_decay: NotNegative = 0.0
    """L2 for adam and sgd, decoupled for adamw."""
    schedule: Schedule = Schedule()
    """How the step size changes."""
    clip: Positive | None = 12.0
    """Largest norm of the gradient; null does not clip."""
    validate_every: Count = 250
    """Steps between validations by sliding-window inference."""
    validate_cases: Count = 20
    """Held-back cases, at most, that these validations look at; the final evaluation takes all."""
    checkpoint_every: Positive = 60.0
    """Seconds between checkpoints from which an interrupted run continues."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number type of the forward pass. bf16 is faster where the processor has it."""
    workers: Count = 1
    """Threads that cut patches while the net trains."""


class Split(Section):
    """Which cases train and which validate."""

    folds: int = Field(default=5, ge=2)
    """The cases are dealt into this many folds, subjects kept together."""
    fold: int = Field(default=0, ge=0)
    """The fold held back."""
    seed: int = 0
    """Decides the dealing, so that recipes can be compared on the same folds."""

    @model_validator(mode="after")
    def _fold_exists(self) -> Split:
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} does not exist: {self.folds} folds are numbered 0 to {self.folds - 1}")
        return self


class Infer(Section):
    """Sliding-window inference."""

    overlap: float = Field(default=0.5, ge=0, lt=1)
    """Share of a window that its neighbour covers, too."""
    blend: Literal["gaussian", "constant"] = "gaussian"
    """How overlapping windows are averaged: weight falling towards the window's edge, or equal."""
    batch: Count = 1
    """Windows per forward pass."""


class Recipe(Section):
    """Everything that makes a result: data, preparation, net, loss, training, inference."""

    name: str
    """Names the result."""
    about: str = ""
    """What it is, from which paper, for which data."""
    labels: tuple[Structure, ...] = ()
    """What to segment: "all", a list of names, or a mapping such as {kidneys: [left kidney, right kidney]}."""
    channels: tuple[str, ...] = ()
    """Image channels in the order the net takes them; "all" takes those of the dataset."""
    prepare: Prepare = Prepare()
    net: Net
    loss: Loss = Loss()
    augment: Augment = Augment()
    train: Train
    split: Split = Split()
    infer: Infer = Infer()
    seed: int = 0
    """Decides everything random: weights, patches, augmentation."""

    @field_validator("labels", mode="before")
    @classmethod
    def _spellings(cls, given: Any) -> Any:
        if given in ("all", None):
            return ()
        if isinstance(given, dict):
            return [{"name": k, "parts": [v] if isinstance(v, str) else v or ()} for k, v in given.items()]
        if isinstance(given, list | tuple):
            return [{"name": item} if isinstance(item, str) else item for item in given]
        return given

    @field_validator("channels", mode="before")
    @classmethod
    def _all_channels(cls, given: Any) -> Any:
        return () if given in ("all", None) else given

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if len(self.train.patch) != self.net.dims:
            axes = "(z, y, x)" if self.net.dims == 3 else "(y, x)"
            raise ValueError(
                f"train.patch has {len(self.train.patch)} sizes but net.dims is {self.net.dims}: give {axes} voxels"
            )
        if self.net.dims == 2 and (any(self.augment.rotate[1:]) or "z" in self.augment.flip):
            raise ValueError("augment.rotate and augment.flip may only turn about z and flip y or x when net.dims is 2")
        if self.channels and len(self.prepare.intensity) not in (1, len(self.channels)):
            raise ValueError(
                f"prepare.intensity has {len(self.prepare.intensity)} entries for {len(self.channels)} channels:"
                " give one for all or one each"
            )
        names = [structure.name for structure in self.labels]
        if len(set(names)) < len(names):
            raise ValueError(f"labels name a structure twice: {', '.join(names)}")
        return self

    @classmethod
    def load(cls, source: str | Path, overrides: list[str] | None = None) -> Recipe:
        """Load a recipe by the name of a shipped one or from a YAML file.

        Args:
            source: name (see `attentus recipe list`) or path.
            overrides: changes such as "train.steps=500", as `--set` takes them.

        Raises:
            RecipeError: no such recipe, malformed YAML, unknown keys, wrong or contradictory values; the message
                names each field.
        """
        from attentus.recipes.load import load

        return load(source, overrides or [])
