"""`fit`: from a recipe and a dataset to a model folder. Called again on an unfinished folder, it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from attentus import losses, nets
from attentus.data.cache import CachedCase, prepare_cases
from attentus.data.resolve import resolve
from attentus.errors import BadFile, BadInput, RecipeError
from attentus.infer.model import WEIGHTS, Model, create_net
from attentus.io.atomic import write_text
from attentus.progress import Progress, Silent
from attentus.recipes import Recipe, differences, dump
from attentus.train.evaluate import evaluate, write_card
from attentus.train.log import Log, has_tensorboard
from attentus.train.loop import Job, hash_seed, run, save
from attentus.train.state import State, load_state, peek_state

if TYPE_CHECKING:
    from os import PathLike

    from torch import nn
    from torch.optim import Optimizer

    from attentus.data.dataset import Dataset

PRECISIONS: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
THIN = 2
"""Depth of feature maps for which bf16 fails on CPUs."""
CACHE = ".attentus-cache"
"""Prepared cases lie in this folder beside the run, shared by all runs there."""


def fit(
    recipe: Recipe,
    dataset: Dataset,
    out: str | PathLike[str],
    *,
    max_time: float | None = None,
    cache: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Model:
    """Train a model and evaluate it on the fold held back.

    The folder `out` becomes the model. If it holds an unfinished run of the same recipe and data, that run goes on,
    and ends with the same weights as if it had never stopped (unless `max_time` lets the clock decide).

    Args:
        recipe: what to do.
        dataset: cases with labels.
        out: the model folder.
        max_time: seconds of training and validation, at most; the schedule is fitted to it.
        cache: where prepared cases are kept; None takes a folder beside `out`, shared by the runs there.
        progress: shows what happens.

    Returns:
        The model with its best weights.

    Raises:
        RecipeError: the recipe does not fit the data, or the folder holds a run of another recipe.
        BadInput: no usable case on one side of the split.
        TrainingStopped: the loss is not finite.
    """
    folder, progress = Path(out), progress or Silent()
    resolved = resolve(recipe, dataset)
    check_buildable(resolved)
    _continue_or_begin(folder, resolved)
    learn, hold = dataset.split(resolved.split.folds, resolved.split.fold, resolved.split.seed)
    ready, failures = prepare_cases(dataset, resolved, Path(cache or folder.parent / CACHE), progress)
    for case, message in failures.items():
        progress.say(f"left out: {case}: {message}")
    sides = [[case for case in ready if case.id in {c.id for c in part}] for part in (learn, hold)]
    _record_data(folder, dataset, sides, failures)

    state = peek_state(folder / WEIGHTS["last"])
    if state is None or not state.finished:
        state = _train(resolved, folder, sides, max_time, progress)
    model = Model.load(folder)
    if not (folder / "scores.json").is_file():
        scores = evaluate(model, dataset.subset(c.id for c in sides[1]), folder, progress)
        write_card(folder, resolved, scores, _facts(state, sides, model.net))
    return model


def _train(
    recipe: Recipe,
    folder: Path,
    sides: list[list[CachedCase]],
    max_time: float | None,
    progress: Progress,
) -> State:
    from lightning.fabric import Fabric

    if recipe.train.precision == "fp16" and not torch.cuda.is_available():
        raise RecipeError("train.precision: fp16 needs a GPU; take bf16 or fp32 on a CPU.")
    fabric = Fabric(accelerator="auto", devices=1, precision=PRECISIONS[recipe.train.precision])
    fabric.launch()
    torch.manual_seed(hash_seed(recipe.seed, 2**31))
    bare = create_net(recipe)
    weights = recipe.loss.head_weights or getattr(bare, "supervision", None)
    loss = losses.DeepSupervision(losses.create(recipe.loss.name, **recipe.loss.options), weights)
    raw = _optimiser(recipe, bare)
    last = folder / WEIGHTS["last"]
    state = load_state(last, bare, raw) if last.is_file() else State()
    net, optimiser = fabric.setup(bare, raw)
    if state.step:
        progress.say(f"going on from step {state.step} of {recipe.train.steps}")
    if not has_tensorboard():
        progress.say("TensorBoard is not installed: curves are in metrics.jsonl (pip install 'attentus[tensorboard]')")
    log = Log(folder, state.step)
    job = Job(
        recipe,
        folder,
        fabric,
        net,
        optimiser,
        loss.to(fabric.device),
        sides[0],
        _spread(sides[1], recipe.train.validate_cases),
        log,
        progress,
        max_time,
    )
    try:
        return run(job, state)
    except KeyboardInterrupt:
        save(job, state)
        progress.say(f"stopped at step {state.step}; run the same command again to go on")
        raise
    finally:
        log.close()


def check_buildable(recipe: Recipe) -> int:
    """Build net and loss once without memory, so that a wrong name, option or patch ends here and not after preparing.

    Returns:
        Number of parameters; labels and channels not yet resolved count as one.

    Raises:
        UnknownName, BadInput: no such net, loss or option.
        RecipeError: a patch the net cannot halve as often as it needs to, or weights for more or fewer outputs.
    """
    channels, classes = max(len(recipe.channels), 1), 1 + max(len(recipe.labels), 1)
    how = recipe.net
    with torch.device("meta"):
        net = nets.create(how.name, how.dims, channels, classes, **how.options)
        losses.create(recipe.loss.name, **recipe.loss.options)
    multiple = getattr(net, "multiple", 1)
    if any(n % multiple for n in recipe.train.patch):
        fitting = [-(-n // multiple) * multiple for n in recipe.train.patch]
        raise RecipeError(
            f"train.patch: the net '{how.name}' halves its input until sides must be multiples of {multiple};"
            f" {list(recipe.train.patch)} is not. Take {fitting}."
        )
    if (given := recipe.loss.head_weights) is not None:
        outputs = len(net.train()(torch.empty(2, channels, *recipe.train.patch, device="meta")))
        if len(given) != outputs:
            raise RecipeError(f"loss.head_weights: the net '{how.name}' has {outputs} outputs; {len(given)} are given.")
    if recipe.train.precision == "bf16" and how.dims == 3 and not torch.cuda.is_available():
        _refuse_thin_maps(net, channels, recipe.train.patch)
    return sum(p.numel() for p in net.parameters())


def _refuse_thin_maps(net: nn.Module, channels: int, patch: tuple[int, ...]) -> None:
    """Refuse bf16 where it would train on garbage.

    On CPUs, the bf16 gradient of a 3x3x3 convolution's weights is made from uninitialised memory when its input is
    two slices deep (seen with torch 2.13 and oneDNN 3.12; other depths are right).
    """
    depths: set[int] = set()
    hooks = [
        module.register_forward_hook(lambda _module, inputs, _output: depths.add(inputs[0].shape[2]))
        for module in net.modules()
        if isinstance(module, torch.nn.Conv3d) and module.kernel_size[0] == 3
    ]
    net.eval()(torch.empty(1, channels, *patch, device="meta"))
    for hook in hooks:
        hook.remove()
    if THIN in depths:
        raise RecipeError(
            f"train.precision: with patches {patch[0]} deep this net has feature maps {THIN} slices deep, for which"
            " bf16 on a processor computes wrong gradients.\n"
            f"  Take fp32, or a patch depth that never halves to {THIN}, such as 48 or 64."
        )


def _continue_or_begin(folder: Path, recipe: Recipe) -> None:
    """Write the recipe into a new folder, or make sure that an existing run is one of this recipe."""
    file = folder / "recipe.yaml"
    if not file.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise BadFile(folder, "is not empty and holds no run", "Choose an empty or a new folder.")
        write_text(file, dump(recipe))
        return
    changed = differences(Recipe.load(file), recipe)
    if changed:
        raise RecipeError(
            f"{folder} holds a run of another recipe:\n  " + "\n  ".join(changed) + "\n  Choose another folder."
        )


def _record_data(folder: Path, dataset: Dataset, sides: list[list[CachedCase]], failures: dict[str, str]) -> None:
    """Write data.json, or make sure that an existing run saw the same cases."""
    for name, side in zip(("train on", "validate on"), sides, strict=True):
        if not side:
            reasons = "\n  ".join(f"{case}: {message}" for case, message in failures.items())
            raise BadInput(f"{dataset.root}: there is no usable case to {name}.\n  {reasons}")
    facts: dict[str, Any] = {
        "dataset": dataset.name,
        "root": str(dataset.root.resolve()),
        "labels": dict(dataset.labels),
        "train": {case.id: case.folder.name for case in sides[0]},
        "validation": {case.id: case.folder.name for case in sides[1]},
        "left out": failures,
    }
    file = folder / "data.json"
    if file.is_file():
        stored = json.loads(file.read_text(encoding="utf-8"))
        if any(stored[part] != facts[part] for part in ("train", "validation")):
            raise BadInput(f"{folder} holds a run on other data: files or cases changed since. Choose another folder.")
        return
    write_text(file, json.dumps(facts, indent=1))


def _optimiser(recipe: Recipe, net: nn.Module) -> Optimizer:
    how = recipe.train
    if how.optimiser == "sgd":
        return torch.optim.SGD(
            net.parameters(), how.learning_rate, momentum=0.99, nesterov=True, weight_decay=how.weight_decay
        )
    kind = torch.optim.Adam if how.optimiser == "adam" else torch.optim.AdamW
    return kind(net.parameters(), how.learning_rate, weight_decay=how.weight_decay)


def _spread(cases: list[CachedCase], most: int) -> list[CachedCase]:
    """At most that many cases, evenly spread over the list."""
    count = min(most, len(cases))
    return [cases[k * len(cases) // count] for k in range(count)]


def _facts(state: State, sides: list[list[CachedCase]], net: nn.Module) -> dict[str, str]:
    parameters = sum(p.numel() for p in net.parameters())
    return {
        "Parameters": f"{parameters:,}",
        "Attention modules": str(len(nets.taps(net))),
        "Trained on": f"{len(sides[0])} cases, validated on {len(sides[1])}",
        "Training": f"{state.step} steps in {state.seconds / 60:.1f} minutes; best weights from step {state.best_step}",
    }
