"""A CT to a coarser grid, and three-class probabilities back with the class of every voxel: ours, nnU-Net's, MONAI's.

    pip install monai
    pip install --no-deps nnunetv2 acvl-utils batchgenerators batchgeneratorsv2 dynamic-network-architectures
    python benchmarks/resample.py [--shape 600 512 512] [--spacing 1 0.75 0.75] [--target 2.47 1.9 1.9]
                                  [--rows ours nnU-Net MONAI] [--threads N] [--json]

"there": a scan in 16-bit integers becomes float32 on the coarser grid, cubic. nnU-Net's is its default
`resample_data_or_seg_to_shape`; MONAI's is Spacing with a cubic spline. "back": logits (3, coarse grid) become labels
on the scan's grid, linear. nnU-Net's is `convert_predicted_logits_to_segmentation_with_correct_shape`, its default
export; MONAI's is torch's trilinear interpolation of all logits and argmax. Ours are the lines that `attentus predict`
runs.

Every row is a process. Peak memory is the largest resident size of a step less what the process had before it. The
error is the largest difference to SciPy's spline interpolation in double precision, on a part of the scan, HU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEEDED = {"ours": "attentus", "nnU-Net": "nnunetv2", "MONAI": "monai"}
CLASSES = 3


def scan_of(arguments: argparse.Namespace) -> NDArray[np.int16]:
    """Smooth and noisy parts, (z, y, x) HU."""
    rng = np.random.default_rng(0)
    z, y, x = (np.linspace(0, 12, n, dtype=np.float32) for n in arguments.shape)
    smooth = 300 * np.sin(z)[:, None, None] * np.cos(y)[:, None] * np.sin(x + 1)
    return (smooth + rng.integers(-40, 40, arguments.shape, dtype=np.int16)).astype(np.int16)


def coarse_shape(arguments: argparse.Namespace) -> tuple[int, ...]:
    sizes = zip(arguments.shape, arguments.spacing, arguments.target, strict=True)
    return tuple(round(n * s / t) for n, s, t in sizes)


def logits_of(arguments: argparse.Namespace) -> NDArray[np.float32]:
    rng = np.random.default_rng(1)
    return rng.standard_normal((CLASSES, *coarse_shape(arguments)), dtype=np.float32)


class Ours:
    def __init__(self, arguments: argparse.Namespace) -> None:
        from attentus.recipes import Intensity, Prepare
        from attentus.types import Grid, Volume

        self.how = Prepare(spacing=tuple(arguments.target), order=3, intensity=(Intensity(normalise="none"),))
        self.grid, self.volume = Grid(tuple(arguments.shape), tuple(arguments.spacing)), Volume

    def there(self, scan: NDArray[np.int16]) -> NDArray[np.float32]:
        from attentus.transforms.prepare import prepare

        return prepare(self.volume(scan[None], self.grid), self.how).array[0]

    def back(self, logits: NDArray[np.float32], scan: NDArray[np.int16]) -> NDArray[np.uint8]:
        from attentus.transforms.prepare import WayBack, decide

        way = WayBack(logits.shape[1:], self.grid, (0, 0, 0), self.grid.shape)
        labels = np.empty(scan.shape, np.uint8)
        for step in way.plan(CLASSES):
            labels[step.rows] = decide(way.bring(logits[:, step.needs], step))
        return labels


class NnUNet:
    def __init__(self, arguments: argparse.Namespace) -> None:
        sys.path.insert(0, str(Path(__file__).parent))
        import inference
        import nets
        import train

        nets._nnunet_architectures()
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        self.arguments = arguments
        plans = train.plans_of(argparse.Namespace(patch=[64] * 3, batch=1, widths=train.WIDTHS, spacing=4.0))
        plans["configurations"]["plain"] |= {**inference.nnunet_resampling(), "spacing": arguments.target}
        self.plans = PlansManager(plans)
        self.configuration = self.plans.get_configuration("plain")
        self.description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1, "b": 2}}

    def there(self, scan: NDArray[np.int16]) -> NDArray[np.float32]:
        data = scan[None].astype(np.float32)
        shape = coarse_shape(self.arguments)
        return self.configuration.resampling_fn_data(data, shape, self.arguments.spacing, self.arguments.target)[0]

    def back(self, logits: NDArray[np.float32], scan: NDArray[np.int16]) -> NDArray[np.uint8]:
        import torch
        from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

        facts = {
            "spacing": self.arguments.spacing,
            "shape_before_cropping": scan.shape,
            "shape_after_cropping_and_before_resampling": scan.shape,
            "bbox_used_for_cropping": [[0, n] for n in scan.shape],
        }
        manager = self.plans.get_label_manager(self.description)
        return convert_predicted_logits_to_segmentation_with_correct_shape(
            torch.from_numpy(logits), self.plans, self.configuration, manager, facts
        )


class Monai:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments

    def there(self, scan: NDArray[np.int16]) -> NDArray[np.float32]:
        import torch
        from monai.data import MetaTensor
        from monai.transforms import Spacing

        affine = torch.diag(torch.tensor([*self.arguments.spacing, 1.0], dtype=torch.float64))
        tensor = MetaTensor(torch.from_numpy(scan[None].astype(np.float32)), affine=affine)
        return np.asarray(Spacing(pixdim=self.arguments.target, mode=3, padding_mode="nearest")(tensor)[0])

    def back(self, logits: NDArray[np.float32], scan: NDArray[np.int16]) -> NDArray[np.uint8]:
        import torch

        whole = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], scan.shape, mode="trilinear")
        return whole.argmax(1)[0].to(torch.uint8).numpy()


SIDES = {"ours": Ours, "nnU-Net": NnUNet, "MONAI": Monai}


def exact(scan: NDArray[np.int16], arguments: argparse.Namespace) -> tuple[NDArray[np.float64], tuple[slice, ...]]:
    """SciPy's cubic spline in double precision for a corner of the coarse grid."""
    from scipy.ndimage import map_coordinates

    corner = tuple(slice(0, min(24, n)) for n in coarse_shape(arguments))
    steps = [n / m for n, m in zip(arguments.shape, coarse_shape(arguments), strict=True)]
    axes = [(np.arange(c.stop) + 0.5) * step - 0.5 for c, step in zip(corner, steps, strict=True)]
    part = scan[tuple(slice(0, int(c.stop * step) + 60) for c, step in zip(corner, steps, strict=True))]
    where = np.stack(np.meshgrid(*axes, indexing="ij"))
    return map_coordinates(part.astype(np.float64), where, order=3, mode="nearest"), corner


def memory(kind: str) -> float:
    """MiB: VmRSS now, VmHWM at most since the mark was set back."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split(f"{kind}:")[1].split()[0]) / 1024


def child(name: str, arguments: argparse.Namespace) -> None:
    warnings.simplefilter("ignore")
    if arguments.threads:
        import torch

        torch.set_num_threads(arguments.threads)
    side, scan, logits = SIDES[name](arguments), scan_of(arguments), logits_of(arguments)
    tiny = argparse.Namespace(**{**vars(arguments), "shape": [32, 32, 32]})
    SIDES[name](tiny).there(scan[:32, :32, :32].copy())  # imports
    facts: dict[str, Any] = {}
    for step in ("there", "back"):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # sets the high-water mark back
        before = memory("VmRSS")
        wall, cpu = time.perf_counter(), time.process_time()
        found = side.there(scan) if step == "there" else side.back(logits, scan)
        facts[step] = {
            "wall": time.perf_counter() - wall,
            "cpu": time.process_time() - cpu,
            "more": memory("VmHWM") - before,
        }
        if step == "there" and name != "MONAI":  # whose spline treats the edges of voxels in another way
            expected, corner = exact(scan, arguments)
            facts["error"] = float(np.abs(found[corner] - expected).max())
        if step == "back":
            facts["sum"] = int(np.asarray(found).sum(dtype=np.int64))
    print(json.dumps(facts))


def show(results: dict[str, Any]) -> None:
    print(
        f"{'':10}"
        + "".join(
            f"{step + ' wall s':>14}{'cpu s':>8}{'MiB':>8}{'x ours':>8}{'MiB x':>8}" for step in ("there", "back")
        )
    )
    mine = results["ours"]
    for name, facts in results.items():
        cells = ""
        for step in ("there", "back"):
            row, own = facts[step], mine[step]
            cells += f"{row['wall']:14.2f}{row['cpu']:8.2f}{row['more']:8.0f}"
            cells += f"{row['wall'] / own['wall']:8.1f}{row['more'] / own['more']:8.1f}"
        print(f"{name:10}{cells}" + (f"   error {facts['error']:.2g} HU" if "error" in facts else ""))
    for name, facts in results.items():
        both = sum(facts[step]["wall"] for step in ("there", "back")) / sum(mine[s]["wall"] for s in ("there", "back"))
        memory = max(facts[s]["more"] for s in ("there", "back")) / max(mine[s]["more"] for s in ("there", "back"))
        print(f"{name}: {both:.1f} times our time in all, {memory:.1f} times our memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=[600, 512, 512])
    parser.add_argument("--spacing", type=float, nargs=3, default=[1.0, 0.75, 0.75])
    parser.add_argument("--target", type=float, nargs=3, default=[2.47, 1.9, 1.9])
    parser.add_argument("--rows", nargs="+", default=list(NEEDED), choices=list(NEEDED))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments)
        return
    results: dict[str, Any] = {}
    for name in ["ours", *(r for r in arguments.rows if r != "ours")]:
        if importlib.util.find_spec(NEEDED[name]):
            command = [sys.executable, __file__, *sys.argv[1:], "--child", name]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{name}:\n{done.stderr}")
            results[name] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(results, indent=1)) if arguments.json else show(results)


if __name__ == "__main__":
    main()
