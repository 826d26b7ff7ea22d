"""A paper's recipe made to fit the data and the budget at hand: by rules, the same for all methods, which are told.

fitted      labels are called as the data call them, and what the data do not have is left out
to_values   windows in Hounsfield units are for CT
to_scans    no coarser and no larger than the scans are
small       for budgets of minutes: narrower nets, smaller patches, a schedule that follows the clock
"""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from attentus import nets
from attentus.errors import RecipeError
from attentus.nets.dpc_net import PFE_WIDTHS, PLAIN_WIDTHS
from attentus.nets.plain_unet import WIDTHS as NNU_NET_WIDTHS
from attentus.nets.ra_unet import WIDTHS as RA_WIDTHS
from attentus.recipes import build

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attentus.recipes import Recipe
    from attentus.reproduce.data import Names
    from attentus.types import Grid

    Tree = dict[str, Any]

SIDE = {2: 96, 3: 64}
"""Largest side of a small patch, by the net's number of axes."""
BATCH = {2: 8, 3: 2}
"""Largest batch with small patches."""
RATE, WARM_UP = 2e-3, 0.05
"""Step size of small trainings, which have no time for the papers' small ones, and the share over which it rises."""
FOREGROUND = 0.5
"""Share of small 3D patches that are centred on a structure, at least."""
OVERLAP = 0.25
"""Of windows in prediction, at most, where nets are small."""
NEVER = 1_000_000
"""Steps that no small training comes to: the clock ends it."""
SPARE = 60_000
"""Integers from here on are no label's in any dataset."""
PERCENTILES = (0.5, 99.5)
"""Of the values of a scan without a unit."""
TOO_LARGE = 2.0
"""A patch that is so many times as long as the scans, along every axis, is meant for other scans."""


class Narrow(NamedTuple):
    """How a net of the catalogue becomes narrower, so that its first level has about 8 channels."""

    by: int
    divided: tuple[str, ...] = ("width",)
    multiplied: tuple[str, ...] = ()


NARROW = {
    **dict.fromkeys(("anu-net", "unet++", "classic-unet", "r2u-net", "attention-r2u-net", "unet-3d"), Narrow(4)),
    "unet": Narrow(2, (), ("feature_scale",)),
    "attention-unet": Narrow(2, (), ("feature_scale",)),
    "ra-unet": Narrow(4, ("widths",)),
    "msconvlstm-att": Narrow(2, ("widths", "channels")),
    "fcn": Narrow(8, ("fc_width",), ("width_divisor",)),
    "dpc-net": Narrow(4, ("widths",)),
    "daf": Narrow(4, ("width", "level_width", "fused_width")),
    "plain-unet": Narrow(4, ("widths",)),
}
NARROW_2D = {"ra-unet": Narrow(2, ("widths",))}
"""Where the net of slices is narrower from the start."""
LEAST = 4
"""Channels that a level keeps."""

RULES = (
    "Nets are narrower: widths are divided by 4 (Attention U-Net and its U-Nets, MSConvLSTM-Att, RA-UNet-I: by 2; FCN:"
    " by 8), so that the first level has about 8 channels. Capacities keep their order within a paper.",
    f"Patches have sides of at most {SIDE[2]} (2D) and {SIDE[3]} (3D). Where the recipe resamples to a size or spacing,"
    " that becomes coarser by the same factor, so that a patch shows as much of the patient; elsewhere a patch shows"
    " less. Images are interpolated linearly.",
    f"Batches have at most {BATCH[2]} (2D) and {BATCH[3]} (3D) patches, and no gradients are accumulated.",
    f"Step sizes rise to {RATE:g} over the first {WARM_UP:.0%} of the time and fall to zero at its end, with Adam.",
    f"In 3D at least {FOREGROUND:.0%} of the patches are centred on a structure.",
    "The weights at the end of the time are taken; no validation chooses earlier ones.",
    f"Windows overlap by at most {OVERLAP:.0%} in prediction.",
    "Loss, augmentation, labels, intensities and splits are those of the recipes.",
)
"""What `small` does, in sentences."""


def fitted(recipe: Recipe, names: Names, *, keep: bool = False) -> Recipe:
    """The recipe with labels as the data call them; structures of which the data have nothing are left out.

    Args:
        recipe: as it is shipped.
        names: see `data.label_names`.
        keep: leave structures that the data lack where they are, as fine-tuning needs it.

    Raises:
        RecipeError: nothing is left to segment.
    """
    tree = recipe.model_dump()
    known = {structure.name for structure in recipe.labels}
    labels = []
    for structure in recipe.labels:
        own = structure.parts or (structure.name,)
        parts = list(dict.fromkeys(label for part in own for label in names.get(part, ())))
        if parts or keep:
            labels.append({**structure.model_dump(), "parts": parts or own})
    if recipe.regions:
        _numbered(labels)
    left = {label["name"] for label in labels}
    if not left:
        raise RecipeError(f"the data have none of {', '.join(sorted(known))}")
    sampling = tree["sampling"]
    sampling["within"] = [
        name for given in sampling["within"] for name in ((given,) if given in left else names.get(given, ()))
    ]
    for field in ("structures", "only_with"):
        sampling[field] = [name for name in sampling[field] if name in left]
    tree["infer"]["clean"] = {
        name: {**how, **{field: None for field in ("inside", "becomes") if how[field] not in (*left, "background")}}
        for name, how in tree["infer"]["clean"].items()
        if name in left
    }
    return build({**tree, "labels": labels}, recipe.name)


def _numbered(labels: list[Tree]) -> None:
    """Give outer structures that have no voxel of their own left, because inner ones have them all, an integer."""
    inner: set[str] = set()
    for place, label in reversed(list(enumerate(labels))):
        if set(label["parts"]) <= inner:
            label["value"] = SPARE + place
        inner |= set(label["parts"])


def to_values(recipe: Recipe, *, hounsfield: bool) -> Recipe:
    """The recipe for values without a unit: each scan is clipped to its own percentiles, not to a window in HU.

    Args:
        recipe: of a paper.
        hounsfield: whether values are Hounsfield units, so that nothing has to change.
    """
    if hounsfield or not any(one.window or one.scope == "dataset" for one in recipe.prepare.intensity):
        return recipe
    own = [
        {"percentiles": PERCENTILES, "normalise": one.normalise}
        if one.window or one.scope == "dataset"
        else one.model_dump()
        for one in recipe.prepare.intensity
    ]
    tree = recipe.model_dump()
    return build({**tree, "prepare": {**tree["prepare"], "intensity": own}}, recipe.name)


def to_scans(recipe: Recipe, grids: Sequence[Grid]) -> Recipe:
    """The recipe for scans of other anatomy: crops of a few centimetres are not brought to the grid of a whole body.

    Where a patch would be twice as long as the scans along every axis, voxels keep their size and patches get that of
    the scans; sizes in voxels become no larger than the scans.

    Args:
        recipe: of a paper.
        grids: of the scans; without any nothing changes.
    """
    if not grids:
        return recipe
    tree, dims = recipe.model_dump(), recipe.net.dims
    multiple = multiple_of(recipe)
    shape = [median(grid.shape[axis] for grid in grids) for axis in range(3)]
    prepare, patch = tree["prepare"], [*recipe.train.patch]
    if prepare["size"] is not None:
        size = [n if n is None else min(n, _up(shape[axis], multiple)) for axis, n in enumerate(prepare["size"])]
        for axis in range(dims):
            before, after = prepare["size"][axis - dims], size[axis - dims]
            if before is not None and after is not None:
                patch[axis] = min(patch[axis], _up(patch[axis] * after / before, multiple))
        prepare["size"] = size
    elif isinstance(prepare["spacing"], tuple) and _meant_for_larger(patch, prepare["spacing"], grids):
        prepare["spacing"] = "keep"
        prepare["anti_alias"] = 0.0
        patch = [min(n, _near(shape[axis - dims], multiple)) for axis, n in enumerate(patch)]
    tree["train"]["patch"] = patch
    return build(tree, recipe.name)


def small(recipe: Recipe) -> Recipe:
    """The recipe for a budget of minutes; see `RULES`."""
    tree, dims = recipe.model_dump(), recipe.net.dims
    tree["net"] = narrowed(tree["net"])
    before = recipe.train.patch
    factor = max(1.0, max(before) / SIDE[dims])
    multiple = multiple_of(recipe)
    patch = [min(n, _up(n / factor, multiple)) if n % multiple == 0 else _up(n / factor, multiple) for n in before]
    tree["prepare"] = _coarser(tree["prepare"], before, patch)
    how = tree["train"]
    how |= {"patch": patch, "batch": min(recipe.train.batch, BATCH[dims]), "accumulate": 1, "ema": 0.0}
    how |= {"steps": NEVER, "epochs": None, "minutes": None, "patience": None, "validate_every": NEVER}
    how |= {"optimiser": "adam", "learning_rate": RATE, "schedule": {"name": "polynomial", "warm_up": WARM_UP}}
    how["validate_cases"] = 1
    if dims == 3:
        tree["sampling"]["foreground"] = max(recipe.sampling.foreground, FOREGROUND)
    tree["infer"]["overlap"] = min(recipe.infer.overlap, OVERLAP)
    tree["infer"]["batch"] = max(min(recipe.infer.batch, BATCH[2]), BATCH[dims])
    return build(tree, recipe.name)


def narrowed(net: Tree) -> Tree:
    """The same net with narrower levels; a preset becomes the options it stands for."""
    name, options = spelt_out(net)
    if name not in NARROW:
        return net
    how, known = (NARROW_2D if net["dims"] == 2 else {}).get(name, NARROW[name]), nets.options(name)
    changes: Tree = {}
    for option in how.divided:
        value: Any = options.get(option, known[option]) or _published_widths(name, net["dims"], options)
        changes[option] = [_divided(n, how.by) for n in value] if _several(value) else _divided(value, how.by)
    for option in how.multiplied:
        changes[option] = options.get(option, known[option]) * how.by
    if name == "ra-unet":
        changes["momentum"] = 0.1  # Keras's running means need more steps than there are
    return {**net, "name": name, "options": {**options, **changes}}


def spelt_out(net: Tree) -> tuple[str, Tree]:
    """Name and options of a net whose preset is replaced by what it stands for."""
    options = dict(net["options"])
    preset = options.pop("preset", None)
    card = nets.card(net["name"])
    if preset is None or card is None:
        return net["name"], options
    named = card.presets[preset]
    return named.net or net["name"], {**named.options, **options}


def multiple_of(recipe: Recipe) -> int:
    """What sides of a patch are multiples of; 16 for nets that take any, so that patches of methods are alike."""
    how = recipe.net
    with torch.device("meta"):
        net = nets.create(how.name, how.dims, 1, 2, **how.options)
    return max(int(getattr(net, "multiple", 1)), 16)


def _coarser(prepare: Tree, before: Sequence[int], after: Sequence[int]) -> Tree:
    """Preparation for smaller patches that shall show as much as before."""
    shrunk = [old / new for old, new in zip(before, after, strict=True)]
    factors = [1.0] * (3 - len(shrunk)) + shrunk
    patch = [None] * (3 - len(after)) + list(after)
    changes: Tree = {"order": 1}
    if prepare["size"] is not None:
        changes["size"] = [n and round(n / f) for n, f in zip(prepare["size"], factors, strict=True)]
    elif isinstance(prepare["spacing"], tuple):
        changes["spacing"] = [n and round(n * f, 4) for n, f in zip(prepare["spacing"], factors, strict=True)]
    elif prepare["crop_size"] is not None and len(after) == 2:  # whole slices of a crop
        changes["size"] = patch
    return {**prepare, **changes}


def _meant_for_larger(patch: Sequence[int], spacing: Sequence[float | None], grids: Sequence[Grid]) -> bool:
    extents = [median(grid.shape[axis] * grid.spacing[axis] for grid in grids) for axis in range(3)]
    pairs = zip(patch, spacing, extents, strict=True) if len(patch) == 3 else ()
    lengths = [n * step / extent for n, step, extent in pairs if step is not None]
    return bool(lengths) and min(lengths) >= TOO_LARGE


def _published_widths(name: str, dims: int, options: Mapping[str, Any]) -> tuple[int, ...]:
    """What `widths=None` means."""
    if name == "dpc-net":
        return PFE_WIDTHS if options.get("pfe", True) else PLAIN_WIDTHS
    return (RA_WIDTHS if name == "ra-unet" else NNU_NET_WIDTHS)[dims]


def _several(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _divided(width: int, by: int) -> int:
    return max(LEAST, width // by)


def _up(length: float, multiple: int) -> int:
    """The next multiple, at least one."""
    return max(1, math.ceil(round(length / multiple, 6))) * multiple


def _near(length: float, multiple: int) -> int:
    """The nearest multiple, at least one."""
    return max(1, round(length / multiple)) * multiple
