"""What a cascade is worth: RA-UNet's three stages beside its tumour net alone, and its first two on real CT.

    python benchmarks/cascade.py phantom PLACE [--steps 1900]
    python benchmarks/cascade.py real PLACE --slices liver-2d.yaml --scan CT [LABELS VALUE] [--scan ...]

`phantom` draws 24 and 8 scans into PLACE, trains the recipe ra-unet-phantom, and then its tumour net on whole scans
with the same data, patches, loss and at least as many steps as the cascade's stages have together, and segments the
eight scans with both. It prints processor minutes, Dice per case (nan where neither side has a tumour) and seconds per
scan.

`real` trains a box stage and a liver stage, both 2D, on CT slices with labelled livers (a dataset, see
docs/how-to/data.md), and runs them on scans: whatever `attentus predict` reads. A scan may be followed by a file of
labels on its grid, or a folder of pictures, and the value of the liver there. It prints the Dice of both stages and how
much of the liver lies in the box, and draws a picture of each scan. What is there is gone on with, not trained again.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

TUMOUR_ALONE = {
    "labels": {"tumour": ["liver tumour"]},
    "net.options": {"momentum": 0.1, "widths": [16, 32, 64, 128, 256, 256]},
    "loss.name": "dice-cross-entropy",
    "augment": {"flip": ["z", "y", "x"], "affine": 0.3, "rotate": [30, 0, 0], "scale": [0.8, 1.25]},
    "sampling.foreground": 0.67,
    "sampling.within": [],
    "sampling.only_with": [],
    "train.patch": [32, 64, 64],
    "train.batch": 2,
    "train.epochs": None,
    "train.precision": "bf16",
    "train.schedule": {"name": "polynomial", "warm_up": 0.05},
    "train.validate_every": 100000,
    "split.folds": 8,
}
"""The tumour stage of ra-unet-phantom, but for where it looks."""

SLICES = {
    "recipe": "ra-unet-liver-box",
    "change": {
        "labels": {"liver": ["liver"]},
        "prepare": {"size": [None, 128, 128], "intensity": [{"window": [0, 255], "normalise": "range"}]},
        "net": {"options": {"preset": None, "momentum": 0.1, "widths": [16, 16, 32, 64, 128, 128]}},
        "loss": {"name": "dice-cross-entropy"},
        # Slices that were turned and mirrored by whoever made the set.
        "augment": {
            "flip": ["y", "x"],
            "affine": 0.9,
            "rotate": [180, 0, 0],
            "scale": [0.7, 1.3],
            "intensity": 0.3,
            "noise": 0.05,
        },
        "sampling": {"foreground": 0.0},
        "train": {
            "patch": [128, 128],
            "batch": 16,
            "epochs": None,
            "steps": 450,
            "precision": "bf16",
            "learning_rate": 3.0e-3,
            "schedule": {"name": "polynomial", "warm_up": 0.05},
            "validate_every": 100000,
        },
        "infer": {"batch": 16},
    },
}


def attentus(*words: object) -> float:
    """Run a command; its processor time in minutes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "attentus.cli.main", *map(str, words)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) / 60


def dice(first, second) -> float:  # type: ignore[no-untyped-def]
    both = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / both if both else math.nan


def phantom(arguments: argparse.Namespace) -> None:
    place = arguments.place
    for name, cases, seed in (("train", 24, 0), ("test", 8, 1)):
        if not (place / name).is_dir():
            attentus(
                "data", "phantom", place / name, "--cases", cases, "--seed", seed, "--coarse", 1.5, "--tumours", "10:60"
            )
    changes = [w for k, v in TUMOUR_ALONE.items() for w in ("--set", f"{k}={json.dumps(v)}")]
    ways = {
        "cascade": ["ra-unet-phantom", place / "train", "-o", place / "cascade", "--fold", 0],
        "alone": [
            *("ra-unet-tumour", place / "train", "-o", place / "alone", "--fold", 0),
            *(*changes, "--set", f"train.steps={arguments.steps}"),
        ],
    }
    for name, words in ways.items():
        minutes = attentus("train", *words)
        attentus("predict", place / name, place / "test/imagesTr", "-o", place / f"{name}-found", "--resume")
        told = json.loads((place / f"{name}-found/labels.json").read_text(encoding="utf-8"))
        tumour = told["labels"]["tumour"]
        seconds = [result["seconds"] for result in told["results"].values()]
        print(f"{name}: {minutes:.1f} processor minutes of training, median {np.median(seconds):.1f} s per scan")
        each = [_judged(place, name, file, tumour) for file in sorted((place / "test/labelsTr").glob("*.nii.gz"))]
        for structure in ("liver", "tumour") if name == "cascade" else ("tumour",):
            values = [row[structure] for row in each]
            print(f"  {structure:<7} Dice {np.nanmean(values):.3f}  ({' '.join(f'{v:.2f}' for v in values)})")


def _judged(place: Path, name: str, file: Path, tumour: int) -> dict[str, float]:
    import attentus as at

    truth = at.read(file).array
    found = at.read(place / f"{name}-found" / file.name).array
    return {"liver": dice(found > 0, (truth == 1) | (truth == 2)), "tumour": dice(found == tumour, truth == 2)}


def real(arguments: argparse.Namespace) -> None:
    import attentus as at

    place = arguments.place
    place.mkdir(parents=True, exist_ok=True)
    plan = {
        "name": "liver-slices",
        "stages": {"box": SLICES, "liver": {**SLICES, "box": {"around": "box.liver", "margin": 10}}},
        "answer": {"liver": "liver.liver"},
        "split": {"folds": 2},
    }
    (place / "plan.yaml").write_text(json.dumps(plan), encoding="utf-8")  # JSON is YAML
    attentus("train", place / "plan.yaml", arguments.slices, "-o", place / "cascade", "--fold", 0)
    first, both = at.load(place / "cascade/stages/box/fold0"), at.load(place / "cascade")
    for number, (scan, *known) in enumerate(arguments.scan):
        volume = at.read(scan)
        box, liver = (model.predict(volume).labels.array[0] > 0 for model in (first, both))
        truth = _truth(volume, *known) if known else None
        millilitres = liver.sum() * np.prod(volume.grid.spacing) / 1000
        line = f"{Path(scan).parent.name}/{Path(scan).name}: liver {millilitres:.0f} ml"
        if truth is not None:
            inside = _around(box, 10)
            line += f", Dice of stage 1 {dice(box, truth):.3f}, of both {dice(liver, truth):.3f}"
            line += f", {truth[inside].sum() / truth.sum():.1%} of the liver in the box"
        print(line)
        _draw(volume, box, liver, truth, place / f"scan{number}.png")


def _around(mask, margin: int):  # type: ignore[no-untyped-def]
    found = np.nonzero(mask)
    return tuple(slice(max(0, axis.min() - margin), axis.max() + margin + 1) for axis in found)


def _truth(volume, labels: str, value: str):  # type: ignore[no-untyped-def]
    """The liver on the scan's grid; pictures are in the order of the DICOM files, which may begin at either end."""
    import attentus as at

    if not Path(labels).is_dir():
        return at.read(labels).array[0] == int(value)
    from PIL import Image

    stack = np.stack([np.asarray(Image.open(file)) for file in sorted(Path(labels).glob("*.png"))]) > 0
    first = volume.source.header["frames"][0][0]
    return stack if first == min(file for file, _ in volume.source.header["frames"]) else stack[::-1]


def _draw(volume, box, liver, truth, file: Path) -> None:  # type: ignore[no-untyped-def]
    """Five slices through what was found: reference white, stage 1 blue and its box, both stages orange."""
    from matplotlib.figure import Figure

    levels = np.nonzero((box | liver if truth is None else box | liver | truth).any((1, 2)))[0]
    chosen = levels[np.linspace(0, len(levels) - 1, 7).astype(int)[1:-1]]
    figure = Figure(figsize=(15, 3.4), layout="constrained")
    inside, spacing = _around(box, 10), volume.grid.spacing
    for axes, level in zip(figure.subplots(1, len(chosen)), chosen, strict=True):
        axes.imshow(volume.array[0, level], cmap="gray", vmin=-60, vmax=180, aspect=spacing[1] / spacing[2])
        for mask, colour in ((truth, "white"), (box, "#56b4e9"), (liver, "#e69f00")):
            if mask is not None and mask[level].any():
                axes.contour(mask[level], [0.5], colors=[colour], linewidths=0.9)
        rows, columns = inside[1:]
        corners = [[columns.start, columns.stop, columns.stop, columns.start, columns.start]]
        axes.plot(*corners, [rows.start, rows.start, rows.stop, rows.stop, rows.start], "--", color="#56b4e9", lw=0.7)
        axes.set_title(f"slice {level}", fontsize=9)
        axes.axis("off")
    figure.savefig(file, dpi=100)
    print(f"  {file}: reference white, stage 1 and its box blue, both stages orange")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    drawn = kinds.add_parser("phantom")
    drawn.add_argument("place", type=Path)
    drawn.add_argument("--steps", type=int, default=1900)
    drawn.set_defaults(run=phantom)
    scanned = kinds.add_parser("real")
    scanned.add_argument("place", type=Path)
    scanned.add_argument("--slices", type=Path, required=True)
    scanned.add_argument("--scan", nargs="+", action="append", required=True)
    scanned.set_defaults(run=real)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
