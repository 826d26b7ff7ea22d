"""Seconds per training step, data loading included: ours beside nnU-Net's trainer and a plain MONAI loop.

    pip install monai einops                                         # rows whose peer is missing are left out
    pip install --no-deps nnunetv2 acvl-utils batchgenerators batchgeneratorsv2 dynamic-network-architectures
    pip install blosc2 threadpoolctl connected-components-3d imagecodecs seaborn scikit-learn scikit-image
    python benchmarks/train.py [--patch 64 64 64] [--batch 2] [--steps 3] [--rounds 3] [--rows NAME ...]
                               [--threads N] [--augment] [--device cpu] [--json]
    python benchmarks/train.py --dice 500 --seeds 0 1 2 --patch 24 24 24 --spacing 8 --widths 16 32 64
                                                 # each side trains for 500 steps; Dice of cases held back

All sides train the same net (nnU-Net's plain 3D U-Net, deep supervision, Dice and cross-entropy, SGD with Nesterov
momentum, gradients clipped at 12) on the same prepared phantoms with the same patch and batch. nnU-Net is its own
trainer: its loaders, its `train_step`, its default of one loading process per core; without augmentation it is the
published nnUNetTrainerNoDA. Ours is `attentus.train.fitting.set_up` and the update of `attentus.train.loop`. MONAI is
CacheDataset, RandCropByPosNegLabeld, DataLoader, DynUNet and DiceCELoss. By default nobody augments; with --augment
ours and nnU-Net do what each does by default, and MONAI is left out.

Every row is a process. In a round each takes `--steps` steps in turn while all others, loaders too, are stopped, so
that a busy machine is equally busy for all. Wall times are medians over the rounds; processor seconds are those of
the training process alone (nnU-Net's and MONAI's loading processes are not counted, our loading threads are), which
is what to read on a busy machine, with --threads 1. A ratio is the median over the rounds of peer / ours. "memory"
means attentus.infer.processor.keep_memory, for a peer too.

With --dice all sides have the same schedule, step by step, and nnU-Net's choices where a recipe leaves them open: one
of two patches lies on a structure, structures taking turns; Dice leaves background out. Eight of twelve phantoms train;
the others are predicted by our sliding window, whoever trained. Liver with tumours, spleen and both kidneys are asked
for: nets that have only just begun to find a structure differ by luck, so choose a setting in which all of them are
found. What stays different: nnU-Net's patches may reach beyond a scan's upper ends and are centred on their voxel, ours
lie up to a quarter of a patch off it; beyond the scan nnU-Net and MONAI see 0, ours the scan's minimum; nnU-Net's
coarser targets take the voxel after ours; MONAI's coarser heads are enlarged, and its weights sum to more than 1. A
seed decides weights and, on our side alone, patches.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WARM_UP = 2
"""Steps that do not count: memory is first touched, kernels are first chosen."""
CASES = 6
HELD_BACK = 2
SCORED = {"liver": ["liver", "liver tumour"], "spleen": ["spleen"], "kidneys": ["left kidney", "right kidney"]}
WIDTHS = (32, 64, 128, 256, 320, 320)
RATE, MOMENTUM, DECAY, CLIP = 1e-2, 0.99, 3e-5, 12


@dataclass(frozen=True)
class Row:
    """One way to train.

    Args:
        name: shown.
        side: "ours", "nnunet" or "monai".
        precision: of ours.
        memory: freed memory is kept.
        compiled: the net goes through torch.compile.
    """

    name: str
    side: str
    precision: str = "fp32"
    memory: bool = False
    compiled: bool = False


ROWS = (
    Row("nnU-Net", "nnunet"),
    Row("nnU-Net memory", "nnunet", memory=True),
    Row("MONAI", "monai"),
    Row("MONAI memory", "monai", memory=True),
    Row("ours fp32", "ours"),
    Row("ours fp32 memory", "ours", memory=True),
    Row("ours bf16", "ours", "bf16"),
    Row("ours bf16 memory", "ours", "bf16", memory=True),
    Row("ours bf16 memory compile", "ours", "bf16", memory=True, compiled=True),
)
NEEDED = {"nnunet": "nnunetv2", "monai": "monai"}


# Child processes. Each side gives `step() -> seconds waited for data` and its net, whose outputs begin with the logits.


@dataclass
class Side:
    """A training under way.

    Args:
        step: takes one step, the number given; returns the seconds it waited for data.
        net: the net as it is, for evaluation.
        close: ends loaders.
    """

    step: Callable[[int], float]
    net: Any
    close: Callable[[], None] = lambda: None


def widths_of(arguments: argparse.Namespace) -> list[int]:
    """Channels of each level, as nnU-Net plans: halved while the shortest side stays at 4 or more; six at most."""
    found = 1
    while found < len(arguments.widths) and min(arguments.patch) // 2**found >= 4:
        found += 1
    return list(arguments.widths[:found])


def held_back(arguments: argparse.Namespace) -> int:
    """How many of the last cases do not train; there are twice as many of all where they are scored."""
    return HELD_BACK * (2 if arguments.dice else 1)


def recipe_of(arguments: argparse.Namespace) -> Any:
    """What ours trains by; the prepared data of all sides come from it, too."""
    from attentus.recipes import Recipe

    augment = {}
    if arguments.augment:
        augment = {
            "flip": ["z", "y", "x"],
            "affine": 0.2,
            "rotate": [30, 30, 30],
            "scale": [0.7, 1.4],
            "intensity": 0.15,
            "noise": 0.1,
            "brightness": 0.25,
            "contrast": [0.75, 1.25],
            "gamma": [0.7, 1.5],
        }
    return Recipe.model_validate(
        {
            "name": "benchmark",
            "seed": arguments.seeds[0],
            "labels": SCORED if arguments.dice else "all",
            "prepare": {"spacing": [arguments.spacing] * 3, "intensity": [{"window": [-160, 240]}]},
            "net": {"name": "plain-unet", "options": {"widths": widths_of(arguments)}},
            "loss": {"name": "dice-cross-entropy", "options": {"background": False}},
            "augment": augment,
            "sampling": {"foreground": 0.5},
            "train": {
                "patch": arguments.patch,
                "batch": arguments.batch,
                "steps": arguments.dice or 1000,
                "optimiser": "sgd",
                "momentum": MOMENTUM,
                "learning_rate": RATE,
                "weight_decay": DECAY,
                "clip": CLIP,
                "workers": 1,
            },
        }
    )


def data_of(arguments: argparse.Namespace) -> tuple[Any, list[Any]]:
    """Resolved recipe and prepared cases; made on the first call, found on later ones."""
    from attentus.data.cache import prepare_cases
    from attentus.data.dataset import Dataset
    from attentus.data.phantom.write import write_dataset
    from attentus.data.resolve import resolve

    folder = Path(arguments.folder)
    if not (folder / "phantoms").exists():
        write_dataset(folder / "phantoms", CASES * held_back(arguments) // HELD_BACK, coarse=4.0)
    dataset = Dataset.open(folder / "phantoms")
    recipe = resolve(recipe_of(arguments), dataset)
    cases, failures = prepare_cases(dataset, recipe, folder / "cache")
    if failures:
        sys.exit(f"The phantoms cannot be used: {failures}")
    return recipe, cases


def ours(row: Row, arguments: argparse.Namespace) -> Side:
    from attentus.data.patches import ahead
    from attentus.progress import Silent
    from attentus.train import fitting, loop
    from attentus.train.devices import launch

    if not row.memory:
        fitting.keep_memory = lambda: False  # which every training does otherwise
    recipe, cases = data_of(arguments)
    train = recipe.train.model_copy(update={"precision": row.precision, "compile": row.compiled})
    recipe = recipe.model_copy(update={"train": train})
    run = fitting.Run(launch(train), recipe, Path(arguments.folder) / row.name.replace(" ", "-"), Silent())
    run.folder.mkdir(exist_ok=True)
    apart = held_back(arguments)
    job, _ = fitting.set_up(run, cases[:-apart], cases[-apart:])
    batches = ahead(job.sampler, range(10**6), train.workers)

    def step(number: int) -> float:
        return loop._update(job, batches, number, falling(number, arguments))[1]

    return Side(step, job.bare)


def falling(number: int, arguments: argparse.Namespace) -> float:
    """Step size, the same on all sides."""
    return RATE * (1 - number / (arguments.dice or 1000)) ** 0.9


def nnunet(_row: Row, arguments: argparse.Namespace) -> Side:
    """nnU-Net's trainer on a folder of preprocessed cases, which is written first."""
    sys.path.insert(0, str(Path(__file__).parent))
    import nets
    import torch

    nets._nnunet_architectures()  # stands in for what is not needed
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoDA import nnUNetTrainerNoDA

    recipe, cases = data_of(arguments)
    write_preprocessed(Path(arguments.folder) / "nnunet" / NAME / "plain", cases[: -held_back(arguments)], recipe)
    kind = nnUNetTrainer if arguments.augment else nnUNetTrainerNoDA
    labels = {"background": 0} | {s.name: k + 1 for k, s in enumerate(recipe.labels)}
    description = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz", "numTraining": CASES}
    trainer = kind(plans_of(arguments), "plain", "all", description, torch.device(arguments.device))
    trainer.initialize()
    trainer.set_deep_supervision_enabled(enabled=True)
    batches, unused = trainer.get_dataloaders()
    trainer.network.train()

    def step(number: int) -> float:
        for group in trainer.optimizer.param_groups:
            group["lr"] = falling(number, arguments)
        began = time.monotonic()
        batch = next(batches)
        wait = time.monotonic() - began
        trainer.train_step(batch)
        return wait

    def close() -> None:
        for loader in (batches, unused):
            if hasattr(loader, "_finish"):
                loader._finish()

    return Side(step, trainer.network, close)


NAME = "Dataset001_Phantom"


def write_preprocessed(folder: Path, cases: Sequence[Any], recipe: Any) -> None:
    """The prepared cases in nnU-Net's format; another process may have done so."""
    import numpy as np
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

    if folder.exists():
        return
    folder.mkdir(parents=True)
    for case in cases:
        points = np.array(case.points)
        where = {
            k: np.concatenate([np.zeros((found.sum(), 1), int), points[found, 1:]], axis=1)
            for k in range(1, len(recipe.labels) + 1)
            for found in [points[:, 0] == k]
        }
        image = np.array(case.image)
        blocks, chunks = comp_blosc2_params(image.shape, tuple(recipe.train.patch))
        labels = np.array(case.labels[None]).astype(np.int8)
        properties = {"class_locations": where}
        target = str(folder / case.id)
        nnUNetDatasetBlosc2.save_case(image, labels, properties, target, chunks=chunks, blocks=blocks)


def plans_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What nnU-Net's planner would write: the same net as ours."""
    widths = widths_of(arguments)
    count = len(widths)
    convolution, norm = "torch.nn.modules.conv.Conv3d", "torch.nn.modules.instancenorm.InstanceNorm3d"
    net = {
        "n_stages": count,
        "features_per_stage": widths,
        "conv_op": convolution,
        "kernel_sizes": [[3, 3, 3]] * count,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (count - 1),
        "n_conv_per_stage": [2] * count,
        "n_conv_per_stage_decoder": [2] * (count - 1),
        "conv_bias": True,
        "norm_op": norm,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    configuration = {
        "data_identifier": "plain",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": arguments.batch,
        "patch_size": list(arguments.patch),
        "median_image_size_in_voxels": list(arguments.patch),
        "spacing": [arguments.spacing] * 3,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": False,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": net,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return {
        "dataset_name": NAME,
        "plans_name": "nnUNetPlans",
        "continue_training": False,
        "configurations": {"plain": configuration},
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
    }


def monai(_row: Row, arguments: argparse.Namespace) -> Side:
    """The loop of MONAI's tutorials, with deep supervision as DynUNet's own."""
    import numpy as np
    import torch
    from monai.data import CacheDataset, DataLoader
    from monai.losses import DeepSupervisionLoss, DiceCELoss
    from monai.networks.nets import DynUNet
    from monai.transforms import Compose, RandCropByLabelClassesd, SpatialPadd

    recipe, cases = data_of(arguments)
    widths, classes = widths_of(arguments), len(recipe.labels) + 1
    count, keys = len(widths), ["image", "label"]
    crop = RandCropByLabelClassesd(
        keys, label_key="label", spatial_size=arguments.patch, ratios=[classes - 1] + [1] * (classes - 1),
        num_classes=classes, num_samples=1,
    )  # fmt: skip
    data = [{"image": np.array(c.image), "label": np.array(c.labels[None])} for c in cases[: -held_back(arguments)]]
    loader = DataLoader(
        CacheDataset(data * 200, Compose([SpatialPadd(keys, arguments.patch), crop]), num_workers=0, progress=False),
        batch_size=arguments.batch, shuffle=True, num_workers=os.cpu_count() or 1,
    )  # fmt: skip
    net = DynUNet(
        3, 1, classes, [3] * count, [1] + [2] * (count - 1), [2] * (count - 1), widths,
        norm_name=("INSTANCE", {"affine": True}), deep_supervision=True, deep_supr_num=max(count - 2, 1),
    ).to(arguments.device)  # fmt: skip
    loss = DeepSupervisionLoss(DiceCELoss(include_background=False, to_onehot_y=True, softmax=True), "exp")
    optimiser = torch.optim.SGD(net.parameters(), RATE, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY)

    def endless() -> Any:
        while True:
            yield from loader

    batches = iter(endless())

    def step(number: int) -> float:
        net.train()
        for group in optimiser.param_groups:
            group["lr"] = falling(number, arguments)
        began = time.monotonic()
        batch = next(batches)
        wait = time.monotonic() - began
        images, labels = (batch[key].as_tensor().to(arguments.device) for key in keys)
        optimiser.zero_grad()
        loss(list(net(images).unbind(1)), labels).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimiser.step()
        return wait

    return Side(step, net)


SIDES = {"ours": ours, "nnunet": nnunet, "monai": monai}


def one(row: Row, arguments: argparse.Namespace) -> None:
    """A child: sets a side up, then takes steps as told on its standard input and answers in JSON."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the libraries print goes elsewhere
    import torch

    from attentus.infer.processor import keep_memory

    if row.memory and not keep_memory():
        print("memory cannot be kept here", file=sys.stderr)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seeds[0])
    side = SIDES[row.side](row, arguments)
    if arguments.dice:
        answers.write(json.dumps(dice_after(side, arguments)) + "\n")
        side.close()
        return
    number = 0
    for _ in range(WARM_UP):
        side.step(number := number + 1)
    answers.write("{}\n")
    for command in sys.stdin:
        found: dict[str, Any] = {"wall": [], "processor": [], "wait": []}
        for _ in range(int(command)):
            wall, processor = time.perf_counter(), time.process_time()
            found["wait"].append(side.step(number := number + 1))
            _synchronise(arguments.device)
            found["wall"].append(time.perf_counter() - wall)
            found["processor"].append(time.process_time() - processor)
        found["mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        answers.write(json.dumps(found) + "\n")
    side.close()


def _synchronise(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()


def dice_after(side: Side, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train to the end of the schedule and score the cases held back, all sides by our sliding window."""
    import numpy as np
    import torch

    from attentus import metrics
    from attentus.infer.model import window_of
    from attentus.infer.sliding import sliding_window

    class Final(torch.nn.Module):
        """Any side's net as one of ours: a tuple, the final output first."""

        def __init__(self, net: Any) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Any) -> tuple[Any, ...]:
            found = self.net(x)
            return tuple(found) if isinstance(found, list | tuple) else (found,)

    spent, began = time.process_time(), time.perf_counter()
    for number in range(arguments.dice):
        side.step(number)
    wall, spent = time.perf_counter() - began, time.process_time() - spent
    recipe, cases = data_of(arguments)
    scores = []
    for case in cases[-held_back(arguments) :]:
        logits = sliding_window(Final(side.net).eval(), np.array(case.image), window_of(recipe), dims=3)["logits"]
        found = logits.argmax(0)
        numbers = range(1, len(recipe.labels) + 1)
        scores.append([float(metrics.dice(found == k, case.labels == k, empty="nnunet")) for k in numbers])
    each = dict(zip([s.name for s in recipe.labels], np.nanmean(scores, axis=0).tolist(), strict=True))
    return {"dice": statistics.mean(each.values()), "each": each, "wall": wall, "processor": spent, "scores": scores}


# The parent: starts, stops and continues the children; imports no torch.


class Child:
    """A row's process and whatever it starts, stopped except in its turn."""

    def __init__(self, number: int, arguments: argparse.Namespace, seed: int = 0) -> None:
        folder = Path(arguments.folder)
        flags = ["--augment"] if arguments.augment else []
        values = {"row": number, "folder": folder, "batch": arguments.batch, "threads": arguments.threads}
        values |= {"device": arguments.device, "dice": arguments.dice, "spacing": arguments.spacing, "seeds": seed}
        flags += [word for key, value in values.items() for word in (f"--{key}", str(value))]
        for key in ("patch", "widths"):
            flags += [f"--{key}", *map(str, getattr(arguments, key))]
        command = [sys.executable, "-W", "ignore", __file__, *flags]
        paths = {"raw": "raw", "preprocessed": "nnunet", "results": "results"}
        own = {f"nnUNet_{key}": str(folder / name) for key, name in paths.items()}
        with (folder / "said.txt").open("a") as said:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True,
                env={**os.environ, **own}, start_new_session=True,
            )  # fmt: skip
        self.rounds: list[dict[str, Any]] = []

    def answer(self) -> dict[str, Any]:
        said = self.process.stdout.readline()  # type: ignore[union-attr]
        if not said:
            raise RuntimeError("it ended early")
        found: dict[str, Any] = json.loads(said)
        return found

    def turn(self, steps: int) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)
        self.process.stdin.write(f"{steps}\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        self.rounds.append(self.answer())
        self.pause()

    def pause(self) -> None:
        os.killpg(self.process.pid, signal.SIGSTOP)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def measure(chosen: Sequence[int], arguments: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """The rounds of every row, by its name."""
    children: dict[str, Child] = {}
    try:
        for number in chosen:
            child = children[ROWS[number].name] = Child(number, arguments)
            try:
                child.answer()
            except RuntimeError as error:
                said = (Path(arguments.folder) / "said.txt").read_text().splitlines()[-3:]
                print(f"{ROWS[number].name}: {error}: {' | '.join(said)}", file=sys.stderr)
                children.pop(ROWS[number].name).end()
                continue
            child.pause()
        for _ in range(arguments.rounds):
            for child in children.values():
                child.turn(arguments.steps)
    finally:
        for child in children.values():
            child.end()
    return {name: child.rounds for name, child in children.items()}


def ratio(peer: Sequence[dict[str, Any]], own: Sequence[dict[str, Any]], what: str) -> float:
    """Median over the rounds of peer / ours."""
    pairs = zip(peer, own, strict=True)
    return statistics.median(statistics.median(p[what]) / statistics.median(o[what]) for p, o in pairs)


def against(found: dict[str, list[dict[str, Any]]], name: str, what: str) -> list[str]:
    """nnU-Net / this, the same with memory kept, MONAI / this, the same with memory kept."""
    peers = ("nnU-Net", "nnU-Net memory", "MONAI", "MONAI memory")
    return [f"{ratio(found[peer], found[name], what):.2f}" if peer in found else "-" for peer in peers]


def show(found: dict[str, list[dict[str, Any]]], arguments: argparse.Namespace) -> None:
    patch = " x ".join(map(str, arguments.patch))
    print(f"patch {patch}, batch {arguments.batch}, {arguments.device}, threads {arguments.threads or 'all'}")
    heads = ("s/step", "cpu s", "waits", "MiB", "nnU-Net/", "with mem.", "MONAI/", "with mem.")
    for what, title in (("wall", "ratios of wall time"), ("processor", "ratios of processor time")):
        print(f"{title:<27}" + "".join(f"{head:>10}" for head in heads))
        for name, rounds in found.items():
            times = {k: [t for one in rounds for t in one[k]] for k in ("wall", "processor", "wait")}
            waits = sum(times["wait"]) / max(sum(times["wall"]), 1e-9)
            cells = [f"{statistics.median(times['wall']):.2f}", f"{statistics.median(times['processor']):.2f}"]
            cells += [f"{waits:.1%}", f"{rounds[-1]['mib']:.0f}", *against(found, name, what)]
            print(f"{name:<27}" + "".join(f"{cell:>10}" for cell in cells))


def trained(number: int, arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Dice after a training of one row, told on stderr."""
    child = Child(number, arguments, seed)
    try:
        found = child.answer()
    finally:
        child.end()
    each = ", ".join(f"{name} {dice:.3f}" for name, dice in found["each"].items())
    minutes = f"{found['wall'] / 60:.1f} min, {found['processor'] / 60:.1f} of the processor"
    print(
        f"{ROWS[number].name}, seed {seed}: Dice {found['dice']:.4f} ({each}), {minutes}", file=sys.stderr, flush=True
    )
    return found


def summarise(found: dict[str, list[dict[str, Any]]]) -> None:
    """Mean and spread over the seeds."""
    print(f"{'':<27}{'Dice':>10}{'SD':>10}{'cpu min':>10}")
    for name, runs in found.items():
        dice, spent = [run["dice"] for run in runs], [run["processor"] / 60 for run in runs]
        spread = f"{statistics.stdev(dice):.4f}" if len(dice) > 1 else "-"
        print(f"{name:<27}{statistics.mean(dice):>10.4f}{spread:>10}{statistics.mean(spent):>10.1f}")


def installed(row: Row, arguments: argparse.Namespace) -> bool:
    needed = NEEDED.get(row.side)
    if needed and importlib.util.find_spec(needed) is None:
        print(f"{row.name}: no {needed} to measure against; see --help", file=sys.stderr)
        return False
    return not (row.side == "monai" and arguments.augment)


def main(arguments: argparse.Namespace) -> None:
    wanted = arguments.rows or [row.name for row in ROWS]
    chosen = [n for n, row in enumerate(ROWS) if row.name in wanted and installed(row, arguments)]
    found: dict[str, list[dict[str, Any]]] = {}
    with TemporaryDirectory(prefix="attentus-train-") as folder:
        arguments.folder = arguments.folder or folder
        Path(arguments.folder).mkdir(exist_ok=True)
        if arguments.dice:
            for seed in arguments.seeds:
                for number in chosen:
                    found.setdefault(ROWS[number].name, []).append(trained(number, arguments, seed))
            print(json.dumps(found)) if arguments.json else summarise(found)
            return
        found = measure(chosen, arguments)
        print(json.dumps(found)) if arguments.json else show(found, arguments)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, nargs=3, default=[64, 64, 64], help="voxels (default 64 64 64)")
    parser.add_argument("--batch", type=int, default=2, help="patches per step (default 2)")
    parser.add_argument("--steps", type=int, default=3, help="steps per turn (default 3)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every row (default 3)")
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in ROWS], help="only these")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch (default: its own choice)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--augment", action="store_true", help="with the augmentation that each does by default")
    parser.add_argument("--dice", type=int, default=0, help="instead: train so many steps and score")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of --dice, one training each (default 0)")
    parser.add_argument("--spacing", type=float, default=4.0, help="of the voxels, mm (default 4)")
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS), help="channels per level (nnU-Net's)")
    parser.add_argument("--json", action="store_true", help="every single time")
    parser.add_argument("--folder", default="", help="keep the data there, for the next time with the same settings")
    parser.add_argument("--row", type=int, default=-1, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    given = parse()
    if given.row >= 0:
        one(ROWS[given.row], given)
    else:
        main(given)
