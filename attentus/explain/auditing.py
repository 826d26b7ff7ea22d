"""Does attention earn its keep? Replace it while a trained model predicts, and measure what changes, case by case."""

from __future__ import annotations

import copy
import csv
import math
import statistics
import time
from dataclasses import dataclass, field, replace
from io import StringIO
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import torch

from attentus import io, nets
from attentus.data.resolve import values_in
from attentus.errors import AttentusError, BadInput, UnknownName
from attentus.explain.replace import CONTROLS, controls_for, replaced
from attentus.explain.verdict import MARGIN, REMOVABLE, Change, change, corrected, rule, verdict
from attentus.infer.attention import evaluating
from attentus.infer.segment import Wish, segment
from attentus.metrics import PRESETS
from attentus.metrics.case import score_volumes
from attentus.metrics.summary import case_means
from attentus.progress import Progress, Silent
from attentus.train.environment import hardware
from attentus.train.evaluate import ignored, reference
from attentus.train.levels import cases_of
from attentus.types import Scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from attentus.data.dataset import Dataset
    from attentus.explain.retrain import Retrained
    from attentus.infer.model import Model
    from attentus.progress import Task
    from attentus.types import Case, Score, Volume

ALL, DECORATIVE = "all modules", "decorative modules"
"""Rows of an audit that are no single module."""
METRICS = ("dice", "hd95_mm", "volume_ml")
ROUNDS = 60
"""Timed passes with and without a module, taking turns, at most."""
ENOUGH = 5.0
"""Seconds after which no further round is timed, three apart."""

Trial = tuple[str, str]
"""Whose attention is replaced, and by what."""
AS_IT_IS: Trial = ("", "none")
"""Nobody's."""


@dataclass(frozen=True)
class Row:
    """One module, or several together, in an audit."""

    name: str
    kind: str
    modules: tuple[str, ...]
    parameters: int
    """What makes the coefficients."""
    shared_with: int
    """Other modules that need the same parts; they go only when all of these go."""
    milliseconds: float
    """What one window costs more with it than without: median of differences, see `ROUNDS`."""
    controls: tuple[str, ...]
    changes: Mapping[str, Mapping[str, Change]] = field(default_factory=dict)
    """Replacement to metric to change, structures averaged in each case first."""
    structures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Replacement to structure to mean change in its Dice."""
    verdict: str = "undecided"
    pattern: str = "undecided"
    """The verdict on where it looks, apart from how strong it is."""

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON."""
        changes = {
            name: {metric: one.facts() for metric, one in each.items()} | {"dice_by_structure": self.structures[name]}
            for name, each in self.changes.items()
        }
        plain = {k: v for k, v in self.__dict__.items() if k not in ("changes", "structures", "controls")}
        return {**plain, "changes": changes}


@dataclass(frozen=True)
class Audit:
    """What attention is worth in one model, on cases it has not seen."""

    model: str
    fingerprint: str
    """Of the model that was audited."""
    dataset: str
    side: str
    """Side of the split the cases are on."""
    cases: tuple[str, ...]
    margin: float
    rows: tuple[Row, ...]
    """Every module, then all together, then those that can go, if they are several and not all."""
    decorative: tuple[str, ...]
    """Modules that can go together: decorative or harmful ones."""
    scores: Mapping[str, Scores]
    """What was measured: "" as the model is, else "MODULE CONTROL"."""
    failures: Mapping[str, str]
    place: str
    """What times were measured on."""
    retrained: Retrained | None = None
    """What trainings without attention came to, if there were any."""

    @property
    def notes(self) -> list[str]:
        """What must be known to read it."""
        tests = [one for row in self.rows for each in row.changes.values() for one in each.values()]
        notes = [f"p values are corrected after Holm over the {len(tests)} tests of this audit."]
        least = len(tests) * 2.0 ** (1 - len(self.cases))
        if least >= 0.05:
            notes.append(f"With {len(self.cases)} case(s) no corrected p can be below {min(least, 1.0):.2g}.")
        if len(self.cases) < 10:
            notes.append("With fewer than about ten cases the intervals are too narrow, and verdicts too sure.")
        single = [row for row in self.rows if len(row.modules) == 1 and row.verdict in REMOVABLE]
        if len(single) > 1:
            names = ", ".join(self.decorative)
            notes.append(
                f"Of {len(single)} modules that can go one by one, {len(self.decorative)} can go together: {names}."
            )
        if any(row.shared_with for row in self.rows):
            notes.append("Parts that several modules share go only when all of these are removed.")
        return notes

    def facts(self) -> dict[str, Any]:
        """Plain values for audit.json."""
        return {
            "format": "attentus-audit",
            "version": 1,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "dataset": self.dataset,
            "side": self.side,
            "cases": list(self.cases),
            "failures": dict(self.failures),
            "margin": self.margin,
            "rule": rule(self.margin),
            "replacements": CONTROLS,
            "times": self.place,
            "notes": self.notes,
            "decorative": list(self.decorative),
            "rows": [row.facts() for row in self.rows],
            "retrained": self.retrained and self.retrained.facts(),
        }

    def to_csv(self) -> str:
        """Every number of every case: as the model is, and with each replacement."""
        text = StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["module", "replacement", "case", "structure", "metric", "value", "unit"])
        for name, scores in self.scores.items():
            module, _, control = name.rpartition(" ")
            for score in scores:
                writer.writerow([module, control, *score[:3], f"{score.value:.6g}", score.unit])
        return text.getvalue()


def audit(
    model: Model,
    dataset: Dataset,
    *,
    side: str = "validation",
    limit: int | None = None,
    modules: Sequence[str] = (),
    controls: Sequence[str] = tuple(CONTROLS),
    margin: float = MARGIN,
    progress: Progress | None = None,
) -> Audit:
    """Replace the attention of each module, and of all together, and measure what that changes.

    Every case is predicted once as the model is and once for every module and replacement, with the model's windows
    and post-processing. Random orders are the same in every audit.

    Args:
        model: with attention; data.json in its folder says which cases were held back, otherwise its recipe does.
        dataset: what it was trained on.
        side: "validation", "test" or "train".
        limit: so many cases at most, evenly spread.
        modules: only these, as `nets.taps` names them.
        controls: of `CONTROLS`; "none" and "mean" are always measured, because verdicts need them.
        margin: smallest change in mean Dice that matters.
        progress: shows the cases.

    Raises:
        BadInput: a model without attention, or no case that can be used.
        UnknownName: no such module, replacement or side.
    """
    _check(model, side, controls)
    lacking = [part for structure in model.recipe.labels for part in structure.parts if part not in dataset.labels]
    if lacking:
        known = ", ".join(dataset.labels) or "none"
        raise BadInput(
            f"{dataset.root}: has no label '{lacking[0]}', which the model was trained on; its labels are {known}.\n"
            "  Name the dataset, or its manifest, that the model was trained on."
        )
    chosen = _limited(cases_of(model, dataset, side), limit)
    if len({dataset[case].subject for case in chosen}) < 2:
        controls = [control for control in controls if control != "other"]
    with evaluating(model.net):
        rows = _rows(model, modules, controls)
        plan = _Plan(model, dataset, {row.name: row.modules for row in rows}, progress or Silent())
        found = _tried(plan, rows, chosen, margin)
    return Audit(
        model.recipe.name,
        model.fingerprint,
        dataset.name,
        side,
        tuple(case for case in chosen if case not in found.failures),
        margin,
        tuple(found.rows),
        found.together,
        found.scores,
        found.failures,
        hardware(next(model.net.parameters()).device),
    )


class _Tried(NamedTuple):
    rows: list[Row]
    together: tuple[str, ...]
    scores: dict[str, Scores]
    failures: dict[str, str]


def _tried(plan: _Plan, rows: list[Row], cases: list[str], margin: float) -> _Tried:
    """The rows judged, what can go together, what was measured, and cases that failed."""
    trials = [(row.name, control) for row in rows for control in row.controls]
    measured, failures = plan.measure(cases, [AS_IT_IS, *trials])
    judged = _judged(rows, measured, margin)
    usable = [case for case in cases if case not in failures]
    together = _together(plan, judged, usable, case_means(measured[""], "dice"), margin)
    if len(together) > 1 and {*together} != {*rows[-1].modules}:
        plan.modules[DECORATIVE] = together
        measured |= plan.measure(usable, [(DECORATIVE, "none")])[0]
        judged = _judged([*rows, _row(plan.model, DECORATIVE, "together", together, ("none",))], measured, margin)
    return _Tried(judged, together, measured, failures)


def _together(
    plan: _Plan, judged: Sequence[Row], cases: list[str], before: Mapping[str, float], margin: float
) -> tuple[str, ...]:
    """Of the modules that can go one by one, those that can go together: all, or as many as can, cheapest first."""
    single = [row for row in judged if len(row.modules) == 1 and row.verdict in REMOVABLE]
    single.sort(key=lambda row: -row.changes["none"]["dice"].difference)

    def can_go(names: tuple[str, ...]) -> bool:
        plan.modules[DECORATIVE] = names
        scores = plan.measure(cases, [(DECORATIVE, "none")])[0][_key((DECORATIVE, "none"))]
        after = case_means(scores, "dice")
        found = change("dice", [after.get(case, math.nan) for case in before], list(before.values()))
        return verdict(found, margin) in REMOVABLE

    everything = tuple(row.name for row in single)
    if len(everything) < 2 or can_go(everything):
        return everything
    gone = everything[:1]
    for name in everything[1:]:
        if can_go((*gone, name)):
            gone = (*gone, name)
    return gone


def _check(model: Model, side: str, controls: Sequence[str]) -> None:
    if not nets.taps(model.net):
        raise BadInput(f"The net '{model.recipe.net.name}' of {model.recipe.name} has no attention to audit.")
    if side not in ("train", "validation", "test"):
        raise UnknownName("side of the split", side, ("train", "validation", "test"))
    for control in controls:
        if control not in CONTROLS:
            raise UnknownName("replacement", control, CONTROLS)


def _limited(cases: list[str], limit: int | None) -> list[str]:
    if not cases:
        raise BadInput("This side of the split holds no cases; choose another one (--on).")
    return cases if limit is None else cases[:: -(-len(cases) // limit)]


def _rows(model: Model, modules: Sequence[str], controls: Sequence[str]) -> list[Row]:
    """What is to be tried; the last row is all modules together."""
    points = {p.name: p for p in nets.attention_points(model.net, len(model.recipe.channels), _size(model))}
    for name in modules:
        if name not in points:
            raise UnknownName("attention module", name, points)
    wanted = {"none", "mean", *controls}
    rows = []
    for name in modules or points:
        fitting = tuple(control for control in controls_for(points[name]) if control in wanted)
        rows.append(_row(model, name, points[name].kind, (name,), fitting))
    if len(rows) > 1:
        common = tuple(c for c in CONTROLS if all(c in row.controls for row in rows))
        rows.append(_row(model, ALL, "together", tuple(row.name for row in rows), common))
    return rows


def _row(model: Model, name: str, kind: str, modules: tuple[str, ...], controls: tuple[str, ...]) -> Row:
    parts = nets.makers(model.net)
    mine = {path for module in modules for path in parts[module]}
    others = [other for other, paths in parts.items() if other not in modules and mine & {*paths}]
    parameters = nets.parameters_of(model.net, mine)
    return Row(name, kind, modules, parameters, len(others), _milliseconds(model, modules), controls)


def _size(model: Model) -> tuple[int, ...]:
    return model.window.size[-model.recipe.net.dims :]


@torch.inference_mode()
def _milliseconds(model: Model, modules: Sequence[str]) -> float:
    """What one window costs more with some modules than without them."""
    device = next(model.net.parameters()).device
    window = torch.zeros(1, len(model.recipe.channels), *_size(model), device=device)
    without = nets.leave_out(copy.deepcopy(model.net), modules)
    differences: list[float] = []
    began = time.perf_counter()
    while len(differences) < ROUNDS + 1 and (len(differences) < 4 or time.perf_counter() - began < ENOUGH):
        with_it, without_it = _seconds(model.net, window), _seconds(without, window)
        differences.append(1000 * (with_it - without_it))
    return statistics.median(differences[1:])  # the first passes fetch memory


def _seconds(net: nn.Module, window: torch.Tensor) -> float:
    started = time.perf_counter()
    net(window)
    if window.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


class _Plan:
    """Cases predicted with and without, one in memory at a time, and the donor of its attention.

    Args:
        model: as it is.
        dataset: holds the cases.
        modules: row to the modules it replaces.
        progress: shows what is predicted.
    """

    def __init__(self, model: Model, dataset: Dataset, modules: dict[str, tuple[str, ...]], progress: Progress) -> None:
        self.model, self.dataset, self.progress = model, dataset, progress
        self.modules: dict[str, tuple[str, ...]] = {AS_IT_IS[0]: (), **modules}
        self.how = PRESETS["default"].but(metrics=METRICS)

    def measure(self, cases: Sequence[str], trials: Sequence[Trial]) -> tuple[dict[str, Scores], dict[str, str]]:
        """Scores by "MODULE CONTROL", "" as the model is, and cases that failed with the reason."""
        found: dict[str, list[Score]] = {_key(trial): [] for trial in trials}
        failures: dict[str, str] = {}
        entries = [self.dataset[case] for case in cases]
        with self.progress.task("auditing", len(cases) * len(trials)) as task:
            for number, case in enumerate(cases):
                try:
                    for name, rows in self._case(entries, number, trials, task).items():
                        found[name] += rows
                except AttentusError as error:
                    failures[case] = str(error)
        if len(failures) == len(cases):
            reasons = "\n  ".join(failures.values())
            raise BadInput(f"{self.dataset.root}: no case could be audited.\n  {reasons}")
        rules = self.how.describe()
        return {name: Scores(tuple(rows), rules) for name, rows in found.items()}, failures

    def _case(self, cases: Sequence[Case], number: int, trials: Sequence[Trial], task: Task) -> dict[str, list[Score]]:
        case, recipe = cases[number], self.model.recipe
        scan = io.read_case(case, as_stored=True)
        truth = reference(case, self.dataset, recipe)
        unknown = ignored(case, self.dataset, recipe) if recipe.ignore else None
        swapped = any(control == "other" for _, control in trials)
        theirs = io.read_case(_donor(cases, number), as_stored=True) if swapped else None
        found = {}
        for trial in trials:
            labels = self._labels(scan, trial, theirs, seed=crc32(case.id.encode()))
            labels = labels if unknown is None else _without(labels, unknown)
            found[_key(trial)] = score_volumes(case.id, labels, truth, values_in(recipe), self.how)
            task.advance(note=case.id)
        return found

    def _labels(self, scan: Volume, trial: Trial, donor: Volume | None, *, seed: int) -> Volume:
        name, control = trial
        member = replaced(self.model, self.modules[name], control, donor=donor, seed=seed)
        return segment([member], scan, Wish()).labels


def _key(trial: Trial) -> str:
    return "" if trial == AS_IT_IS else " ".join(trial)


def _without(labels: Volume, unknown: NDArray[np.bool_]) -> Volume:
    array = labels.array.copy()
    array[unknown] = 0
    return labels.like(array)


def _judged(rows: Sequence[Row], measured: Mapping[str, Scores], margin: float) -> list[Row]:
    """The rows with what was measured, and what follows from it."""
    plain = {metric: case_means(measured[""], metric) for metric in METRICS}
    flat: list[tuple[Row, str, Change]] = []
    for row in rows:
        for control in row.controls:
            scores = measured[f"{row.name} {control}"]
            for metric, before in plain.items():
                after = case_means(scores, metric)
                flat.append((row, control, change(metric, [after[case] for case in before], list(before.values()))))
    changes: dict[str, dict[str, dict[str, Change]]] = {}
    for (row, control, _), one in zip(flat, corrected([one for _, _, one in flat]), strict=True):
        changes.setdefault(row.name, {}).setdefault(control, {})[one.metric] = one
    judged = []
    for row in rows:
        mine = changes[row.name]
        by_structure = {c: _by_structure(measured[f"{row.name} {c}"], measured[""]) for c in row.controls}
        pattern = verdict(mine["mean"]["dice"], margin) if "mean" in mine else "undecided"
        judged.append(
            replace(
                row,
                changes=mine,
                structures=by_structure,
                verdict=verdict(mine["none"]["dice"], margin),
                pattern=pattern,
            )
        )
    return judged


def _by_structure(after: Scores, before: Scores) -> dict[str, float]:
    """Mean change in Dice of every structure."""
    found = {}
    for name in before.structures:
        was = {row.case: row.value for row in before.select(structure=name, metric="dice")}
        now = {row.case: row.value for row in after.select(structure=name, metric="dice")}
        differences = [now[case] - was[case] for case in was if math.isfinite(now[case] - was[case])]
        found[name] = sum(differences) / len(differences) if differences else math.nan
    return found


def _donor(cases: Sequence[Case], number: int) -> Case:
    """The next case of another subject."""
    order = [*cases[number + 1 :], *cases[:number]]
    return next(other for other in order if other.subject != cases[number].subject)
