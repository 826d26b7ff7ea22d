"""`fit`: from a recipe and a dataset to a model folder. Called again on an unfinished folder, it goes on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from attentus import losses, nets
from attentus.data.cache import CachedCase, prepare_cases
from attentus.data.patches import PatchSampler
from attentus.data.resolve import context, members, region_table, resolve
from attentus.errors import BadFile, BadInput, RecipeError
from attentus.infer.early_exit import check_early_exit
from attentus.infer.model import WEIGHTS, Model, create_net, recipe_of, window_of
from attentus.infer.processor import keep_memory
from attentus.io.atomic import write_text
from attentus.progress import Progress, Silent
from attentus.recipes import Recipe, differences, dump
from attentus.train import loop
from attentus.train.devices import concrete, launch, on_first
from attentus.train.evaluate import evaluate, write_card
from attentus.train.log import Log, NoLog, has_tensorboard
from attentus.train.postprocess import BEFORE
from attentus.train.signals import listening_for_signals
from attentus.train.snapshots import Looks, check_cases, check_snapshots, choose, geometry_of, moments_of, spread
from attentus.train.speed import compiled, prepare_net
from attentus.train.state import State, load_state, peek_state
from attentus.train.transfer import describe, transfer
from attentus.train.updates import freeze, optimiser, running_mean
from attentus.transforms import augment

if TYPE_CHECKING:
    from os import PathLike

    from lightning_fabric import Fabric
    from torch import nn

    from attentus.data.dataset import Dataset

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
    devices: int = 1,
    num_nodes: int = 1,
) -> Model:
    """Train a model and evaluate it on the cases held back.

    The folder `out` becomes the model. If it holds an unfinished run of the same recipe and data, that run goes on,
    and ends with the same weights as if it had never stopped (unless `max_time` lets the clock decide).

    Args:
        recipe: what to do.
        dataset: cases with labels.
        out: the model folder.
        max_time: seconds of training and validation, at most; the schedule is fitted to it.
        cache: where prepared cases are kept; None takes a folder beside `out`, shared by the runs there.
        progress: shows what happens.
        devices: GPUs, or processes where there is none, that share every batch (DDP). More than one starts this
            program again for each of them, so guard a script with `if __name__ == "__main__"`.
        num_nodes: machines; each runs the same command, under torchrun or SLURM.

    Returns:
        The model with its best weights.

    Raises:
        RecipeError: the recipe does not fit the data, or the folder holds a run of another recipe.
        BadInput: no usable case on one side of the split.
        TrainingStopped: the loss is not finite.
    """
    folder = Path(out)
    fabric = launch(recipe.train, devices, num_nodes)
    resolved = on_first(fabric, lambda: _settle(recipe, dataset, folder))
    run = Run(fabric, resolved, folder, progress if progress and fabric.is_global_zero else Silent())
    sides = on_first(fabric, lambda: _begin(run, dataset, Path(cache or folder.parent / CACHE)))
    state = peek_state(folder / WEIGHTS["last"])
    if state is None or not state.finished:
        state = _train(run, dataset, sides, max_time)
    on_first(fabric, lambda: _evaluate(run, dataset, sides, state))
    return Model.load(folder)


@dataclass(frozen=True, eq=False)
class Run:
    """What every part of a training needs to know."""

    fabric: Fabric
    recipe: Recipe
    """Resolved."""
    folder: Path
    progress: Progress


class Sides(NamedTuple):
    """Prepared cases on each side of the split."""

    train: list[CachedCase]
    validation: list[CachedCase]
    test: list[CachedCase]

    @property
    def evaluated(self) -> list[CachedCase]:
        """Those on which the finished model is judged."""
        return self.test or self.validation


def _settle(recipe: Recipe, dataset: Dataset, folder: Path) -> Recipe:
    """The recipe resolved, after a look at whatever could end the training later."""
    resolved = resolve(recipe, dataset)
    check_buildable(resolved)
    _, validation, test = dataset.parts(resolved.split)
    check_cases(resolved, [case.id for case in (*validation, *test)])
    if recipe.start.model and not (folder / WEIGHTS["last"]).is_file():
        recipe_of(recipe.start.model)
    return resolved


def _begin(run: Run, dataset: Dataset, cache: Path) -> Sides:
    """Prepare the cases, and write down or check what the run is about."""
    parts = dataset.parts(run.recipe.split)
    _continue_or_begin(run.folder, run.recipe)
    used = dataset.subset(case.id for part in parts for case in part)
    ready, failures = prepare_cases(used, run.recipe, cache, run.progress)
    for case, message in failures.items():
        run.progress.say(f"left out: {case}: {message}")
    sides = Sides(*([case for case in ready if case.id in {c.id for c in part}] for part in parts))
    _record_data(run.folder, dataset, sides, failures)
    return sides


def _train(run: Run, dataset: Dataset, sides: Sides, max_time: float | None) -> State:
    job, state = set_up(run, sides.train, sides.validation)
    if run.recipe.train.snapshots.cases:
        job.looks = _looks(run, dataset, sides, job, state)
    limits = [limit for limit in (max_time, 60 * (run.recipe.train.minutes or 0)) if limit]
    job.max_seconds = min(limits, default=None)
    if state.step:
        run.progress.say(f"going on from step {state.step} of {job.steps}")
    if not has_tensorboard():
        run.progress.say(
            "TensorBoard is not installed: curves are in metrics.jsonl (pip install 'attentus[tensorboard]')"
        )
    with listening_for_signals() as job.stop, job.log:
        try:
            return loop.run(job, state)
        except KeyboardInterrupt:
            if job.whole:
                loop.save(job, state)
            reached = f"at step {state.step}" if job.whole else f"during step {state.step}, not saved"
            run.progress.say(f"stopped {reached}; run the same command again to go on")
            raise


def _looks(run: Run, dataset: Dataset, sides: Sides, job: loop.Job, state: State) -> Looks:
    """What will take snapshots; moments that the training cannot reach are told."""
    cases = choose(run.recipe, sides.validation, sides.test)
    last = job.steps / job.epoch
    for moment in moments_of(run.recipe):
        if not moment.reached(1.0, last):
            run.progress.say(f"train.snapshots: {moment.name} lies beyond the {last:g} epochs of this training")
    make = partial(Looks, run.folder, run.recipe, cases, geometry_of(dataset, cases), state.step)
    return on_first(run.fabric, make)


def set_up(run: Run, train: list[CachedCase], validation: list[CachedCase]) -> tuple[loop.Job, State]:
    """Net, loss, optimiser and sampler of a recipe, at the state the folder holds, or at the beginning."""
    recipe, fabric, how = run.recipe, run.fabric, run.recipe.train
    last = run.folder / WEIGHTS["last"]
    torch.manual_seed(loop.hash_seed(recipe.seed, 2**31))
    bare = create_net(recipe)
    if recipe.start.model and not last.is_file():
        for line in describe(transfer(bare, recipe, recipe.start.model)):
            run.progress.say(line)
    freeze(bare, recipe.start.freeze)
    keep_memory()
    prepare_net(bare, recipe.net.dims, concrete(how.precision), fabric.device)
    mean, plain = running_mean(how, bare), optimiser(how, bare)
    state = load_state(last, bare, plain, mean) if last.is_file() else State()
    if how.compile:
        compiled(bare, fabric.device)
    net, wrapped = fabric.setup(bare, plain)
    if state.scaler:
        fabric.strategy.precision.load_state_dict(state.scaler)
    job = loop.Job(
        recipe=recipe,
        folder=run.folder,
        fabric=fabric,
        bare=bare,
        net=net,
        optimiser=wrapped,
        loss=supervised_loss(recipe, bare).to(fabric.device),
        sampler=sampler_of(recipe, train),
        validation_cases=spread(validation, how.validate_cases),
        log=Log(run.folder, state.step) if fabric.is_global_zero else NoLog(),
        progress=run.progress,
        mean=mean.to(fabric.device) if mean else None,
    )
    return job, state


def sampler_of(recipe: Recipe, cases: list[CachedCase]) -> PatchSampler:
    """What cuts the patches of a training."""
    dims, patch, how = recipe.net.dims, recipe.train.patch, recipe.sampling
    source = augment.source_size(patch, recipe.augment, cases[0].grid.spacing[-dims:])
    z, y, x = source if dims == 3 else (1, *source)
    own = window_of(recipe).size
    return PatchSampler(
        cases, (z, y, x), dims, recipe.train.batch, recipe.seed, how, members(recipe), own, context(recipe)
    )


def supervised_loss(recipe: Recipe, net: nn.Module) -> losses.DeepSupervision:
    """The recipe's loss on every output of its net."""
    options = {**({"activation": "sigmoid"} if recipe.regions else {}), **recipe.loss.options}
    weights = recipe.loss.head_weights or getattr(net, "supervision", None)
    table = region_table(recipe)
    loss = losses.create(recipe.loss.name, **options)
    return losses.DeepSupervision(loss, weights, None if table is None else torch.from_numpy(table))


def _evaluate(run: Run, dataset: Dataset, sides: Sides, state: State) -> None:
    if (run.folder / "scores.json").is_file():
        return
    model = Model.load(run.folder)
    scores = evaluate(model, dataset.subset(c.id for c in sides.evaluated), run.folder, run.progress)
    write_card(run.folder, run.recipe, scores, _facts(state, sides, model.net))


def check_buildable(recipe: Recipe) -> int:
    """Build net and loss once without memory, so that a wrong name, option or patch ends here and not after preparing.

    Returns:
        Number of parameters; labels and channels not yet resolved count as one.

    Raises:
        UnknownName, BadInput: no such net, loss or option.
        RecipeError: a patch the net cannot halve as often as it needs to, weights for more or fewer outputs, or early
            exit of a net that has no heads to compare.
    """
    channels, classes = max(len(recipe.channels), 1), len(recipe.outputs) + (not recipe.labels)
    how = recipe.net
    with torch.device("meta"):
        net = nets.create(how.name, how.dims, channels, classes, **how.options)
        supervised_loss(recipe, net)
        freeze(net, recipe.start.freeze)
    check_early_exit(recipe, net)
    check_snapshots(recipe, net)
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
    return sum(p.numel() for p in net.parameters())


def _continue_or_begin(folder: Path, recipe: Recipe) -> None:
    """Write the recipe into a new folder, or make sure that an existing run is one of this recipe."""
    file = folder / "recipe.yaml"
    if not file.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise BadFile(folder, "is not empty and holds no run", "Choose an empty or a new folder.")
        write_text(file, dump(recipe))
        return
    trained = folder / BEFORE  # post-processing was tuned since, which is no matter of training
    changed = differences(Recipe.load(trained if trained.is_file() else file), recipe)
    if changed:
        raise RecipeError(
            f"{folder} holds a run of another recipe:\n  " + "\n  ".join(changed) + "\n  Choose another folder."
        )


def _record_data(folder: Path, dataset: Dataset, sides: Sides, failures: dict[str, str]) -> None:
    """Write data.json, or make sure that an existing run saw the same cases."""
    for name, side in (("train on", sides.train), ("validate on", sides.validation)):
        if not side:
            reasons = "\n  ".join(f"{case}: {message}" for case, message in failures.items())
            raise BadInput(f"{dataset.root}: there is no usable case to {name}.\n  {reasons}")
    facts: dict[str, Any] = {
        "dataset": dataset.name,
        "root": str(dataset.root.resolve()),
        "labels": dict(dataset.labels),
        "train": {case.id: case.folder.name for case in sides.train},
        "validation": {case.id: case.folder.name for case in sides.validation},
        "test": {case.id: case.folder.name for case in sides.test},
        "left out": failures,
    }
    file = folder / "data.json"
    if file.is_file():
        stored = json.loads(file.read_text(encoding="utf-8"))
        if any(stored[part] != facts[part] for part in ("train", "validation", "test")):
            raise BadInput(f"{folder} holds a run on other data: files or cases changed since. Choose another folder.")
        return
    write_text(file, json.dumps(facts, indent=1))


def _facts(state: State, sides: Sides, net: nn.Module) -> dict[str, str]:
    parameters = sum(p.numel() for p in net.parameters())
    return {
        "Parameters": f"{parameters:,}",
        "Attention modules": str(len(nets.taps(net))),
        "Trained on": f"{len(sides.train)} cases, validated on {len(sides.validation)}"
        + (f", tested on {len(sides.test)}" if sides.test else ""),
        "Training": f"{state.step} steps in {state.seconds / 60:.1f} minutes; best weights from step {state.best_step}",
    }
