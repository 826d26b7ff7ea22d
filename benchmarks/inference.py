"""One CT end to end, file in and label file out: ours beside nnU-Net's predictor and a plain MONAI pipeline, on CPU.

    pip install monai einops blosc2 pandas 'attentus[openvino]'  # rows whose peer is missing are left out
    pip install --no-deps nnunetv2 acvl-utils batchgenerators batchgeneratorsv2 dynamic-network-architectures
    python benchmarks/inference.py [--shape 600 512 512] [--spacing 1 0.75 0.75] [--target 1.5 1.5 1.5]
                                   [--patch 128] [--overlap 0.5] [--threads N] [--rows NAME ...] [--model RUN]
                                   [--keep DIR] [--reference FILE] [--json]

All sides run the same net (nnU-Net's plain 3D U-Net, 32 to 320 channels, three classes, the same weights) on the same
scan, an enlarged phantom, with the same voxel size, window and overlap, without flips: read the NIfTI file, clip and
normalise, resample, sliding window with Gaussian weights, bring back to the scan's grid, decide, write the labels.
nnU-Net is its predictor with its own preprocessing and export. MONAI is LoadImage, Spacing, sliding_window_inference,
and the way back by interpolation of its logits. Ours is `attentus predict` at each level of speed; "torch" is the
plain reference. "fast, first of 20" is the first scan of a cohort: where 8 bits promise more than bf16 the net is
converted on it, and the rows of "fast" find it converted, as `attentus export` and cohorts leave it. "fast" uses the
overlap given, not its own, so that only the numbers get rougher; "fast, wide" is the level as users have it.

The recipe crops scans to the body (`prepare.crop_above`, `crop_block`), so that ours lays fewer windows over air. The
peers do not, but for "MONAI, body", which cuts to the box of all that is more than air (CropForeground); rows of ours
with "whole scan" leave the crop out.

Every row is a process; peak memory is the largest resident size (VmHWM). "memory": freed memory is kept, see
attentus.infer.processor.keep_memory. Labels are compared with those of our torch row, as Dice per structure; random
weights make a hard test of that, a trained model (--model, its recipe's window and spacing are used) a fair one.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

CLASSES = 3
WINDOW, MOMENTS = (-160, 240), (0.0, 100.0)
AIR = -500
WIDTHS = (32, 64, 128, 256, 320, 320)


@dataclass(frozen=True)
class Row:
    side: str
    speed: str = ""
    memory: bool = False
    scans: int = 1
    body: bool = True
    """MONAI: cut to the body. Ours: as the recipe says; False takes the whole scan."""


ROWS = {
    "nnU-Net": Row("nnunet"),
    "nnU-Net memory": Row("nnunet", memory=True),
    "MONAI": Row("monai", body=False),
    "MONAI memory": Row("monai", memory=True, body=False),
    "MONAI, body": Row("monai"),
    "ours torch": Row("ours"),
    "ours torch memory": Row("ours", memory=True),
    "ours best": Row("ours", "best"),
    "ours balanced": Row("ours", "balanced"),
    "ours fast, first of 20": Row("ours", "fast", scans=20),
    "ours fast": Row("ours", "fast"),
    "ours fast, wide": Row("ours", "fast, wide"),
    "ours best, whole scan": Row("ours", "best", body=False),
    "ours fast, whole scan": Row("ours", "fast", body=False),
}
NEEDED = {"nnunet": "nnunetv2", "monai": "monai", "ours": "attentus"}


# What is run, and on what.


def make(folder: Path, arguments: argparse.Namespace) -> None:
    """The model folder and the scan, a phantom at 4 mm enlarged to the shape wanted."""
    import torch

    import attentus as at
    from attentus.data.phantom import write_dataset
    from attentus.infer.model import Model, create_net
    from attentus.recipes import build
    from attentus.transforms.resample import resample
    from attentus.types import Grid, Volume

    if arguments.model is None:
        torch.manual_seed(0)
        recipe = build(
            {
                "name": "benchmark",
                "labels": [{"name": "one", "value": 1}, {"name": "two", "value": 2}],
                "channels": ["CT"],
                "prepare": {
                    "spacing": arguments.target,
                    "crop_above": AIR,
                    "crop_block": 10,
                    "order": 3,
                    "intensity": [{"window": WINDOW, "moments": MOMENTS}],
                },
                "net": {"name": "plain-unet", "options": {"widths": list(WIDTHS)}},
                "train": {"patch": [arguments.patch] * 3},
                "infer": {"overlap": arguments.overlap},
            },
            "benchmark",
        )
        Model(recipe, create_net(recipe)).save(folder / "model")
    write_dataset(folder / "phantom", 1, coarse=4.0)
    small = at.read(next((folder / "phantom" / "imagesTr").glob("*.nii.gz")))
    array = resample(small.array, arguments.shape)
    array += np.random.default_rng(0).normal(0, 12, array.shape).astype(np.float32)
    z, y, x = arguments.shape
    at.write(Volume(array.astype(np.int16), Grid((z, y, x), tuple(arguments.spacing))), folder / "scan.nii.gz")


def model_of(folder: Path, arguments: argparse.Namespace) -> Path:
    return arguments.model or folder / "model"


# How each does it: file in, file out.


def ours(row: Row, folder: Path, out: Path, arguments: argparse.Namespace) -> str:
    import attentus as at
    from attentus.infer.processor import keep_memory

    if row.memory or row.speed:
        keep_memory()
    model = at.Model.load(model_of(folder, arguments))
    if not row.body:
        whole = model.recipe.prepare.model_copy(update={"crop_above": None, "crop_block": 0.0})
        model.recipe = model.recipe.model_copy(update={"prepare": whole})
    if row.speed:
        overlap = model.recipe.infer.overlap
        model = model.at_speed(row.speed.partition(",")[0], scans=row.scans)
        if row.speed == "fast":
            how = model.recipe.infer.model_copy(update={"overlap": overlap})
            model.recipe = model.recipe.model_copy(update={"infer": how})
    at.write(model.predict(folder / "scan.nii.gz").labels, out)
    return "torch" if model.engine is None else str(getattr(model.engine.runner, "name", ""))


def monai(row: Row, folder: Path, out: Path, arguments: argparse.Namespace) -> str:
    import nibabel as nib
    import torch
    from monai.inferers import sliding_window_inference
    from monai.transforms import CropForeground, LoadImage, Spacing

    import attentus as at
    from attentus.infer.processor import keep_memory

    if row.memory:
        keep_memory()
    model = at.Model.load(model_of(folder, arguments))
    scan = LoadImage(ensure_channel_first=True)(folder / "scan.nii.gz")
    shape = scan.shape[1:]
    box = [slice(None)] * 3
    if row.body:
        corners = CropForeground(select_fn=lambda x: x > AIR).compute_bounding_box(scan)
        box = [slice(int(a), int(b)) for a, b in zip(*corners, strict=True)]
        scan = scan[:, box[0], box[1], box[2]]
    how = model.recipe.prepare.intensity[0]
    scan = (scan.clamp(*how.window) - how.moments[0]) / how.moments[1]
    coarse = Spacing(pixdim=model.recipe.prepare.spacing[::-1], mode=3)(scan)
    with torch.inference_mode():
        logits = sliding_window_inference(
            coarse[None].as_tensor().permute(0, 1, 4, 3, 2),
            model.window.size,
            1,
            lambda x: model.net(x)[0],
            overlap=model.window.overlap,
            mode="gaussian",
        )
        fine = torch.nn.functional.interpolate(logits, tuple(scan.shape[:0:-1]), mode="trilinear")
        labels = np.zeros(shape, np.uint8)
        labels[tuple(box)] = fine.argmax(1)[0].permute(2, 1, 0).numpy()
    nib.save(nib.Nifti1Image(labels, nib.load(folder / "scan.nii.gz").affine), out)
    return "torch"


def nnunet(row: Row, folder: Path, out: Path, arguments: argparse.Namespace) -> str:
    import torch

    sys.path.insert(0, str(Path(__file__).parent))
    import nets
    import train

    nets._nnunet_architectures()
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    import attentus as at
    from attentus.infer.processor import keep_memory

    if row.memory:
        keep_memory()
    model = at.Model.load(model_of(folder, arguments))
    plain = argparse.Namespace(patch=list(model.window.size), batch=1, widths=WIDTHS, spacing=4.0)
    plans = train.plans_of(plain)
    spacing = {"spacing": list(model.recipe.prepare.spacing)}
    plans["configurations"]["plain"] |= {**nnunet_resampling(), **spacing}
    (low, high), (mean, std) = model.recipe.prepare.intensity[0].window, model.recipe.prepare.intensity[0].moments
    values = {"mean": mean, "std": std, "percentile_00_5": low, "percentile_99_5": high}
    plans |= {"foreground_intensity_properties_per_channel": {"0": values}, "image_reader_writer": "SimpleITKIO"}
    manager = PlansManager(plans)
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "one": 1, "two": 2},
        "file_ending": ".nii.gz",
    }
    predictor = nnUNetPredictor(
        tile_step_size=1 - model.window.overlap, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False
    )
    net = AsNnUNet(model.net)
    weights = [net.state_dict()]
    predictor.manual_initialization(net, manager, manager.get_configuration("plain"), weights, description, "", None)
    image, facts = SimpleITKIO().read_images([str(folder / "scan.nii.gz")])
    predictor.predict_single_npy_array(image, facts, None, str(out).removesuffix(".nii.gz"))
    return "torch"


def nnunet_resampling() -> dict[str, Any]:
    """The entries of its default plans that say how it resamples."""
    cubic = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    options = {"data": cubic, "seg": {**cubic, "is_seg": True, "order": 1}, "probabilities": {**cubic, "order": 1}}
    functions = {f"resampling_fn_{kind}": "resample_data_or_seg_to_shape" for kind in options}
    return {**functions, **{f"resampling_fn_{kind}_kwargs": how for kind, how in options.items()}}


def AsNnUNet(net: Any) -> Any:  # noqa: N802 - makes a module
    """Our net, which holds the same layers as theirs, with one output instead of a tuple."""
    from torch import nn

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net.eval()

        def forward(self, x: Any) -> Any:
            return self.net(x)[0]

    return Wrapped()


SIDES: dict[str, Callable[..., str]] = {"ours": ours, "monai": monai, "nnunet": nnunet}


def child(name: str, folder: Path, out: Path, arguments: argparse.Namespace) -> None:
    warnings.simplefilter("ignore")
    import torch

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    wall, cpu = time.perf_counter(), time.process_time()
    backend = SIDES[ROWS[name].side](ROWS[name], folder, out, arguments)
    facts = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "backend": backend}
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(json.dumps({**facts, "peak": int(status.split("VmHWM:")[1].split()[0]) / 1024}))


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    import attentus as at

    results: dict[str, Any] = {}
    with TemporaryDirectory() as text:
        folder = Path(text)
        make(folder, arguments)
        reference = None if arguments.reference is None else at.read_labels(arguments.reference).array
        for name in sorted(arguments.rows, key=lambda n: n != "ours torch"):
            if not importlib.util.find_spec(NEEDED[ROWS[name].side]):
                continue
            out = folder / f"{name.replace(' ', '-').replace(',', '')}.nii.gz"
            command = [sys.executable, __file__, *sys.argv[1:], "--child", name, str(folder), str(out)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{name}:\n{done.stderr}")
            print(f"{name}: {done.stdout.splitlines()[-1]}", file=sys.stderr, flush=True)
            results[name] = json.loads(done.stdout.splitlines()[-1])
            labels = at.read_labels(out).array
            if arguments.keep:
                at.write(at.read_labels(out), arguments.keep / out.name, overwrite=True)
            reference = labels if reference is None else reference
            results[name]["dice"] = [agreement(labels == k, reference == k) for k in range(1, CLASSES)]
    return results


def agreement(one: Any, other: Any) -> float:
    whole = int(one.sum()) + int(other.sum())
    return round(2 * int((one & other).sum()) / whole, 5) if whole else 1.0


def show(results: dict[str, Any]) -> None:
    peers = [n for n in results if n.startswith(("nnU-Net", "MONAI"))]
    print(
        f"{'':20}{'wall s':>9}{'cpu s':>9}{'peak MiB':>10}  "
        + "".join(f"{'x ' + p:>18}" for p in peers)
        + "   Dice, backend"
    )
    for name, row in results.items():
        ratios = "".join(
            f"{results[p]['wall'] / row['wall']:9.2f}{row['peak'] / results[p]['peak']:8.0%} " for p in peers
        )
        dice = " ".join(f"{d:.4f}" for d in row["dice"])
        print(f"{name:20}{row['wall']:9.1f}{row['cpu']:9.1f}{row['peak']:10.0f}  {ratios}   {dice} {row['backend']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=[600, 512, 512])
    parser.add_argument("--spacing", type=float, nargs=3, default=[1.0, 0.75, 0.75])
    parser.add_argument("--target", type=float, nargs=3, default=[1.5, 1.5, 1.5])
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the label files")
    parser.add_argument("--reference", type=Path, help="label file of an earlier run's torch row, kept there")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, folder, out = arguments.child
        child(name, Path(folder), Path(out), arguments)
        return
    results = compare(arguments)
    print(json.dumps(results, indent=1)) if arguments.json else show(results)


if __name__ == "__main__":
    main()
