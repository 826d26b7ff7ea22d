"""Patches per second and core that are augmented by us, by batchgeneratorsv2 (nnU-Net's) and by MONAI.

    pip install monai                                                              # a peer that is missing is left out
    pip install --no-deps batchgeneratorsv2 fft-conv-pytorch scikit-image lazy-loader pandas
    python benchmarks/augment.py [--quick] [--only NAME] [--turns 9] [--processor-time] [--json]

Each row is one change, or the whole list, applied to the same patches: image linearly, labels by the nearest voxel, cut
from the same larger region, one thread. The three take turns in one process; a ratio is the faster peer's time over
ours, from medians (means where changes come by chance). What is given stays as it is: where nothing moves, a peer that
works in place gets a copy, in its time. Labels are bytes for us, floats for the peers, who could not sample bytes.

Changes are made with probability 1, but for the last row: there with those of nnU-Net (affine 0.36 for its 0.2 each of
turning and scaling, noise 0.1, blur 0.2, brightness and contrast 0.15 each, low resolution 0.25, gamma 0.37 for its 0.1
mirrored and 0.3 not; nothing elastic). Elastic fields are as smooth as each library makes them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import statistics
import sys
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from attentus.recipes import Augment
from attentus.transforms import augment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

ANGLE, ZOOM, BEND, BLUR, KEPT, CONTRAST, GAMMA, NOISE, OFFSET = (
    30,
    (0.7, 1.4),
    8,
    (0.5, 1),
    (0.5, 1),
    0.25,
    0.4,
    0.3,
    0.2,
)
LIST = ("affine", "elastic", "noise", "blur", "brightness", "contrast", "low_resolution", "gamma", "flip")
NNUNET = {
    "affine": 0.36,
    "noise": 0.1,
    "blur": 0.2,
    "brightness": 0.15,
    "contrast": 0.15,
    "low_resolution": 0.25,
    "gamma": 0.37,
    "flip": 0.5,
}


@dataclass(frozen=True)
class Row:
    """What is done.

    Args:
        name: how it is called in the table.
        chances: change to probability.
        turn_z_only: turn about z only.
    """

    name: str
    chances: dict[str, float]
    turn_z_only: bool = False

    @property
    def in_space(self) -> bool:
        """Whether voxels move, so that everyone fills new memory."""
        return bool({"flip", "affine", "elastic"} & set(self.chances))

    @property
    def by_chance(self) -> bool:
        return any(0 < chance < 1 for name, chance in self.chances.items() if name != "flip")


ROWS = (
    Row("flip", {"flip": 0.5}),
    Row("affine", {"affine": 1}),
    Row("affine about z", {"affine": 1}, turn_z_only=True),
    Row("elastic", {"elastic": 1}),
    *(Row(name.replace("_", " "), {name: 1}) for name in LIST[2:-1]),
    Row("all, always", dict.fromkeys(LIST, 1) | {"flip": 0.5}),
    Row("all, nnU-Net's chances", NNUNET),
)


@dataclass(frozen=True)
class Case:
    patch: tuple[int, ...]
    channels: int
    batch: int

    @property
    def label(self) -> str:
        size = " x ".join(map(str, self.patch))
        return f"{size}, {self.channels} channel{'s' if self.channels > 1 else ''}, batch of {self.batch}"


CASES = (
    Case((64, 64, 64), 1, 2),
    Case((64, 128, 128), 1, 2),
    Case((64, 128, 128), 2, 2),
    Case((256, 256), 1, 8),
)
QUICK = (Case((16, 32, 32), 1, 2), Case((64, 64), 1, 2))


def recipe(row: Row, dims: int) -> Augment:
    """Our settings."""
    p = row.chances
    angles = (ANGLE, 0, 0) if row.turn_z_only or dims == 2 else (ANGLE,) * 3
    return Augment(
        flip=("z", "y", "x")[-dims:] if "flip" in p else (),
        affine=p.get("affine", 0),
        rotate=angles,
        scale=ZOOM,
        elastic=p.get("elastic", 0),
        bend=BEND,
        chance={
            name: p.get(name, 0) for name in ("blur", "low_resolution", "contrast", "brightness", "gamma", "noise")
        },
        blur=BLUR,
        low_resolution=KEPT,
        noise=NOISE,
        brightness=OFFSET,
        contrast=(1 - CONTRAST, 1 + CONTRAST),
        gamma=(1 - GAMMA, 1 + GAMMA),
        gamma_mirrored=0.25,
    )


def ours(row: Row, case: Case) -> Callable[[Tensor, Tensor], object]:
    how, spacing = recipe(row, len(case.patch)), (1.0,) * len(case.patch)
    generator = torch.Generator().manual_seed(0)

    def run(images: Tensor, labels: Tensor) -> object:
        drawn = augment.draw(how, len(images), case.patch, spacing, generator)
        return augment.apply(images, labels[:, 0], drawn, case.patch)

    return run


def batchgenerators(row: Row, case: Case) -> Callable[[Tensor, Tensor], object]:
    from batchgeneratorsv2.transforms.intensity.brightness import BrightnessAdditiveTransform
    from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.random import RandomTransform

    p, dims, angle = row.chances, len(case.patch), math.radians(ANGLE)

    def turn(dim: int, **_: object) -> float:  # its first angle is about our z
        return 0.0 if row.turn_z_only and dim > 0 else float(torch.empty(1).uniform_(-angle, angle))

    moved = p.get("affine", 0)
    spatial = SpatialTransform(
        case.patch,
        patch_center_dist_from_border=0,
        random_crop=False,
        p_elastic_deform=p.get("elastic", 0),
        elastic_deform_scale=(0.1, 0.2),
        elastic_deform_magnitude=(0, BEND),
        p_rotation=moved,
        rotation=turn,
        p_scaling=1 if moved == 1 else 0,
        scaling=ZOOM,
        p_synchronize_scaling_across_axes=1,
        mode_seg="nearest",
        padding_mode_image="border",
        border_mode_seg="border",
    )
    both = {"synchronize_channels": True, "p_per_channel": 1}
    contrast = (1 - CONTRAST, 1 + CONTRAST)
    changes: dict[str, Any] = {
        "noise": GaussianNoiseTransform((0, NOISE), **both),
        "blur": GaussianBlurTransform(BLUR, synchronize_axes=True, benchmark=True, p_per_channel=1),
        "brightness": BrightnessAdditiveTransform(0, OFFSET, **both),
        "contrast": ContrastTransform(contrast, preserve_range=False, **both),
        "low_resolution": SimulateLowResolutionTransform(KEPT, synchronize_axes=True, ignore_axes=(), **both),
        "gamma": GammaTransform((1 - GAMMA, 1 + GAMMA), p_invert_image=0.25, p_retain_stats=0, **both),
    }
    steps: list[Any] = [spatial] if {"affine", "elastic"} & set(p) else []
    steps += [RandomTransform(change, p[name]) for name, change in changes.items() if name in p]
    steps += [MirrorTransform(tuple(range(dims)))] if "flip" in p else []
    whole = ComposeTransforms(steps)

    def run(images: Tensor, labels: Tensor) -> object:
        return [whole(image=i, segmentation=s) for i, s in zip(images, labels, strict=True)]

    return run


def monai(row: Row, case: Case) -> Callable[[Tensor, Tensor], object]:
    from monai import transforms as t

    p, dims, angle = row.chances, len(case.patch), math.radians(ANGLE)
    keys, modes = ("image", "label"), ("bilinear", "nearest")
    turned = angle if dims == 2 else [angle, 0, 0] if row.turn_z_only else [angle] * 3
    affine = {"rotate_range": turned, "scale_range": [(ZOOM[0] - 1, ZOOM[1] - 1)] * dims}
    common: dict[str, Any] = {"keys": keys, "spatial_size": case.patch, "mode": modes, "padding_mode": "border"}
    steps: list[Any] = []
    if "elastic" in p:
        common |= {"prob": p["elastic"], **(affine if "affine" in p else {})}
        if dims == 3:
            steps.append(t.Rand3DElasticd(sigma_range=(5, 8), magnitude_range=(0, 100), **common))
        else:
            steps.append(t.Rand2DElasticd(spacing=(32, 32), magnitude_range=(0, BEND), **common))
    elif "affine" in p:
        steps.append(t.RandAffined(prob=p["affine"], cache_grid=True, **affine, **common))
    changes: dict[str, Callable[..., Any]] = {
        "noise": lambda **k: t.RandGaussianNoised(std=NOISE, **k),
        "blur": lambda **k: t.RandGaussianSmoothd(sigma_x=BLUR, sigma_y=BLUR, sigma_z=BLUR, **k),
        "brightness": lambda **k: t.RandShiftIntensityd(offsets=OFFSET, **k),
        "contrast": lambda **k: t.RandScaleIntensityFixedMeand(factors=CONTRAST, **k),
        "low_resolution": lambda **k: t.RandSimulateLowResolutiond(
            zoom_range=KEPT, upsample_mode="trilinear" if dims == 3 else "bilinear", **k
        ),
        "gamma": lambda **k: t.RandAdjustContrastd(gamma=(1 - GAMMA, 1 + GAMMA), **k),
    }
    steps += [change(keys="image", prob=p[name]) for name, change in changes.items() if name in p]
    steps += [t.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(dims)] if "flip" in p else []
    whole = t.Compose(steps)

    def run(images: Tensor, labels: Tensor) -> object:
        return [whole({"image": i, "label": s}) for i, s in zip(images, labels, strict=True)]

    return run


SIDES = {
    "ours": ("attentus", "", ours),
    "batchgeneratorsv2": (
        "batchgeneratorsv2",
        "--no-deps batchgeneratorsv2 fft-conv-pytorch scikit-image lazy-loader pandas",
        batchgenerators,
    ),
    "MONAI": ("monai", "monai", monai),
}
"""The package, what `pip install` needs, how its changes are made."""


def present() -> list[str]:
    """Sides that are installed; says what to install for the others."""
    found = [side for side, (package, _, _) in SIDES.items() if importlib.util.find_spec(package)]
    for side in SIDES.keys() - set(found):
        print(f"no {side} to measure against; pip install {SIDES[side][1]}", file=sys.stderr)
    return found


def measure(row: Row, case: Case, sides: Sequence[str], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds per patch of each side, turn by turn."""
    jobs = {side: SIDES[side][2](row, case) for side in sides}
    how = recipe(row, len(case.patch))
    source = augment.source_size(case.patch, how, (1.0,) * len(case.patch))
    images = torch.randn(case.batch, case.channels, *source)
    labels = torch.randint(0, 4, (case.batch, 1, *source)).float()
    small = labels.to(torch.uint8)
    clock = time.process_time if arguments.processor_time else time.perf_counter
    turns = arguments.turns * (4 if row.by_chance else 1)
    taken: dict[str, list[float]] = {side: [] for side in jobs}
    for turn in range(turns + 1):
        for side in list(jobs)[:: -1 if turn % 2 else 1]:
            given = images.clone()
            started = clock()
            given = images.clone() if side != "ours" and not row.in_space else given
            jobs[side](given, small if side == "ours" else labels)
            taken[side].append((clock() - started) / case.batch)
    return {side: times[1:] for side, times in taken.items()}  # the first turn warms up


def describe(row: Row, found: dict[str, list[float]], sides: Sequence[str]) -> str:
    typical = statistics.fmean if row.by_chance else statistics.median
    seconds = {side: typical(found[side]) for side in sides}
    cells = "".join(f"{1 / seconds[side]:>20.1f}" for side in sides)
    peers = [seconds[side] for side in sides if side != "ours"]
    return f"{row.name:<24}{cells}" + (f"{min(peers) / seconds['ours']:>10.1f}" if peers else "")


def main(arguments: argparse.Namespace) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    sides = present()
    for case in QUICK if arguments.quick else CASES:
        if not arguments.json:
            print(f"\n{case.label}: patches per second\n{'':<24}{''.join(f'{s:>20}' for s in sides)}{'ratio':>10}")
        for row in ROWS:
            if arguments.only not in {None, row.name} or (row.turn_z_only and len(case.patch) == 2):
                continue
            torch.manual_seed(0)
            found = measure(row, case, sides, arguments)
            if arguments.json:
                print(json.dumps({"case": case.label, "row": row.name, "seconds": found}), flush=True)
            else:
                print(describe(row, found, sides), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small patches: does everything run?")
    parser.add_argument("--only", help="only this row, e.g. affine")
    parser.add_argument("--turns", type=int, default=9, help="turns per row (default 9; four times as many by chance)")
    parser.add_argument("--processor-time", action="store_true", help="for busy machines")
    parser.add_argument("--json", action="store_true", help="a line of JSON per row, with every single time")
    return parser.parse_args()


if __name__ == "__main__":
    main(parse())
