"""Post-processing chosen by measuring: what raises the Dice of held-back cases, and would have without seeing them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from attentus.data.dataset import Dataset
from attentus.data.resolve import values_in
from attentus.data.splits import deal
from attentus.errors import BadInput
from attentus.infer.clean import Nest, among, sizes_of
from attentus.io.atomic import write_text
from attentus.metrics.components import label
from attentus.progress import Progress, Silent
from attentus.recipes import Clean, Recipe, build, dump
from attentus.train.heldback import Held, predict_held, runs_of, spacious
from attentus.types import Case

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from os import PathLike

    from numpy.typing import NDArray

    from attentus.progress import Task

    Choice = Mapping[str, Clean]

BEFORE = "recipe.before-tuning.yaml"
"""The recipe a model was trained with, kept beside the one that `tune` changed."""
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
QUANTILES = (0.5, 0.75, 0.9, 1.0)
"""`min_ml` is tried just above these quantiles of the sizes of components that are nowhere right, as long as no case
has less of the structure: where some have none, deleting all would look good."""
PARTS = 5
"""Parts, at most, into which cases are dealt to see how well a choice does on cases that had no part in it."""
HARM = 1e-6
"""A mean Dice that falls by less has not fallen."""
STEPS = ("threshold", "inside", "components", "holes")
"""What is tried, one after the other, for every structure."""


class Trial(NamedTuple):
    """One change that was tried on top of those kept before it."""

    structure: str
    change: str
    before: float
    """Mean Dice over structures and cases."""
    after: float
    worst: float
    """Smallest gain of a structure's mean Dice, negative for a loss."""
    kept: bool


@dataclass(frozen=True)
class Tuned:
    """What was chosen, and how much it is worth."""

    clean: Choice
    """The choice, for `infer.clean`; what the recipe said before where nothing better was found."""
    taken: bool
    """Whether the choice differs from what the recipe says and is better than that."""
    verdict: str
    cases: int
    parts: int
    """Parts of the check on cases that had no part in choosing; 0 where it was impossible."""
    agreement: int
    """In how many of them the same was chosen."""
    dice: Mapping[str, Mapping[str, float]]
    """Structure to mean Dice: "raw" without post-processing, "present" by the recipe as it was, "chosen", and, where
    `parts` is not 0, "honest" by choices made on other cases."""
    trials: tuple[Trial, ...]
    failures: Mapping[str, str]

    def gain(self, state: str = "chosen") -> float | None:
        """Mean gain in Dice of one of the states of `dice` over "present"; None if there is no such state."""
        gains = [each[state] - each["present"] for each in self.dice.values() if state in each]
        return float(np.mean(gains)) if gains else None

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "taken": self.taken,
            "verdict": self.verdict,
            "clean": spelled(self.clean),
            "cases": self.cases,
            "parts": self.parts,
            "agreement": self.agreement,
            "dice": {name: dict(states) for name, states in self.dice.items()},
            "apparent gain": self.gain("chosen"),
            "honest gain": self.gain("honest"),
            "trials": [trial._asdict() for trial in self.trials],
            "failures": dict(self.failures),
        }


def tune(
    folder: str | PathLike[str],
    dataset: Dataset | str | PathLike[str],
    *,
    margin: float = 0.001,
    thresholds: bool = True,
    write: bool = True,
    progress: Progress | None = None,
) -> Tuned:
    """Choose the post-processing of a model by its held-back cases.

    Every case is predicted once, by the model that has not seen it. Then changes are tried, for one structure after
    the other: thresholds, inside, largest component or smallest volume, holes. Of each kind the best is kept if it
    raises the mean Dice over structures and cases by more than `margin` and lowers that of no structure. The same is
    done with parts of the cases left out, which are then measured: the honest gain. The choice is taken if both gains
    are above `margin`.

    Args:
        folder: a model folder, whose validation cases count, or a folder of folds, with all out-of-fold cases.
        dataset: what it was trained on.
        margin: smallest gain in Dice, 0..1, for which a change is kept.
        thresholds: also try thresholds, for which probabilities are kept meanwhile.
        write: put the choice into recipe.yaml of every model and keep the one before it as recipe.before-tuning.yaml;
            write postprocess.json there and in `folder`, whatever the result.
        progress: shows the cases and the search.

    Raises:
        BadFile, BadInput: no finished training, another dataset, or no case that can be predicted.
    """
    place, shown = Path(folder), progress or Silent()
    data = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
    runs = runs_of(place, data)
    present = runs[0].recipe.infer.clean
    asked = [*(THRESHOLDS if thresholds else ()), *(how.threshold for how in present.values() if how.threshold)]
    with TemporaryDirectory(prefix="attentus-") as temporary:
        held, failures = predict_held(runs, data, Path(temporary), min(asked, default=None), shown)
        if not held:
            raise BadInput(f"No held-back case can be predicted: {'; '.join(failures.values())}")
        searches = 1 + len(_parts(held))
        with shown.task("choosing", searches * len(STEPS) * len(runs[0].recipe.labels)) as task:
            tuned = _choose(Bench(held, margin, task, thresholds=thresholds), present, failures)
    if write:
        for run in runs:
            _adopt(run.folder, run.recipe, tuned)
        for each in {place, *(run.folder for run in runs)}:
            write_text(each / "postprocess.json", json.dumps(tuned.facts(), indent=1))
    return tuned


@dataclass(eq=False)
class Bench:
    """Measures choices on cases, and remembers."""

    held: Sequence[Held]
    margin: float
    task: Task
    thresholds: bool = True
    known: dict[tuple[int, str], list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.recipe: Recipe = self.held[0].recipe
        self.names = {structure.name: structure.value for structure in self.recipe.labels}
        self.values = values_in(self.recipe)
        self.around = {name: outer for name in self.names if (outer := self._around(name))}
        self.false = [{name: self._false(case, name) for name in self.names} for case in self.held]
        self.true = [{name: self._true(case, name) for name in self.names} for case in self.held]

    def dice(self, choice: Choice, cases: Sequence[int]) -> NDArray[np.float64]:
        """Dice of every case and structure, (cases, structures)."""
        text = json.dumps(spelled(choice), sort_keys=True)
        for k in cases:
            if (k, text) not in self.known:
                self.known[k, text] = self.held[k].dice(choice)
        return np.array([self.known[k, text] for k in cases])

    def search(self, cases: Sequence[int]) -> tuple[dict[str, Clean], list[Trial]]:
        """The choice that these cases lead to, and what was tried."""
        choice: dict[str, Clean] = {}
        trials: list[Trial] = []
        for step in STEPS:
            for name in self.names:
                choice = self._improve(choice, name, list(self._options(step, name, choice, cases)), cases, trials)
                self.task.advance(1, f"{name}: {step}")
        return choice, trials

    def _improve(
        self,
        choice: dict[str, Clean],
        name: str,
        options: Sequence[dict[str, Any]],
        cases: Sequence[int],
        trials: list[Trial],
    ) -> dict[str, Clean]:
        """Try some changes to one structure and keep the best, if it is good enough."""
        before = self.dice(choice, cases).mean(0)
        found = []
        for option in options:
            changed = {**choice, name: choice.get(name, Clean()).model_copy(update=option)}
            gains = self.dice(changed, cases).mean(0) - before
            good = gains.mean() > self.margin and gains.min() > -HARM
            found.append((good, float(gains.mean()), float(gains.min()), option, changed))
        best = max((each for each in found if each[0]), key=lambda each: each[1], default=None)
        for each in found:
            words = ", ".join(f"{key} {value}" for key, value in each[3].items())
            mean = float(before.mean())
            trials.append(Trial(name, words, mean, mean + each[1], each[2], each is best))
        return best[4] if best else choice

    def _options(self, step: str, name: str, choice: Choice, cases: Sequence[int]) -> Iterator[dict[str, Any]]:
        if step == "threshold" and self.thresholds:
            usual = 0.5 if self.recipe.regions or len(self.names) == 1 else None
            yield from ({"threshold": value} for value in THRESHOLDS if value != usual)
        if step == "inside" and name in self.around:
            beyond = Nest(self.names, self.values, choice).around(self.around[name])
            yield from ([] if name in beyond else [{"inside": self.around[name]}])
        if step == "components":
            yield {"largest": True}
            yield from ({"min_ml": size} for size in self._smallest(name, cases))
        if step == "holes":
            yield {"fill_holes": True}
            if any(case.array("labels").shape[0] > 1 for case in self.held):
                yield {"fill_holes": "slices"}

    def _smallest(self, name: str, cases: Sequence[int]) -> list[float]:
        """Volumes (ml) below which components may be false, and a whole structure is in no case."""
        sizes = [size for k in cases for size in self.false[k][name]]
        limit = min((self.true[k][name] for k in cases if self.true[k][name]), default=0.0)
        tried = {just_above(float(size)) for size in np.quantile(sizes, QUANTILES)} if sizes else set()
        return sorted(size for size in tried if size <= limit)

    def _false(self, case: Held, name: str) -> list[float]:
        """Volumes (ml) of the predicted components of a structure that are nowhere right."""
        values = self.values[name]
        components = label(among(case.array("labels"), values))
        sizes = sizes_of(components)
        wrong = np.ones(len(sizes), bool)
        wrong[np.unique(components[among(case.array("truth"), values)])] = False
        wrong[0] = False
        return list(sizes[wrong] * math.prod(case.spacing) / 1000.0)

    def _true(self, case: Held, name: str) -> float:
        """Volume (ml) that a structure has in the labels."""
        return int(among(case.array("truth"), self.values[name]).sum()) * math.prod(case.spacing) / 1000.0

    def _around(self, name: str) -> str | None:
        """The structure in which another lies: by regions, or because most of what touches it in the labels is that."""
        if self.recipe.regions:
            outer = Nest(self.names, self.values).around(name)
            return max(outer, key=list(self.names).index) if outer else None
        touching = np.array([_touching(case.array("truth"), self.names, name) for case in self.held])
        shares = touching[touching.sum(1) > 0].mean(0) if touching.any() else touching[0]
        most = int(shares.argmax())
        return list(self.names)[most] if shares[most] > 0.5 else None


def spelled(choice: Choice) -> dict[str, dict[str, Any]]:
    """A choice as a recipe would write it, without defaults."""
    short = {name: how.model_dump(exclude_defaults=True) for name, how in choice.items()}
    return {name: fields for name, fields in short.items() if fields}


def just_above(size: float) -> float:
    """The next larger number of two digits."""
    step = 10.0 ** (math.floor(math.log10(size)) - 1)
    return float(f"{(math.floor(size / step * (1 + 1e-9)) + 1) * step:.6g}")


def _choose(bench: Bench, present: Choice, failures: Mapping[str, str]) -> Tuned:
    """Search with all cases, then with parts of them left out."""
    everyone = list(range(len(bench.held)))
    choice, trials = bench.search(everyone)
    states = {name: bench.dice(how, everyone).mean(0) for name, how in (("raw", {}), ("present", present))}
    states["chosen"] = bench.dice(choice, everyone).mean(0)
    parts = _parts(bench.held)
    honest = np.empty((len(everyone), len(bench.names)))
    agreement = 0
    for part in parts:
        other, _ = bench.search([k for k in everyone if k not in part])
        honest[part] = bench.dice(other, part)
        agreement += spelled(other) == spelled(choice)
    states |= {"honest": honest.mean(0)} if parts else {}
    verdict = _verdict(states, bench.margin, same=spelled(choice) == spelled(present))
    taken = not verdict
    return Tuned(
        clean=choice if taken else present,
        taken=taken,
        verdict=verdict or ("taken" if parts else "taken; one subject alone cannot tell what it is worth on others"),
        cases=len(everyone),
        parts=len(parts),
        agreement=agreement,
        dice={name: {s: float(means[k]) for s, means in states.items()} for k, name in enumerate(bench.names)},
        trials=tuple(trials),
        failures=failures,
    )


def _verdict(states: Mapping[str, NDArray[np.float64]], margin: float, *, same: bool) -> str:
    """Why a choice is not taken; empty if it is."""
    if same:
        return "nothing changes: the recipe says the best that was found"
    gains = states["chosen"] - states["present"]
    if gains.mean() <= margin or gains.min() < -HARM:
        return "not taken: the recipe's own is as good, or better for some structure"
    if "honest" in states and (states["honest"] - states["present"]).mean() <= margin:
        return "not taken: cases that had no part in choosing gain too little or lose, so it may be chance"
    return ""


def _parts(held: Sequence[Held]) -> list[list[int]]:
    """Numbers of the cases of each part, subjects kept together; none for a single subject."""
    count = min(PARTS, len({case.subject for case in held}))
    if count < 2:
        return []
    dealt = deal([Case(case.id, (), subject=case.subject) for case in held], count, seed=0)
    return [[k for k, case in enumerate(held) if case.id in ids] for ids in dealt]


def _touching(truth: NDArray[Any], names: Mapping[str, int], name: str) -> NDArray[np.float64]:
    """Of the voxels around a structure, the share that every structure has; zeros where there is none of it."""
    from scipy.ndimage import binary_dilation

    where = truth == names[name]
    box = tuple(spacious(where))
    mask, around = where[box], truth[box]
    shell = around[binary_dilation(mask) & ~mask]
    return np.array([float((shell == value).mean()) if shell.size else 0.0 for value in names.values()])


def _adopt(folder: Path, recipe: Recipe, tuned: Tuned) -> None:
    """Put a choice into a model folder."""
    if not tuned.taken:
        return
    if not (folder / BEFORE).is_file():
        write_text(folder / BEFORE, (folder / "recipe.yaml").read_text(encoding="utf-8"))
    tree = recipe.model_dump()
    tree["infer"]["clean"] = spelled(tuned.clean)
    write_text(folder / "recipe.yaml", dump(build(tree, str(folder))))
