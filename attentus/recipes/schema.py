"""What a recipe may say.

Every field's docstring is its only documentation: help, YAML comments and the reference page are made from it. Values
are checked before anything runs; an unknown key is answered with the nearest known one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from attentus.errors import did_you_mean

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Range = tuple[float, float]
Axis = Literal["z", "y", "x"]
Kept = Annotated[float, Field(gt=0, le=1)]
Between = Annotated[float, Field(gt=0, lt=1)]
Byte = Annotated[int, Field(ge=0, le=255)]
Coded = Annotated[str, Field(pattern=r"^[^:]{1,16}:[^:]{1,16}:.{1,64}$")]
Change = Literal["blur", "low_resolution", "contrast", "brightness", "gamma", "noise"]


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
    """Integer it gets in label files; 0 takes the dataset's own (the smallest of its parts; with `regions`, of those
    parts that no later structure has)."""


class Intensity(Section):
    """How the values of one channel are brought to a common scale, in the order of the fields."""

    window: Range | None = None
    """Clip to this range first: HU in CT, e.g. [-160, 240]."""
    percentiles: Range | None = None
    """Clip to these percentiles of the scan's own values, e.g. [0.5, 99.5]; for MRI, whose values have no unit."""
    normalise: Literal["zscore", "zscore-nonzero", "range", "none"] = "zscore"
    """Then scale: "zscore" to mean 0 and deviation 1 over the whole scan, "zscore-nonzero" over the voxels that are
    not 0 (skull-stripped MRI; the others stay 0), "range" from the window or minimum..maximum to 0..1, or "none"."""
    scope: Literal["scan", "dataset"] = "scan"
    """Where percentiles, mean and deviation come from: each scan, or once for all from the voxels of structures in
    the dataset's labelled scans (nnU-Net's way with CT). "dataset" is written out as `window` and `moments`."""
    moments: tuple[float, Positive] | None = None
    """Mean and deviation that "zscore" uses instead of the scan's own."""

    @model_validator(mode="after")
    def _one_clip(self) -> Intensity:
        if self.window and self.percentiles:
            raise ValueError("window and percentiles exclude each other: choose one")
        if self.scope == "dataset" and self.normalise != "zscore":
            raise ValueError(f'scope "dataset" goes with normalise "zscore", not "{self.normalise}"')
        if self.moments and self.normalise != "zscore":
            raise ValueError(f'moments go with normalise "zscore", not "{self.normalise}"')
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
    crop_block: NotNegative = 0.0
    """mm; look for that box in means over blocks of about this size, and widen it by one: with 10, noise, tubes and the
    shell of a CT table do not count. 0 looks at voxels."""
    crop_size: tuple[Count | None, Count | None, Count | None] | None = None
    """Then widen or narrow that box about its centre to this many voxels of the scan, (z, y, x), never beyond the
    scan; null leaves an axis as it is."""
    size: tuple[Count | None, Count | None, Count | None] | None = None
    """Resample to this many voxels along an axis whatever the spacing becomes, e.g. [null, 256, 256] for slices;
    null leaves an axis to `spacing`."""
    order: Literal[1, 3] = 1
    """Interpolation of images: 1 linear, 3 cubic spline. Labels always take the nearest voxel."""
    anti_alias: NotNegative = 0.0
    """Gaussian blur before resampling, standard deviation in voxels of the scan, on axes that get coarser."""
    intensity: tuple[Intensity, ...] = (Intensity(),)
    """One entry for all channels, or one per channel."""

    @model_validator(mode="after")
    def _blocks_of_something(self) -> Prepare:
        if self.crop_block and self.crop_above is None:
            raise ValueError("crop_block says how crop_above looks: give crop_above, too, e.g. -500 for CT in HU")
        return self


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
    crop: Share = 0.0
    """Largest distance of the patch from the middle of what is cut, as a share of the patch; in whole voxels, so that
    nothing is resampled."""
    affine: Share = 0.0
    """Probability of turning, scaling and shifting a patch (one resampling)."""
    rotate: tuple[NotNegative, NotNegative, NotNegative] = (0.0, 0.0, 0.0)
    """Largest angle about the axes (z, y, x), degrees. In 2D only z turns."""
    scale: tuple[Positive, Positive] = (1.0, 1.0)
    """Smallest and largest zoom."""
    stretch: tuple[Positive, Positive] = (1.0, 1.0)
    """Smallest and largest further zoom of each axis on its own."""
    shift: Share = 0.0
    """Largest shift, as a share of the patch."""
    elastic: Share = 0.0
    """Probability of bending a patch (in one resampling with affine)."""
    bend: NotNegative = 0.0
    """Largest displacement of a control point along each axis, mm; at most 0.4 bend_grid, beyond which tissue could
    fold. The strength is drawn per patch, between zero and this."""
    bend_grid: Positive = 32.0
    """Distance of the control points, mm; a cubic B-spline runs between them."""
    intensity: Share = 0.0
    """Probability of each of the changes of intensity below, drawn per patch and change."""
    chance: dict[Change, Share] = {}
    """Probabilities of single changes that differ from `intensity`, e.g. {blur: 0.2, noise: 0.1}."""
    blur: tuple[NotNegative, NotNegative] = (0.0, 0.0)
    """Smallest and largest standard deviation of a Gaussian blur, in edges of a voxel along the finest axis; equal in
    mm along the others."""
    low_resolution: tuple[Kept, Kept] = (1.0, 1.0)
    """Smallest and largest share of the voxels kept along the finest axis, e.g. [0.5, 1]; the rest is interpolated.
    Coarser axes lose voxels only as far as theirs are smaller than what that leaves."""
    noise: NotNegative = 0.0
    """Largest standard deviation of Gaussian noise, in normalised units."""
    brightness: NotNegative = 0.0
    """Largest offset, in normalised units."""
    contrast: tuple[Positive, Positive] = (1.0, 1.0)
    """Smallest and largest factor on the deviation from the patch's mean."""
    gamma: tuple[Positive, Positive] = (1.0, 1.0)
    """Smallest and largest exponent on the patch's values scaled to 0..1."""
    gamma_mirrored: Share = 0.0
    """Share of the patches with gamma whose values are scaled to 1..0 for it, which spreads or presses the bright end
    instead of the dark one."""

    def probability(self, change: Change) -> float:
        """Of one of the changes of intensity."""
        return self.chance.get(change, self.intensity)

    def acts(self, change: Change) -> bool:
        """Whether its range allows a change of intensity to change anything."""
        limits = getattr(self, change)
        neutral = {"blur": (0, 0), "noise": 0, "brightness": 0}
        return bool(limits != neutral.get(change, (1, 1)))

    @model_validator(mode="after")
    def _acts(self) -> Augment:
        moves = any(self.rotate) or self.shift or (self.scale, self.stretch) != ((1, 1), (1, 1))
        if self.affine and not moves:
            raise ValueError(
                "affine is on but rotate, scale, stretch and shift allow no change: widen one or set affine to 0"
            )
        if self.elastic and not self.bend:
            raise ValueError("elastic is on but bend allows no change: set bend (mm) or set elastic to 0")
        if self.intensity and not any(map(self.acts, get_args(Change))):
            *others, last = get_args(Change)
            raise ValueError(f"intensity is on but {', '.join(others)} and {last} allow no change")
        for change in self.chance:
            if not self.acts(change):
                raise ValueError(f"chance names {change} but {change} allows no change: widen it or leave it out")
        if self.gamma_mirrored and not self.acts("gamma"):
            raise ValueError("gamma_mirrored is on but gamma allows no change: widen gamma or set gamma_mirrored to 0")
        return self

    @model_validator(mode="after")
    def _possible(self) -> Augment:
        for low, high in (self.scale, self.stretch, self.blur, self.low_resolution, self.contrast, self.gamma):
            if low > high:
                raise ValueError(f"a range runs from low to high, got [{low}, {high}]")
        if self.bend > 0.4 * self.bend_grid:
            raise ValueError(
                f"bend {self.bend:g} mm could fold tissue over itself: with bend_grid {self.bend_grid:g} mm at most"
                f" {0.4 * self.bend_grid:g}, or set bend_grid to {self.bend / 0.4:g}"
            )
        return self


class Sampling(Section):
    """Which patches training looks at."""

    foreground: Share = 0.33
    """Share of patches centred on a voxel of a structure, structures taking turns; the others lie anywhere."""
    structures: tuple[str, ...] = ()
    """The structures on which those are centred; all of them if empty."""
    jitter: Share = 0.5
    """How far that voxel may lie off the patch's middle, as a share of half the patch."""
    within: tuple[str, ...] = ()
    """Structures, or other labels of the dataset, in which the other patches are centred, e.g. [liver] to see tumours'
    surroundings; empty: anywhere."""
    cases: Literal["uniform", "balanced"] = "uniform"
    """How a patch's case is chosen: all alike, or a structure first, so that structures few cases have are not rare."""
    only_with: tuple[str, ...] = ()
    """Leave out cases, and for 2D nets slices, that hold none of these structures."""
    empty_slices: Share = 1.0
    """For 2D nets: share of a scan's slices without any structure that take part; they are drawn once per scan."""
    per_case: Count = 1
    """Patches per training case in an epoch."""


class Schedule(Section):
    """How the step size changes over the training."""

    name: Literal["constant", "cosine", "polynomial", "step", "plateau"] = "polynomial"
    """Shape of the fall: cosine and polynomial (power 0.9) end at zero, step multiplies by `factor` at times, plateau
    when validation has not got better for a while."""
    warm_up: Share = 0.0
    """Share of the training over which the step size rises from zero."""
    every: Share = 0.25
    """For "step": share of the training after which the step size drops."""
    epochs: Positive | None = None
    """For "step": drop every so many epochs instead. For "plateau": epochs without a better validation, 10 if null."""
    factor: Positive = 0.5
    """For "step" and "plateau": what the step size is multiplied by."""


class Snapshots(Section):
    """Looks at the attention of held-back cases. Neither the training nor its clock notices."""

    cases: Annotated[int, Field(ge=0)] | tuple[str, ...] = 0
    """Held-back cases that are looked at: names, or so many of those that validate, evenly spread; 0: none."""
    shares: tuple[Share, ...] = (0.02, 0.05, 0.1, 0.4, 1.0)
    """Shares of the training after which they are looked at; 0 is before the first step, 1 the end, planned or not."""
    epochs: tuple[NotNegative, ...] = ()
    """The same in epochs, e.g. [3, 6, 10, 60, 150]; with `shares: []` at these alone."""
    modules: tuple[str, ...] = ()
    """Attention modules, as `attentus nets show` names them; all if empty."""

    @model_validator(mode="after")
    def _some_moment(self) -> Snapshots:
        if self.cases and not self.shares and not self.epochs:
            raise ValueError("cases are to be looked at, but never: name shares or epochs, or set cases to 0")
        return self


class Train(Section):
    """The training itself."""

    patch: tuple[Count, ...]
    """Size of what the net sees at once, (z, y, x) voxels, or (y, x) for 2D nets."""
    batch: Count = 2
    """Patches per forward pass, over all devices."""
    accumulate: Count = 1
    """Batches whose gradients are averaged for one update."""
    steps: Count = 10_000
    """Weight updates."""
    epochs: Count | None = None
    """Instead of `steps`: epochs of `sampling.per_case` patches of every training case."""
    minutes: Positive | None = None
    """End after so many minutes of training and validating, if steps or epochs have not; the schedule follows."""
    patience: Positive | None = None
    """End after so many epochs without a better validation."""
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    """The rule of the updates; "sgd" has Nesterov momentum."""
    momentum: float = Field(default=0.99, ge=0, lt=1)
    """Of sgd."""
    learning_rate: Positive = 1e-3
    """Step size after the warm-up."""
    weight_decay: NotNegative = 0.0
    """L2 for adam and sgd, decoupled for adamw."""
    schedule: Schedule = Schedule()
    """How the step size changes."""
    clip: Positive | None = 12.0
    """Largest norm of the gradient; null does not clip."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Validate and keep a running mean of the weights that forgets by this factor per step, e.g. 0.999; 0: none."""
    validate_every: Count = 250
    """Steps between validations by sliding-window inference."""
    validate_cases: Count = 20
    """Held-back cases, at most, that these validations look at; the final evaluation takes all."""
    snapshots: Snapshots = Snapshots()
    """Attention at some moments of the training."""
    checkpoint_every: Positive = 60.0
    """Seconds between checkpoints from which an interrupted run continues."""
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    """Number type of the forward pass; weights stay fp32. "auto" takes bf16 where GPU or processor compute in it."""
    compile: bool = False
    """Let torch compile the net first: minutes at the start, faster steps afterwards."""
    workers: Count = 1
    """Threads that cut patches while the net trains."""


class Start(Section):
    """Where the weights come from, if not from chance."""

    model: Path | None = None
    """Model folder to fine-tune: weights are taken by name, outputs by the structure's and inputs by the channel's."""
    freeze: tuple[str, ...] = ()
    """Weights that stay as they are: names or beginnings of names, e.g. [encoder]."""


class Split(Section):
    """Which cases train, which validate and, if wanted, which test."""

    folds: int = Field(default=5, ge=2)
    """The cases are dealt into this many folds, subjects kept together."""
    fold: int = Field(default=0, ge=0)
    """The fold held back."""
    seed: int = 0
    """Decides the dealing, so that recipes can be compared on the same folds."""
    sizes: tuple[Positive, Positive] | tuple[Positive, Positive, Positive] | None = None
    """Instead of folds: training, validation and perhaps test cases, as shares or numbers, e.g. [5, 1] or
    [225, 30, 30]. With a test set, the final evaluation looks at that."""
    file: Path | None = None
    """Instead of folds: nnU-Net's splits_final.json, or any JSON or YAML list of {train: [ids], val: [ids]}; `fold`
    is the entry that counts. An entry may have `test`, too."""
    given: bool = False
    """Instead of folds: the splits that come with the dataset, as a list's column `split` or a splits_final.json in the
    folder of an nnU-Net dataset give them; `fold` is the one that counts."""

    @model_validator(mode="after")
    def _fold_exists(self) -> Split:
        if sum(map(bool, (self.sizes, self.file, self.given))) > 1:
            raise ValueError("sizes, file and given exclude each other: choose one")
        if not self.file and not self.given and self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} does not exist: {self.folds} folds are numbered 0 to {self.folds - 1}")
        if self.sizes and self.fold:
            raise ValueError("with sizes there is one split only; another split.seed gives another one")
        return self


class Clean(Section):
    """What is done to one structure of a finished segmentation, in the order of the fields.

    All structures get their thresholds first, as part of the decision. Then one after another, outer ones before those
    inside them, loses components (inside, min_ml, largest); at last holes are filled, outer ones first again. A
    structure here is all of it: with `regions` its inner regions count, and so does what is said to lie `inside` it.
    """

    threshold: Between | None = None
    """A voxel is this structure's where its probability is above this, e.g. 0.4, and no other's; where several with a
    threshold claim it, the one whose probability is the largest multiple of its threshold. null: the most probable of
    those without threshold, background included; with `regions`, 0.5."""
    inside: str | None = None
    """Structure that this one lies in, as a tumour lies in the liver. It then counts as part of that one there, and
    each component of the two together that has nothing of the outer one itself is removed."""
    min_ml: Positive | None = None
    """Components smaller than this are removed, millilitres. Of a single slice or picture: its area times the distance
    of slices (1 mm where the file says none), so that 0.1 ml are 100 square millimetres or pixels."""
    largest: bool = False
    """Only the largest component stays, of equal ones the first."""
    fill_holes: bool | Literal["slices"] = False
    """What it encloses on all sides becomes part of it: background, and voxels of structures that it lies in, but no
    others. "slices" looks at each axial slice alone. What is open to the edge of the scan is no hole."""
    connectivity: Literal["faces", "edges", "corners"] = "corners"
    """What voxels of one component share at least: 6, 18 or 26 neighbours; in a single slice 4, 8 or 8."""
    becomes: str | None = None
    """What removed components become: a structure, or "background". null takes the structure that this one lies in, by
    `regions` or `inside`, and background if there is none."""


class Coding(Section):
    """What DICOM calls one structure. Codes are written SCHEME:CODE:MEANING, e.g. "SCT:10200004:Liver"."""

    type: Coded | None = None
    """What it is; null finds it by the structure's name."""
    category: Coded | None = None
    """What kind of thing that is, e.g. "SCT:49755003:Morphologically Abnormal Structure" for a tumour."""
    region: Coded | None = None
    """The organ it lies in, for what is no organ itself."""
    modifier: Coded | None = None
    """Which of several it is, e.g. "SCT:7771000:Left"."""
    colour: tuple[Byte, Byte, Byte] | None = None
    """Red, green and blue, 0 to 255, that viewers are asked to show it in."""


class Infer(Section):
    """Sliding-window inference, and what follows it."""

    overlap: float = Field(default=0.5, ge=0, lt=1)
    """Share of a window that its neighbour covers, too."""
    blend: Literal["gaussian", "constant"] = "gaussian"
    """How overlapping windows are averaged: weight falling towards the window's edge, or equal."""
    batch: Count = 1
    """Windows per forward pass."""
    mirror: tuple[Axis, ...] = ()
    """Axes to flip: the net sees every combination and the mean is taken (test-time augmentation); costs a factor of
    two for each axis."""
    skip_below: float | None = None
    """Windows in which no channel exceeds this value of the scan are background without being looked at, e.g. -900 HU
    for air."""
    temperature: Positive = 1.0
    """Logits are divided by this before they become probabilities; above 1 makes them less sure."""
    clean: dict[str, Clean] = {}
    """Post-processing by structure, e.g. {liver: {largest: true}, tumour: {inside: liver, min_ml: 0.1}};
    `attentus tune-postprocess` chooses it by measuring."""
    early_exit: Kept | None = None
    """For nested nets (anu-net, unet++): answer a window with the first head whose masks agree with those of the head
    before by at least this Dice, e.g. 0.99, and leave out what lies deeper. null always asks the deepest head."""
    codes: dict[str, Coding] = {}
    """What DICOM results call structures whose names do not say it, e.g. {tumour: {region: "SCT:10200004:Liver"}}."""


class Recipe(Section):
    """Everything that makes a result: data, preparation, net, loss, training, inference."""

    name: str
    """Names the result."""
    about: str = ""
    """What it is, from which paper, for which data."""
    labels: tuple[Structure, ...] = ()
    """What to segment: "all", a list of names, or a mapping such as {kidneys: [left kidney, right kidney]}."""
    regions: bool = False
    """Structures may lie within each other, outer ones first, as the parts of a tumour do: the net has one sigmoid per
    structure instead of a softmax over background and structures."""
    ignore: tuple[str, ...] = ()
    """Labels of the dataset whose voxels neither train nor count in the evaluation of the training."""
    channels: tuple[str, ...] = ()
    """Image channels in the order the net takes them; "all" takes those of the dataset."""
    prepare: Prepare = Prepare()
    net: Net
    loss: Loss = Loss()
    augment: Augment = Augment()
    sampling: Sampling = Sampling()
    train: Train
    start: Start = Start()
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
        if self.regions and not self.labels:
            raise ValueError("regions need labels that say which parts each structure has, outer ones first")
        slices = self.net.dims == 2
        if self.sampling.empty_slices < 1 and not slices:
            raise ValueError("sampling.empty_slices is about slices: it needs net.dims 2")
        names = [structure.name for structure in self.labels]
        for field in ("structures", "only_with"):
            strange = set(getattr(self.sampling, field)) - set(names)
            if names and strange:
                raise ValueError(f"sampling.{field}: {', '.join(sorted(strange))} is not among labels")
        if len(set(names)) < len(names):
            raise ValueError(f"labels name a structure twice: {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _clean_fits(self) -> Recipe:
        clean, names = self.infer.clean, [structure.name for structure in self.labels]
        for name, how in clean.items():
            place = f"infer.clean.{name}"
            given = {place: name, f"{place}.inside": how.inside, f"{place}.becomes": how.becomes}
            for field, other in given.items():
                background = field.endswith("becomes") and other == "background"
                if names and other is not None and other not in names and not background:
                    raise ValueError(f"{field}: '{other}' is not among labels.{did_you_mean(other, names)}")
                if self.regions and other in names and names.index(other) > names.index(name):
                    raise ValueError(f"{field}: '{other}' comes after '{name}', but with regions outer ones come first")
            around = _around(name, clean)
            if name in around:
                raise ValueError(f"{place}.inside: {' in '.join([name, *around])} is a circle")
            if how.becomes == name or (how.becomes in clean and name in _around(str(how.becomes), clean)):
                raise ValueError(f"{place}.becomes: '{name}' cannot become '{how.becomes}', which is part of it")
        return self

    @model_validator(mode="after")
    def _codes_fit(self) -> Recipe:
        names = [structure.name for structure in self.labels]
        for name in self.infer.codes if names else ():
            if name not in names:
                raise ValueError(f"infer.codes: '{name}' is not among labels.{did_you_mean(name, names)}")
        return self

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the net's outputs stand for: background and structures, or with `regions` the structures alone."""
        names = tuple(structure.name for structure in self.labels)
        return names if self.regions else ("background", *names)

    @classmethod
    def load(cls, source: str | Path, overrides: list[str] | None = None) -> Recipe:
        """Load a recipe by the name of a shipped one or from a YAML file.

        Args:
            source: name (see `attentus recipe list`) or path, with @VARIANT behind it for a variant.
            overrides: changes such as "train.steps=500", as `--set` takes them.

        Raises:
            RecipeError: no such recipe, malformed YAML, unknown keys, wrong or contradictory values; the message
                names each field.
        """
        from attentus.recipes.load import load

        return load(source, overrides or [])


def _around(name: str, clean: dict[str, Clean]) -> list[str]:
    """The structures that a structure is said to lie in, inner ones first; ends where it comes back to one."""
    found: list[str] = []
    while name in clean and (outer := clean[name].inside) is not None and outer not in found:
        found.append(outer)
        name = outer
    return found
