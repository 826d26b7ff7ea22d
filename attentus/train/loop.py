"""The training loop, read downwards: cut, augment, forward, backward, step; now and then validate and save."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from attentus import metrics
from attentus.data.patches import Batch, PatchSampler, ahead
from attentus.errors import TrainingStopped
from attentus.infer.model import WEIGHTS, save_weights, window_of
from attentus.infer.sliding import sliding_window
from attentus.train.schedule import factor
from attentus.train.state import State, save_state
from attentus.transforms import augment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lightning.fabric import Fabric
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from attentus.data.cache import CachedCase
    from attentus.progress import Progress, Task
    from attentus.recipes import Recipe
    from attentus.train.log import Log


@dataclass(eq=False)
class Job:
    """All that a training works with."""

    recipe: Recipe
    folder: Path
    fabric: Fabric
    net: nn.Module
    optimiser: Optimizer
    loss: nn.Module
    train_cases: Sequence[CachedCase]
    validation_cases: Sequence[CachedCase]
    log: Log
    progress: Progress
    max_seconds: float | None = None

    def done(self, state: State) -> float:
        """Share of the training that lies behind, by steps or by the clock, whichever is further."""
        by_clock = state.seconds / self.max_seconds if self.max_seconds else 0.0
        return min(max(state.step / self.recipe.train.steps, by_clock), 1.0)


def run(job: Job, state: State) -> State:
    """Train from a state to the end of the budget; the best and the last weights are in the folder afterwards.

    Raises:
        TrainingStopped: the loss is not finite; the last checkpoint is kept and the message names the batch.
    """
    how = job.recipe.train
    spacing = job.train_cases[0].grid.spacing[-job.recipe.net.dims :]
    source = augment.source_size(how.patch, job.recipe.augment, spacing)
    sampler = PatchSampler(
        job.train_cases, _three(source), job.recipe.net.dims, how.batch, how.foreground, job.recipe.seed
    )
    numbers = range(state.step, how.steps)
    before, saved = state.seconds, time.monotonic()
    started = waited = time.monotonic()
    with job.progress.task("training", how.steps, state.step) as task:
        for number, batch in zip(numbers, ahead(sampler, numbers, how.workers), strict=True):
            wait = time.monotonic() - waited
            rate = how.learning_rate * factor(job.done(state), how.schedule)
            loss = _step(job, batch, number, rate, spacing)
            state.step += 1
            state.seconds = before + time.monotonic() - started
            _report(job, task, state, {"loss": loss, "lr": rate, "wait": wait, "seconds": time.monotonic() - waited})
            over = job.done(state) >= 1
            if over or state.step % how.validate_every == 0:
                _validate(job, state)
                state.seconds = before + time.monotonic() - started
                state.finished = over = job.done(state) >= 1
            if over or state.step % how.validate_every == 0 or time.monotonic() - saved > how.checkpoint_every:
                save(job, state)
                saved = time.monotonic()
            if over:
                break
            waited = time.monotonic()
    return state


def save(job: Job, state: State) -> None:
    """Write the checkpoint from which the run can go on."""
    save_state(job.folder / WEIGHTS["last"], state, _bare(job.net), job.optimiser)


def validate(
    net: nn.Module, cases: Sequence[CachedCase], recipe: Recipe, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Mean Dice of each structure over prepared cases, by real sliding-window inference on the prepared grid.

    A structure that neither prediction nor reference of a case holds does not count there; nan if it never counts.
    """
    window = window_of(recipe)
    table = np.full((len(cases), len(recipe.labels)), np.nan)
    for row, case in enumerate(cases):
        maps = sliding_window(net, case.image, window, dims=recipe.net.dims, device=device)
        found, truth = maps["logits"].argmax(axis=0), case.labels
        for column in range(len(recipe.labels)):
            table[row, column] = metrics.dice(found == column + 1, truth == column + 1, empty="nnunet")
    counted = ~np.isnan(table)
    means = np.where(counted, table, 0).sum(0) / np.where(counted.any(0), counted.sum(0), np.nan)
    return {structure.name: float(mean) for structure, mean in zip(recipe.labels, means, strict=True)}


def _step(job: Job, batch: Batch, number: int, rate: float, spacing: Sequence[float]) -> float:
    """One update; returns the loss."""
    how = job.recipe
    torch.manual_seed(hash_seed(how.seed, number))  # dropout and the like follow the step, too
    generator = torch.Generator().manual_seed(hash_seed(how.seed + 1, number))
    images, labels = (torch.from_numpy(part).to(job.fabric.device) for part in (batch.images, batch.labels))
    drawn = augment.draw(how.augment, len(images), how.train.patch, spacing, generator)
    images, labels = augment.apply(images, labels, drawn, how.train.patch)

    for group in job.optimiser.param_groups:
        group["lr"] = rate
    job.net.train()
    loss: Tensor = job.loss(job.net(images), labels)
    if not torch.isfinite(loss):
        where = ", ".join(f"{case} at {start}" for case, start in batch.origin)
        raise TrainingStopped(
            f"The loss became {loss.item()} at step {number} (patches: {where}).\n"
            f"  The last checkpoint is kept. Lower train.learning_rate, keep train.clip, or look at these cases."
        )
    job.optimiser.zero_grad(set_to_none=True)
    job.fabric.backward(loss)
    if how.train.clip:
        job.fabric.clip_gradients(job.net, job.optimiser, max_norm=how.train.clip, error_if_nonfinite=False)
    job.optimiser.step()
    return float(loss.item())


def hash_seed(seed: int, number: int) -> int:
    """One well-mixed seed out of two numbers."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 1)


def _validate(job: Job, state: State) -> None:
    dice = validate(job.net, job.validation_cases, job.recipe, job.fabric.device)
    known = [value for value in dice.values() if not math.isnan(value)]
    mean = sum(known) / len(known) if known else 0.0
    if mean > state.best:
        state.best, state.best_step = mean, state.step
        save_weights(_bare(job.net), job.folder / WEIGHTS["best"])
    job.log.write("validation", state.step, mean=mean, **{f"dice {name}": value for name, value in dice.items()})
    each = ", ".join(f"{name} {value:.3f}" for name, value in dice.items())
    job.progress.say(f"step {state.step}: validation Dice {mean:.4f} ({each}); best {state.best:.4f}")


def _report(job: Job, task: Task, state: State, facts: dict[str, float]) -> None:
    job.log.write("step", state.step, **{name: float(f"{value:.6g}") for name, value in facts.items()})
    share = facts["wait"] / max(facts["seconds"], 1e-9)
    note = f"loss {facts['loss']:.4f}  lr {facts['lr']:.1e}  {facts['seconds']:.2f} s/it  waiting for data {share:.0%}"
    expected = round(state.step / job.done(state)) if job.max_seconds else None  # the clock may end it sooner
    task.advance(1, note, expected)


def _bare(net: nn.Module) -> nn.Module:
    """The net without Fabric's wrapping."""
    inner: nn.Module = getattr(net, "module", net)
    return inner


def _three(size: Sequence[int]) -> tuple[int, int, int]:
    z, y, x = size if len(size) == 3 else (1, *size)
    return z, y, x
