"""The training loop, read downwards: cut, augment, forward, backward, step; now and then validate and save."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from attentus import metrics
from attentus.data.patches import Batch, ahead
from attentus.data.resolve import members
from attentus.errors import TrainingStopped
from attentus.infer.model import WEIGHTS, save_weights, window_of
from attentus.infer.segment import NO_VOTE, mute
from attentus.infer.sliding import sliding_window
from attentus.train.schedule import PLATEAU, epoch_steps, factor, total_steps
from attentus.train.signals import Stop
from attentus.train.state import State, save_batch, save_state
from attentus.transforms import augment
from attentus.types import IGNORE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lightning_fabric import Fabric
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from torch.optim.swa_utils import AveragedModel

    from attentus.data.cache import CachedCase
    from attentus.data.patches import PatchSampler
    from attentus.progress import Progress, Task
    from attentus.recipes import Recipe
    from attentus.train.log import Log
    from attentus.train.snapshots import Looks


@dataclass(eq=False)
class Job:
    """All that a training works with."""

    recipe: Recipe
    folder: Path
    fabric: Fabric
    bare: nn.Module
    """The net itself."""
    net: nn.Module
    """The net as Fabric wraps it: in the chosen precision, on one device or many."""
    optimiser: Optimizer
    loss: nn.Module
    sampler: PatchSampler
    validation_cases: Sequence[CachedCase]
    log: Log
    progress: Progress
    mean: AveragedModel | None = None
    """The running mean of the weights, where the recipe wants one."""
    max_seconds: float | None = None
    enough: float = math.inf
    """Mean Dice on validation at which the training may end."""
    looks: Looks | None = None
    """Takes snapshots of the attention, where the recipe wants them."""
    stop: Stop = field(default_factory=Stop)
    whole: bool = True
    """Whether weights, optimiser and state belong together; not so from the start of a step to its validation."""

    @property
    def epoch(self) -> int:
        """Steps in which as many patches are seen as the recipe counts to an epoch."""
        return epoch_steps(self.recipe, len(self.sampler))

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return total_steps(self.recipe, len(self.sampler))

    @property
    def best_net(self) -> nn.Module:
        """The net that is validated and kept: the running mean if there is one."""
        return self.mean.module if self.mean else self.bare

    def done(self, state: State) -> float:
        """Share of the training that lies behind, by steps or by the clock, whichever is further."""
        by_clock = state.seconds / self.max_seconds if self.max_seconds else 0.0
        return min(max(state.step / self.steps, by_clock), 1.0)

    def over(self, state: State) -> bool:
        """Whether the training has come to its end, planned or early."""
        patience = self.recipe.train.patience
        waited = state.step - state.best_step
        return (
            self.done(state) >= 1
            or state.best >= self.enough
            or (patience is not None and waited >= patience * self.epoch)
        )

    def rate(self, state: State) -> float:
        """Step size of the next update."""
        how = self.recipe.train
        share = factor(self.done(state), how.schedule, epochs=state.step / self.epoch, drops=state.drops)
        return how.learning_rate * share


def run(job: Job, state: State) -> State:
    """Train from a state to the end of the budget; the best and the last weights are in the folder afterwards.

    Raises:
        TrainingStopped: the loss is not finite; the last checkpoint is kept, the batch is saved and the message names
            its patches.
        KeyboardInterrupt: somebody asked to stop; the state is saved.
    """
    how, fabric = job.recipe.train, job.fabric
    numbers = range(state.step * how.accumulate, job.steps * how.accumulate)
    batches = ahead(job.sampler, numbers, how.workers, fabric.global_rank, fabric.world_size)
    before, started, saved = state.seconds, time.monotonic(), time.monotonic()
    with job.progress.task("training", job.steps, state.step) as task:
        started += _look(job, state)  # before the first step, or where an interruption came before it
        while not state.finished:
            begun, rate = time.monotonic(), job.rate(state)
            job.whole = False
            loss, wait = _update(job, batches, state.step, rate)
            state.step += 1
            state.seconds = before + time.monotonic() - started
            over = _agreed(job, job.done(state) >= 1)
            validating = over or state.step % how.validate_every == 0
            job.whole = not validating
            _report(job, task, state, {"loss": loss, "lr": rate, "wait": wait, "seconds": time.monotonic() - begun})
            if validating:
                _validate(job, state)
                state.seconds = before + time.monotonic() - started
                state.finished = _agreed(job, job.over(state))
            started += _look(job, state)
            job.whole = True
            if validating or time.monotonic() - saved > how.checkpoint_every:
                save(job, state)
                saved = time.monotonic()
            if _agreed(job, job.stop.asked) and not state.finished:
                raise KeyboardInterrupt
    return state


def save(job: Job, state: State) -> None:
    """Write the checkpoint from which the run can go on."""
    state.scaler = job.fabric.strategy.precision.state_dict()
    if job.fabric.is_global_zero:
        save_state(job.folder / WEIGHTS["last"], state, job.bare, job.optimiser, job.mean)


def validate(
    net: nn.Module, cases: Sequence[CachedCase], recipe: Recipe, device: torch.device | str = "cpu"
) -> NDArray[np.float64]:
    """Dice of each structure (columns) in prepared cases (rows), by sliding windows on the prepared grid.

    nan where neither prediction nor reference of a case holds the structure; voxels to be ignored do not count.
    """
    window, parts = window_of(recipe), list(members(recipe).values())
    table = np.full((len(cases), len(parts)), np.nan)
    for row, case in enumerate(cases):
        logits = sliding_window(net, case.image, window, dims=recipe.net.dims, device=device)["logits"]
        logits[mute(recipe)] = NO_VOTE
        counted = case.labels != IGNORE
        best = None if recipe.regions else logits.argmax(axis=0)
        for column, numbers in enumerate(parts):
            found = logits[column] > 0 if best is None else best == column + 1
            truth = np.isin(case.labels, numbers)
            table[row, column] = metrics.dice(found & counted, truth & counted, empty="nnunet")
    return table


def _update(job: Job, batches: Iterator[Batch], step: int, rate: float) -> tuple[float, float]:
    """One change of the weights; returns the loss and the seconds spent waiting for patches."""
    how, fabric = job.recipe.train, job.fabric
    for group in job.optimiser.param_groups:
        group["lr"] = rate
    job.net.train()
    job.optimiser.zero_grad(set_to_none=True)
    total, wait = 0.0, 0.0
    for part in range(how.accumulate):
        began = time.monotonic()
        batch = next(batches)
        wait += time.monotonic() - began
        number = step * how.accumulate + part
        images, labels = _augmented(job, batch, number)
        with fabric.no_backward_sync(job.net, enabled=part + 1 < how.accumulate):  # type: ignore[arg-type]
            loss: Tensor = job.loss(job.net(images), labels)
            total += _finite(job, loss, step, Patches(batch, images, labels)) / how.accumulate
            fabric.backward(loss / how.accumulate)
    if how.clip:
        fabric.clip_gradients(job.net, job.optimiser, max_norm=how.clip, error_if_nonfinite=False)
    job.optimiser.step()
    if job.mean:
        job.mean.update_parameters(job.bare)
    return total, wait


def _augmented(job: Job, batch: Batch, number: int) -> tuple[Tensor, Tensor]:
    """Patches as the net gets them: changed by what is drawn for that batch number."""
    how, fabric = job.recipe, job.fabric
    torch.manual_seed(hash_seed(how.seed + fabric.global_rank, number))  # dropout and the like follow the step, too
    generator = torch.Generator().manual_seed(hash_seed(how.seed + 1, number))
    images, labels = (torch.from_numpy(part).to(fabric.device) for part in (batch.images, batch.labels))
    spacing = job.sampler.cases[0].grid.spacing[-how.net.dims :]
    drawn = augment.draw(how.augment, how.train.batch, how.train.patch, spacing, generator)
    mine = len(images) * fabric.global_rank
    return augment.apply(images, labels, drawn.pick(range(mine, mine + len(images))), how.train.patch)


class Patches(NamedTuple):
    """A batch as it was cut, and as the net got it."""

    cut: Batch
    images: Tensor
    labels: Tensor


def _finite(job: Job, loss: Tensor, step: int, patches: Patches) -> float:
    """The loss over all devices as a number.

    Raises:
        TrainingStopped: it is not finite.
    """
    value = float(loss.item())
    overall = float(job.fabric.all_reduce(loss.detach(), reduce_op="mean")) if job.fabric.world_size > 1 else value  # type: ignore[arg-type]
    if math.isfinite(overall):
        return overall
    where = ", ".join(f"{case} at {start}" for case, start in patches.cut.origin)
    if math.isfinite(value):
        raise TrainingStopped(f"The loss became {overall} at step {step} on another device.")
    file = save_batch(job.folder, step, patches.images, patches.labels, where)
    raise TrainingStopped(
        f"The loss became {value} at step {step} (patches: {where}).\n"
        f"  The batch is in {file}; the last checkpoint is kept. Lower train.learning_rate, keep train.clip, or look at"
        " these cases."
    )


def hash_seed(seed: int, number: int) -> int:
    """One well-mixed seed out of two numbers."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 1)


def _validate(job: Job, state: State) -> None:
    """Look at the held-back cases, each device at its share; keep the weights if they are the best so far."""
    fabric, names = job.fabric, [structure.name for structure in job.recipe.labels]
    mine = job.validation_cases[fabric.global_rank :: fabric.world_size]
    with fabric.autocast():
        table = validate(job.best_net, mine, job.recipe, fabric.device)
    sums = torch.from_numpy(np.stack([np.nansum(table, 0), (~np.isnan(table)).sum(0)])).float()
    sums = fabric.all_reduce(sums, reduce_op="sum") if fabric.world_size > 1 else sums  # type: ignore[assignment]
    means = [float(total / count) if count else math.nan for total, count in sums.T.tolist()]
    known = [value for value in means if not math.isnan(value)]
    mean = sum(known) / len(known) if known else 0.0
    if mean > state.best:
        state.best, state.best_step = mean, state.step
        if fabric.is_global_zero:
            save_weights(job.best_net, job.folder / WEIGHTS["best"])
    waits = (job.recipe.train.schedule.epochs or PLATEAU) * job.epoch
    if job.recipe.train.schedule.name == "plateau" and state.step - max(state.best_step, state.dropped_at) >= waits:
        state.drops, state.dropped_at = state.drops + 1, state.step
    each = dict(zip(names, means, strict=True))
    job.log.write("validation", state.step, mean=mean, **{f"dice {name}": value for name, value in each.items()})
    listed = ", ".join(f"{name} {value:.3f}" for name, value in each.items())
    job.progress.say(f"step {state.step}: validation Dice {mean:.4f} ({listed}); best {state.best:.4f}")


def _look(job: Job, state: State) -> float:
    """Look at the attention of the chosen cases, if a moment for that has come; the seconds that took do not count."""
    if job.looks is None:
        return 0.0
    began, fabric = time.monotonic(), job.fabric
    done, epochs = 1.0 if state.finished else job.done(state), state.step / job.epoch
    moments = job.looks.due(done, epochs)
    moments = fabric.broadcast(moments) if fabric.world_size > 1 else moments
    if moments:
        if fabric.is_global_zero:
            with fabric.autocast():
                job.looks.take(job.best_net, moments, step=state.step, done=done, epochs=epochs)
            job.progress.say(f"step {state.step}: attention kept for {', '.join(moments)}")
        fabric.barrier()
    return time.monotonic() - began


def _agreed(job: Job, answer: bool) -> bool:  # noqa: FBT001 - an answer is what it is about
    """The first device's answer on all devices: clocks differ, and signals arrive in the middle of different steps."""
    return bool(job.fabric.broadcast(answer)) if job.fabric.world_size > 1 else answer


def _report(job: Job, task: Task, state: State, facts: dict[str, float]) -> None:
    job.log.write("step", state.step, **{name: float(f"{value:.6g}") for name, value in facts.items()})
    share = facts["wait"] / max(facts["seconds"], 1e-9)
    note = f"loss {facts['loss']:.4f}  lr {facts['lr']:.1e}  {facts['seconds']:.2f} s/it  waiting for data {share:.0%}"
    expected = round(state.step / job.done(state)) if job.max_seconds else None  # the clock may end it sooner
    task.advance(1, note, expected)
