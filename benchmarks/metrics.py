"""Scoring one pair of segmentations: ours beside DeepMind's surface-distance, MONAI, MedPy and SimpleITK.

    pip install monai medpy surface-distance        # rows whose peer is missing are left out
    python benchmarks/metrics.py [--data lits hippocampus FOLDER ...] [--rows NAME ...] [--repeat 3] [--json]

Every row is a process of its own that reads the same two label volumes, waits, scores them when told, and reports
seconds and peak memory. Rows take turns; a ratio is the median over the turns of peer / ours. All compute Dice, ASSD
(or both directed means), HD, HD95 and surface Dice at 1 mm for every label; ours does so as part of its standard set of
19 metrics. "ours, all" measures everything but distances between meshes, the pieces of the last label one by one.
SimpleITK knows Dice and HD only.

"lits": 600 x 512 x 512 voxels of 1 x 0.75 x 0.75 mm, a liver with 15 tumours, drawn. "hippocampus": 100 pairs of the
size of MSD Task04, drawn. A folder: its label volumes, each against a copy of itself that is shifted and eroded.
MONAI and MedPy take minutes on the first and are asked for by name: --rows ours DeepMind MONAI MedPy.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    Labels = NDArray[np.uint8]

ROWS = {
    "ours": "attentus",
    "ours, all": "attentus",
    "DeepMind": "surface_distance",
    "SimpleITK": "SimpleITK",
    "MONAI": "monai",
    "MedPy": "medpy",
}
USUAL = ("ours", "ours, all", "DeepMind", "SimpleITK")


# How each scores: two label volumes, spacing, the values that occur -> {label: {metric: value}}.


def ours(
    prediction: Labels, reference: Labels, spacing: tuple[float, ...], _: list[int]
) -> dict[str, dict[str, float]]:
    import attentus as at

    found: dict[str, dict[str, float]] = {}
    for row in at.score(prediction, reference, spacing=spacing):
        found.setdefault(row.structure.removeprefix("label "), {})[row.metric] = row.value
    return found


def ours_all(
    prediction: Labels, reference: Labels, spacing: tuple[float, ...], values: list[int]
) -> dict[str, dict[str, float]]:
    """Every metric that needs no mesh; the pieces of the last label, tumours in a liver, are found one by one."""
    import attentus as at

    names = [name for name in at.metrics.METRICS if name != "s2s_mm"]
    at.score(prediction, reference, spacing=spacing, metrics=[*names, "nsd@1mm"], lesions=[f"label {max(values)}"])
    return {}


def each_label(
    score: Callable[[NDArray[np.bool_], NDArray[np.bool_], tuple[float, ...]], dict[str, float]],
) -> Callable[..., dict[str, dict[str, float]]]:
    """Peers know masks only; which values there are is told to them."""

    def scores(
        prediction: Labels, reference: Labels, spacing: tuple[float, ...], values: list[int]
    ) -> dict[str, dict[str, float]]:
        return {str(v): score(prediction == v, reference == v, spacing) for v in values}

    return scores


@each_label
def deepmind(prediction: Any, reference: Any, spacing: Any) -> dict[str, float]:
    import surface_distance as sd

    found = sd.compute_surface_distances(reference, prediction, spacing)
    there, back = sd.compute_average_surface_distance(found)
    return {
        "dice": sd.compute_dice_coefficient(reference, prediction),
        "masd_mm": (there + back) / 2,
        "hd_mm": sd.compute_robust_hausdorff(found, 100),
        "hd95_mm": sd.compute_robust_hausdorff(found, 95),
        "nsd@1mm": sd.compute_surface_dice_at_tolerance(found, 1.0),
    }


@each_label
def monai(prediction: Any, reference: Any, spacing: Any) -> dict[str, float]:
    import torch
    from monai import metrics

    pair = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, reference)]
    how = {"include_background": True, "spacing": list(spacing)}
    found = {
        "dice": metrics.compute_dice(*pair),
        "assd_mm": metrics.compute_average_surface_distance(*pair, symmetric=True, **how),
        "hd_mm": metrics.compute_hausdorff_distance(*pair, **how),
        "hd95_mm": metrics.compute_hausdorff_distance(*pair, percentile=95, **how),
        "nsd@1mm": metrics.compute_surface_dice(*pair, class_thresholds=[1.0], **how),
    }
    return {metric: float(value) for metric, value in found.items()}


@each_label
def medpy(prediction: Any, reference: Any, spacing: Any) -> dict[str, float]:
    from medpy.metric import binary

    found = {"dice": binary.dc(prediction, reference)}
    for metric in ("assd", "hd", "hd95"):
        found[f"{metric}_mm"] = getattr(binary, metric)(prediction, reference, voxelspacing=spacing)
    return found


@each_label
def simpleitk(prediction: Any, reference: Any, spacing: Any) -> dict[str, float]:
    import SimpleITK as sitk

    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (prediction, reference)]
    for image in images:
        image.SetSpacing(spacing[::-1])
    overlap, far = sitk.LabelOverlapMeasuresImageFilter(), sitk.HausdorffDistanceImageFilter()
    overlap.Execute(images[1], images[0])
    far.Execute(*images)
    return {"dice": overlap.GetDiceCoefficient(1), "hd_mm": far.GetHausdorffDistance()}


SCORERS = {
    "ours": ours,
    "ours, all": ours_all,
    "DeepMind": deepmind,
    "SimpleITK": simpleitk,
    "MONAI": monai,
    "MedPy": medpy,
}


# What is scored.


def draw(kind: str, folder: Path) -> list[Path]:
    """Write pairs as .npz with prediction, reference and spacing."""
    if kind == "lits":
        pairs: Iterable[tuple[str, tuple[Labels, Labels], tuple[float, ...]]] = [("lits", livers(), (1.0, 0.75, 0.75))]
    elif kind == "hippocampus":
        pairs = [(f"hippocampus_{k:03}", small(k), (1.0, 1.0, 1.0)) for k in range(100)]
    else:
        pairs = disturbed(Path(kind))
    files = []
    for name, (prediction, reference), spacing in pairs:
        files.append(folder / f"{name}.npz")
        np.savez(files[-1], prediction=prediction, reference=reference, spacing=spacing)
    return files


def livers() -> tuple[Labels, Labels]:
    """A liver of 2 litres with 15 tumours; the prediction is off by a few millimetres here and there."""
    shape, spacing = (600, 512, 512), (1.0, 0.75, 0.75)
    volumes = np.zeros((2, *shape), np.uint8)
    box = np.s_[200:420, 130:390, 90:410]
    axes = np.ogrid[
        tuple(slice((s.start) * g, s.stop * g, complex(s.stop - s.start)) for s, g in zip(box, spacing, strict=True))
    ]

    def ellipsoid(centre: Any, radii: Any) -> NDArray[np.float32]:
        return sum(((a - c) / r) ** 2 for a, c, r in zip(axes, centre, radii, strict=True)).astype(np.float32)

    size = tuple(s.stop - s.start for s in box)
    body = np.minimum(ellipsoid((310, 190, 170), (85, 75, 85)), ellipsoid((285, 215, 235), (60, 50, 65)) + 0.1)
    body += 0.12 * smooth(size, 1)
    volumes[0][box], volumes[1][box] = body + 0.04 * smooth(size, 2) < 1, body < 1
    rng = np.random.default_rng(3)
    inside = np.argwhere(volumes[1][box])
    for _ in range(15):
        centre = [a.ravel()[k] for a, k in zip(axes, inside[rng.integers(len(inside))], strict=True)]
        radius = rng.uniform(4, 16)
        moved = np.add(centre, rng.uniform(-2, 2, 3))
        for volume, where, r in ((volumes[1], centre, radius), (volumes[0], moved, radius * rng.uniform(0.8, 1.15))):
            part = volume[box]
            part[(ellipsoid(where, (r, r, r)) < 1) & (part > 0)] = 2
    return volumes[0], volumes[1]


def smooth(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Noise that changes over about 25 voxels."""
    from attentus.transforms.resample import resample

    coarse = np.random.default_rng(seed).standard_normal([s // 25 + 3 for s in shape]).astype(np.float32)
    return resample(coarse[None], shape, order=3)[0]


def small(seed: int) -> tuple[Labels, Labels]:
    """Two neighbouring structures in 36 x 50 x 35 voxels."""
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[:36, :50, :35]
    volumes = []
    for shift in (rng.normal(0, 0.7, 3), (0, 0, 0)):
        body = ((z - 18 - shift[0]) / 8) ** 2 + ((y - 25 - shift[1]) / 18) ** 2 + ((x - 17 - shift[2]) / 6) ** 2
        body = body + 0.2 * rng.normal(size=body.shape) < 1
        volumes.append((body * np.where(y < 24 + shift[1], 1, 2)).astype(np.uint8))
    return volumes[0], volumes[1]


def disturbed(folder: Path) -> Iterable[tuple[str, tuple[Labels, Labels], tuple[float, ...]]]:
    """Label volumes of a folder against shifted and eroded copies of themselves."""
    from scipy.ndimage import grey_erosion

    import attentus as at
    from attentus.metrics.cohorts import find_cases

    for name, file in find_cases(folder).cases.items():
        volume = at.io.read_labels(file)
        reference = volume.array[0].astype(np.uint8)
        prediction = np.roll(grey_erosion(reference, (1, 3, 3)), (1, 2, -1), (0, 1, 2))
        yield name, (prediction, reference), volume.grid.spacing


# Processes.


def child(name: str, files: list[str]) -> None:
    """Read the pairs, warm up, then score them once for every line on standard input."""
    warnings.simplefilter("ignore")
    pairs = []
    for file in files:
        with np.load(file) as stored:
            values = [int(value) for value in np.unique(stored["reference"]) if value]
            spacing = tuple(float(s) for s in stored["spacing"])
            pairs.append((stored["prediction"], stored["reference"], spacing, values))
    score = SCORERS[name]
    score(*(np.ascontiguousarray(a[:8, :8, :8] * 0 + 1) for a in pairs[0][:2]), pairs[0][2], [1])
    before = peak_memory()
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        found = [score(*pair) for pair in pairs]
        took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        took |= {"peak": peak_memory(), "more": peak_memory() - before}
        print(json.dumps({**took, "scores": found[0]}), flush=True)


def peak_memory() -> float:
    """Largest resident memory of this process so far, MiB (getrusage would count what the parent had at the fork)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def run(name: str, files: list[Path]) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--child", name, *map(str, files)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()  # type: ignore[union-attr]
    return process


def ask(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def compare(kind: str, rows: list[str], repeat: int) -> dict[str, Any]:
    """Time all rows on one kind of data, in turns."""
    with TemporaryDirectory() as folder:
        files = draw(kind, Path(folder))
        processes = {name: run(name, files) for name in rows}
        turns = [{name: ask(process) for name, process in processes.items()} for _ in range(repeat)]
        for process in processes.values():
            process.stdin.close()  # type: ignore[union-attr]
            process.wait()
    table = {}
    for name in rows:
        taken = [turn[name] for turn in turns]
        table[name] = {key: statistics.median(t[key] for t in taken) for key in ("wall", "cpu")}
        table[name] |= {key: max(t[key] for t in taken) for key in ("peak", "more")}
        table[name]["ratio"] = statistics.median(turn[name]["wall"] / turn["ours"]["wall"] for turn in turns)
        table[name]["cpu ratio"] = statistics.median(turn[name]["cpu"] / turn["ours"]["cpu"] for turn in turns)
        table[name]["scores"] = taken[0]["scores"]
    return {"data": kind, "pairs": len(files), "rows": table}


def show(result: dict[str, Any]) -> None:
    print(f"\n{result['data']}: {result['pairs']} pair(s)")
    print(
        f"{'':12}{'wall s':>9}{'cpu s':>9}{'x ours':>9}{'x cpu':>9}{'peak MiB':>10}{'ours / it':>11}{'scoring MiB':>13}"
    )
    mine = result["rows"]["ours"]
    for name, row in result["rows"].items():
        share = mine["peak"] / row["peak"]
        print(
            f"{name:12}{row['wall']:9.2f}{row['cpu']:9.2f}{row['ratio']:9.1f}{row['cpu ratio']:9.1f}"
            f"{row['peak']:10.0f}{share:11.0%}{row['more']:13.0f}"
        )
    for label, values in mine["scores"].items():
        for metric in ("dice", "assd_mm", "masd_mm", "hd_mm", "hd95_mm", "nsd@1mm"):
            cells = {n: r["scores"].get(label, {}).get(metric) for n, r in result["rows"].items()}
            known = [f"{n} {v:.4f}" for n, v in cells.items() if v is not None]
            print(
                f"  label {label} {metric:9}" + ", ".join(known) + f" (ours {values[metric]:.4f})" * (len(known) == 0)
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["lits", "hippocampus"])
    parser.add_argument("--rows", nargs="+", default=list(USUAL), choices=list(ROWS))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = ["ours", *(r for r in arguments.rows if r != "ours")]
    rows = [r for r in rows if importlib.util.find_spec(ROWS[r])]
    results = [compare(kind, rows, arguments.repeat) for kind in arguments.data]
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    for result in results:
        show(result)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
    else:
        main()
