"""What each level of a nested net is worth on cases held back (ANU-Net Table 6), and the chosen one as a model."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import statistics
import time
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from attentus import io, nets
from attentus.errors import BadInput
from attentus.export.prune import levels, prune
from attentus.infer.early_exit import EarlyExit, check_early_exit
from attentus.infer.sliding import sliding_window
from attentus.io.atomic import replacing_folder
from attentus.metrics.summary import case_means
from attentus.progress import Progress, Silent, track
from attentus.train.evaluate import evaluate, write_card, write_scores
from attentus.transforms.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from attentus.data.dataset import Dataset
    from attentus.infer.model import Model
    from attentus.types import Scores

TIMED = 20
"""Cases that are timed, at most, evenly spread."""
REPEATS = 3
"""Passes over each of them."""
ENOUGH = 60.0
"""Seconds of timing after which no further case is begun."""


@dataclass(frozen=True)
class Level:
    """One way to use a nested net: a level of it, or the whole with early exit."""

    level: int
    early_exit: float | None
    """The agreement of heads from which the rest is left out; None asks the head of this level."""
    model: Model
    parameters: int
    """All heads up to this level counted, as Table 6 does."""
    flops: int
    """Of one window; with early exit, of a window that goes all the way."""
    scores: Scores | None = None
    """On the cases held back; None where only the size was asked for."""
    seconds: float = math.nan
    """Forward passes over one case, reading and preparing left out: median of `REPEATS`, mean over the cases."""
    mean_level: float | None = None
    """With early exit: mean level of the heads that answered, over the windows of the timed cases."""

    @property
    def name(self) -> str:
        """L2, or "L4, exit 0.9"."""
        return f"L{self.level}" + ("" if self.early_exit is None else f", exit {self.early_exit:g}")

    def over_cases(self, metric: str) -> tuple[float, float]:
        """Mean and SD (n - 1) of a metric over the cases, structures averaged in each first; nan without scores."""
        means = case_means(self.scores, metric).values() if self.scores else ()
        known = [value for value in means if math.isfinite(value)]
        return (
            statistics.fmean(known) if known else math.nan,
            statistics.stdev(known) if len(known) > 1 else math.nan,
        )

    @property
    def failures(self) -> Mapping[str, str]:
        """Case to message of those that could not be scored."""
        return {} if self.scores is None else self.scores.failures

    @property
    def pooled_dice(self) -> float:
        """Dice of all cases' voxels together, mean over the structures: what the ANU-Net paper's tables show."""
        if self.scores is None:
            return math.nan
        return statistics.fmean(_pooled(self.scores, structure) for structure in self.scores.structures)

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON and CSV; fractions, seconds."""
        dice, iou, pooled = self.over_cases("dice"), self.over_cases("iou"), self.pooled_dice
        return {
            "level": self.level,
            "early_exit": self.early_exit,
            "parameters": self.parameters,
            "gflop": self.flops / 1e9,
            "dice": dice[0],
            "dice_sd": dice[1],
            "iou": iou[0],
            "iou_sd": iou[1],
            "pooled_dice": pooled,
            "pooled_iou": pooled / (2 - pooled),
            "seconds": self.seconds,
            "mean_level": self.mean_level,
        }


def sizes(model: Model) -> list[Level]:
    """Every level of a model with its parameters and operations, smallest first; nothing is predicted.

    Raises:
        BadInput: its net cannot be pruned.
    """
    size = model.recipe.train.patch
    found = []
    for level in levels(model):
        pruned = prune(model, level)
        price = nets.cost(pruned.net, len(model.recipe.channels), size)
        found.append(Level(level, None, pruned, price.parameters, price.flops))
    return found


def compare(
    model: Model, dataset: Dataset, *, early_exit: float | None = None, progress: Progress | None = None
) -> list[Level]:
    """Every level of a model, measured on the cases it was validated on.

    Args:
        model: of a nested net; a folder's data.json says which cases were held back, otherwise its recipe does.
        dataset: what it was trained on.
        early_exit: also measure the whole net with this agreement, see `infer.early_exit`.
        progress: shows the cases.

    Returns:
        Levels smallest first, then the one with early exit.

    Raises:
        BadInput: the net cannot be pruned, the dataset lacks a case, or none could be scored.
        RecipeError: early exit of a net that has no heads to compare.
    """
    candidates = sizes(_with_exit(model, None))
    if early_exit is not None:
        stopping = _with_exit(model, early_exit)
        check_early_exit(stopping.recipe, stopping.net)
        candidates.append(replace(candidates[-1], early_exit=early_exit, model=stopping))
    held_back = dataset.subset(cases_of(model, dataset, "validation"))
    with TemporaryDirectory(prefix="attentus-levels-") as scratch:
        scored = [replace(one, scores=evaluate(one.model, held_back, Path(scratch), progress)) for one in candidates]
    failed = scored[-1].failures
    usable = [case.id for case in held_back if case.id not in failed]
    if not usable:
        reasons = "\n  ".join(failed.values())
        raise BadInput(f"{dataset.root}: no case held back could be scored.\n  {reasons}")
    return _timed(scored, held_back.subset(usable), progress or Silent())


def choose(measured: list[Level], tolerance: float) -> Level:
    """The smallest level whose mean Dice is at most `tolerance` below the best level's.

    Raises:
        BadInput: no level has a Dice.
    """
    plain = [one for one in measured if one.early_exit is None]
    dice = [one.over_cases("dice")[0] for one in plain]
    known = [value for value in dice if math.isfinite(value)]
    if not known:
        raise BadInput("No case could be scored, so there is nothing to choose by. Run `attentus data check`.")
    return next(one for one, value in zip(plain, dice, strict=True) if value >= max(known) - tolerance)


def write_level(
    source: Model,
    level: int,
    out: Path,
    *,
    scores: Scores | None = None,
    dataset: Dataset | None = None,
    overwrite: bool = False,
) -> None:
    """Write a level of a model as a complete model folder: weights, recipe, card, where the data came from.

    Args:
        source: the whole model.
        level: see `export.prune.levels`.
        out: the new folder.
        scores: of this level on the cases held back, see `compare`.
        dataset: what the model was trained on; if its split has test cases, those are scored instead, because the
            level may have been chosen by the others.
        overwrite: whether a model there may be replaced.

    Raises:
        BadInput: no such level, or `out` is the model's own folder.
        BadFile: the folder exists and may not be replaced, or cannot be written.
    """
    how = f"level {level} of the {levels(source)[-1]} of {source.recipe.name}, not trained again"
    write_pruned(source, prune(source, level), how, out, scores=scores, dataset=dataset, overwrite=overwrite)


def write_pruned(
    source: Model,
    pruned: Model,
    how: str,
    out: Path,
    *,
    scores: Scores | None = None,
    dataset: Dataset | None = None,
    overwrite: bool = False,
) -> None:
    """Write a model that is a part of another as a complete model folder.

    Args:
        source: the whole model.
        pruned: the part.
        how: what it is a part of, for its card.
        out: the new folder.
        scores: of the part on the cases held back.
        dataset: see `write_level`.
        overwrite: whether a model there may be replaced.

    Raises:
        BadInput: `out` is the whole model's own folder.
        BadFile: the folder exists and may not be replaced, or cannot be written.
    """
    if source.folder and out.resolve() == source.folder.resolve():
        raise BadInput(f"{out} holds the whole model, parts of which would be lost. Choose another folder (-o).")
    with replacing_folder(out, holds="recipe.yaml", overwrite=overwrite) as folder:
        pruned.save(folder)
        test = cases_of(source, dataset, "test") if dataset else []
        if dataset and test:
            scores = evaluate(pruned, dataset.subset(test), folder)
        elif scores is not None:
            write_scores(folder, scores, pruned.recipe)
        facts = {
            "Parameters": f"{sum(p.numel() for p in pruned.net.parameters()):,}",
            "Attention modules": str(len(nets.taps(pruned.net))),
            "Pruned": how,
        }
        write_card(folder, pruned.recipe, scores, {**facts, **_history(source)})
        if source.folder and (source.folder / "data.json").is_file():
            shutil.copyfile(source.folder / "data.json", folder / "data.json")


def to_csv(measured: list[Level]) -> str:
    """One line per level; what was not measured is empty."""
    rows = [one.facts() for one in measured]
    text = StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items() if v == v})  # noqa: PLR0124
    return text.getvalue()


def place(model: Model) -> str:
    """What the seconds were measured on, in words."""
    device = next(model.net.parameters()).device
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {model.recipe.infer.batch} windows per pass"
    threads = torch.get_num_threads()
    return f"processor, {threads} thread{'' if threads == 1 else 's'}, {model.recipe.infer.batch} windows per pass"


def _with_exit(model: Model, agreement: float | None) -> Model:
    infer = model.recipe.infer.model_copy(update={"early_exit": agreement})
    return replace(model, recipe=model.recipe.model_copy(update={"infer": infer}))


def cases_of(model: Model, dataset: Dataset, name: str) -> list[str]:
    """Ids of the cases on a side of the split: as the training wrote them down, or as the recipe deals them."""
    file = model.folder / "data.json" if model.folder else None
    if file is None or not file.is_file():
        part = dataset.parts(model.recipe.split)[("train", "validation", "test").index(name)]
        return [case.id for case in part]
    ids = list(json.loads(file.read_text(encoding="utf-8")).get(name, {}))
    missing = [case for case in ids if case not in {known.id for known in dataset.labelled}]
    if missing:
        raise BadInput(
            f"{dataset.root}: has no labelled case '{missing[0]}', one of {len(missing)} that {file} lists under"
            f" '{name}'.\n  Name the dataset the model was trained on."
        )
    return ids


def _timed(measured: list[Level], dataset: Dataset, progress: Progress) -> list[Level]:
    """The same with seconds per case: all take turns on each case, so that a busy machine is busy for all."""
    whole = measured[-1].model
    runners = [one.model.runner() for one in measured]
    medians: list[list[float]] = [[] for _ in measured]
    began = time.perf_counter()
    cases = dataset.labelled
    for case in track(progress, "timing", cases[:: -(-len(cases) // TIMED)]):
        if medians[0] and time.perf_counter() - began > ENOUGH:
            break
        array = prepare(io.read_case(case).canonical(), whole.recipe.prepare).array
        if not medians[0]:
            for one in measured:  # the first pass is slower
                _seconds(one.model.net, array, whole)
        rounds = [[_seconds(runner, array, whole) for runner in runners] for _ in range(REPEATS)]
        for found, seconds in zip(medians, zip(*rounds, strict=True), strict=True):
            found.append(statistics.median(seconds))
    return [
        replace(
            one,
            seconds=statistics.fmean(found),
            mean_level=statistics.fmean(runner.levels) if isinstance(runner, EarlyExit) else None,
        )
        for one, found, runner in zip(measured, medians, runners, strict=True)
    ]


def _seconds(net: nn.Module, array: NDArray[np.float32], model: Model) -> float:
    """Of all windows of a prepared scan."""
    device = next(net.parameters()).device
    started = time.perf_counter()
    sliding_window(net, array, model.window, dims=model.recipe.net.dims, device=device)
    return time.perf_counter() - started


def _pooled(scores: Scores, structure: str) -> float:
    """Dice of all cases together, from each case's Dice and volumes; nan where no case holds the structure."""
    mine = scores.select(structure=structure)
    sums = [
        (row.value, mine.value(row.case, structure, "volume_ml") + mine.value(row.case, structure, "reference_ml"))
        for row in mine.select(metric="dice")
    ]
    total = sum(size for _, size in sums)
    return sum(dice * size for dice, size in sums if size) / total if total else math.nan


def _history(source: Model) -> Mapping[str, str]:
    """What the card of the whole model tells of its training."""
    card = source.folder / "card.md" if source.folder else None
    if card is None or not card.is_file():
        return {}
    return dict(re.findall(r"^- (Trained on|Training): (.+)$", card.read_text(encoding="utf-8"), re.MULTILINE))
