"""What will be done: which runs the wanted tables need, with which recipes, how long each; and what cannot be done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch

from attentus import nets
from attentus.data.splits import entries
from attentus.errors import AttentusError, BadInput, RecipeError
from attentus.recipes import CascadeRecipe, Recipe, answer_recipe, build, build_cascade, differences, load_any
from attentus.reproduce.adapt import RULES, fitted, small, to_scans, to_values
from attentus.reproduce.data import Material, materials, with_absent
from attentus.train.fitting import check_buildable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from attentus.data import Dataset
    from attentus.progress import Progress
    from attentus.reproduce.data import Request
    from attentus.reproduce.paper import Paper, Run, Table

Scale = Literal["auto", "full", "small"]

FULL_FROM = 120.0
"""Minutes per method from which "auto" leaves the recipes as they are."""
RUNS, DATA = "runs", "data"


@dataclass(frozen=True)
class Wish:
    """What is to be reproduced, and at what cost."""

    tables: tuple[str, ...]
    """Empty: all."""
    minutes: float | None
    """Of training, shared out among the methods; None trains as long as the recipes say."""
    scale: Scale
    folds: int
    """Folds trained at most, where the paper has folds."""


@dataclass(frozen=True)
class Step:
    """One run, ready to be done, or why it cannot be done."""

    key: str
    run: Run
    tables: tuple[str, ...]
    """That it fills rows of, or serves."""
    published: Recipe | CascadeRecipe
    """As the paper has it."""
    recipe: Recipe | CascadeRecipe | None
    """As it will be trained; None where nothing is trained."""
    folds: tuple[int, ...] = (0,)
    seconds: float | None = None
    """Of every single training; None as long as the recipe says."""
    why: str = ""

    @property
    def trainings(self) -> int:
        """How many networks are trained."""
        if self.recipe is None or self.why:
            return 0
        return len(self.folds) * (len(self.recipe.stages) if isinstance(self.recipe, CascadeRecipe) else 1)

    @property
    def parameters(self) -> int | None:
        """Of the net as published, with the channels and outputs it was published for; None of a cascade."""
        if isinstance(self.published, CascadeRecipe):
            return None
        how, card = self.published.net, nets.card(self.published.net.name)
        options = {**how.options, **({"levels": self.run.level.level} if self.run.level else {})}
        with torch.device("meta"):
            net = nets.create(how.name, how.dims, card.channels if card else 1, len(self.published.outputs), **options)
        return sum(p.numel() for p in net.parameters() if p.requires_grad)

    def facts(self) -> dict[str, Any]:
        """For a table, or as JSON."""
        how = self.run
        made = how.recipe or (
            f"level {how.level.level} of {how.level.of}"
            if how.level
            else f"{how.applied.of} on other data"
            if how.applied
            else ""
        )
        changed = [] if self.recipe is None else _changes(self.published, self.recipe)
        seconds = self.seconds and self.seconds * self.trainings
        return {
            "run": self.key,
            "data": how.data,
            "made": made,
            "tables": list(self.tables),
            "trainings": self.trainings,
            "minutes": seconds and seconds / 60,
            "changes": changed,
            "why_not": self.why,
        }


@dataclass(frozen=True)
class Plan:
    """All of it."""

    paper: Paper
    tables: Mapping[str, Table]
    materials: Mapping[str, Material]
    steps: tuple[Step, ...]
    scale: Literal["full", "small"]
    minutes: float | None
    """Per method."""

    @property
    def doable(self) -> list[Step]:
        """Steps that can be done, in order."""
        return [step for step in self.steps if not step.why]

    def step(self, key: str) -> Step:
        """The step of a run."""
        return next(step for step in self.steps if step.key == key)

    def dataset(self, step: Step) -> Dataset:
        """Its data, with names for labels that only the weights it starts from know."""
        material = self.materials[step.run.data]
        if material.dataset is None:
            raise BadInput(f"The data of '{step.run.data}' have not been drawn yet.")
        return with_absent(material.dataset, material.missing) if step.run.start else material.dataset

    def differs(self) -> list[str]:
        """What differs from the paper, in sentences: data, budget, protocol."""
        said = [line for material in self.materials.values() for line in material.differs]
        skipped = {m.source.title: m.why for m in self.materials.values() if m.why}
        said += [f"{title}: {why}." for title, why in skipped.items()]
        said += self._unitless()
        if self.minutes is not None:
            said.append(
                f"Every method is trained for {_time(60 * self.minutes)} (preparing and evaluating come on top); one of"
                " several stages or folds shares that out among them."
            )
        else:
            said.append("Every method is trained as long as its recipe says.")
        if self.scale == "small":
            said += [f"Scaled down, as all recipes: {rule[0].lower()}{rule[1:]}" for rule in RULES]
        elif any(to_other_scans(step) for step in self.doable):
            said.append("Patches and voxels are fitted to the size of these scans, which are smaller than the paper's.")
        if any(len(step.folds) < _all_folds(step.recipe) for step in self.doable if step.recipe):
            most = max(len(step.folds) for step in self.doable)
            folds = "one fold is" if most == 1 else f"{most} folds are"
            said.append(f"Where the paper has folds, {folds} trained; the cases held back from these are scored.")
        return [*said, *self.paper.notes]

    def _unitless(self) -> list[str]:
        """Where windows in Hounsfield units became percentiles."""
        windowed = {step.run.data for step in self.doable if _windowed(step)}
        return [
            f"{material.source.title}: values have no unit here; where a recipe has a window in HU, or takes statistics"
            " of all scans together, each scan is scaled by its own percentiles."
            for key, material in self.materials.items()
            if key in windowed and not material.hounsfield
        ]

    def facts(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "paper": self.paper.name,
            "title": self.paper.title,
            "tables": list(self.tables),
            "scale": self.scale,
            "minutes_per_method": self.minutes,
            "runs": [step.facts() for step in self.steps],
            "differs": self.differs(),
        }


def make_plan(paper: Paper, asked: Request, wish: Wish, out: Path, progress: Progress | None) -> Plan:
    """Find out what can be done.

    Args:
        paper: whose tables.
        asked: about data.
        wish: about tables and cost.
        out: folder of the whole; phantoms are drawn in it.
        progress: shows the drawing of phantoms; None draws nothing.

    Raises:
        UnknownName: a table, source or structure that the paper does not have.
        BadInput: data that serve no run.
        BadFile: a folder that holds no dataset.
    """
    tables = paper.tables_named(wish.tables)
    serves = _serves(paper, tables)
    keys = paper.order(list(serves))
    sources = list(dict.fromkeys(paper.runs[key].data for key in keys))
    found = {m.key: m for m in materials(paper, sources, asked, out / DATA, progress)}
    published = {key: _published(paper, key) for key in keys}
    reasons = _reasons(paper, keys, found, published)
    methods = sum(1 for key in keys if paper.runs[key].recipe and not reasons[key])
    minutes = None if wish.minutes is None else wish.minutes / max(methods, 1)
    scale = wish.scale
    if scale == "auto":
        scale = "full" if minutes is None or minutes >= FULL_FROM else "small"
    steps = []
    for key in keys:
        step = Step(key, paper.runs[key], tuple(serves.get(key, ())), published[key], None, why=reasons[key])
        steps.append(step if step.why else _ready(step, found[step.run.data], out, (scale, minutes, wish.folds)))
    plan = Plan(paper, tables, found, tuple(_passed_on(steps)), scale, minutes)
    if not plan.doable:
        lines = [f"{step.key}: {step.why}" for step in plan.steps]
        raise BadInput("\n  ".join(["None of the runs can be done.", *lines]))
    return plan


def adapted(recipe: Recipe, material: Material, scale: str, *, keep: bool = False) -> Recipe:
    """A recipe for the data and the scale; see `reproduce.adapt`.

    Raises:
        RecipeError: the data have nothing that it segments.
        BadInput, UnknownName: it cannot be built.
    """
    own = to_values(fitted(recipe, material.names, keep=keep), hounsfield=material.hounsfield)
    own = to_scans(own, material.grids)
    own = small(own) if scale == "small" else own
    check_buildable(own)
    return own


def to_other_scans(step: Step) -> bool:
    """Whether the patches of a run were fitted to smaller scans."""
    if isinstance(step.published, Recipe) and isinstance(step.recipe, Recipe):
        return step.published.train.patch != step.recipe.train.patch
    return False


def _windowed(step: Step) -> bool:
    """Whether the published recipe of a run, or of one of its stages, takes values for Hounsfield units."""
    whole = step.published
    each = [whole] if isinstance(whole, Recipe) else [stage.recipe for stage in whole.stages.values()]
    return any(to_values(one, hounsfield=False) != one for one in each)


def _serves(paper: Paper, tables: Mapping[str, Table]) -> dict[str, list[str]]:
    """Run to the tables that it fills rows of, or whose others are tested against it."""
    found: dict[str, list[str]] = {}
    for number, table in tables.items():
        tested = [table.method, *(row.against for row in table.rows)]
        for key in dict.fromkeys(key for key in (*table.runs, *tested) if key):
            found.setdefault(key, []).append(number)
    return {key: found[key] for key in paper.runs if key in found}


def _published(paper: Paper, key: str) -> Recipe | CascadeRecipe:
    """The recipe of a run, or of the run that it is cut from or applies."""
    run = paper.runs[key]
    source = run.level.of if run.level else run.applied.of if run.applied else None
    return _published(paper, source) if source else load_any(str(run.recipe), run.change)


def _reasons(
    paper: Paper,
    keys: Sequence[str],
    found: Mapping[str, Material],
    published: Mapping[str, Recipe | CascadeRecipe],
) -> dict[str, str]:
    """Run to why its data do not serve it; "" where they do."""
    reasons = {}
    for key in keys:
        material = found[paper.runs[key].data]
        reasons[key] = material.why
        if not material.why:
            try:
                _each_stage(published[key], lambda recipe, m=material: fitted(recipe, m.names))  # type: ignore[misc]
            except RecipeError as error:
                reasons[key] = str(error)
    for key in keys:  # needs come first
        reasons[key] = reasons[key] or next(
            (f"needs the run '{n}': {reasons[n]}" for n in paper.runs[key].needs if reasons[n]), ""
        )
    return reasons


def _ready(step: Step, material: Material, out: Path, how: tuple[str, float | None, int]) -> Step:
    """A step with the recipe that will be trained and its share of the time."""
    scale, minutes, folds = how
    if step.run.recipe is None:
        return step
    try:
        keep = step.run.start is not None
        recipe = _each_stage(step.published, lambda one: adapted(one, material, scale, keep=keep))
    except AttentusError as error:
        return replace(step, why=str(error))
    if isinstance(recipe, Recipe) and step.run.start:
        start = recipe.start.model_copy(update={"model": (out / RUNS / step.run.start / "fold0").absolute()})
        recipe = recipe.model_copy(update={"start": start})
    chosen = tuple(range(min(folds, _all_folds(recipe))))
    ready = replace(step, recipe=recipe, folds=chosen)
    return replace(ready, seconds=None if minutes is None else 60 * minutes / ready.trainings)


def _passed_on(steps: Sequence[Step]) -> list[Step]:
    """The same, where what cannot be done is not needed by anything that claims it can."""
    reasons: dict[str, str] = {}
    passed = []
    for step in steps:
        why = step.why or next((f"needs the run '{n}': {reasons[n]}" for n in step.run.needs if reasons.get(n)), "")
        reasons[step.key] = why
        passed.append(replace(step, why=why))
    return passed


def _each_stage(recipe: Recipe | CascadeRecipe, change: Callable[[Recipe], Recipe]) -> Recipe | CascadeRecipe:
    """A recipe changed, or a cascade of which every stage is; stages of which the data have nothing are left out.

    Raises:
        RecipeError: nothing is left.
    """
    if isinstance(recipe, Recipe):
        return change(recipe)
    tree = recipe.model_dump()
    lost: RecipeError | None = None
    gone: set[str] = set()
    for name, stage in recipe.stages.items():
        around = {place.partition(".")[0] for place in (stage.box and stage.box.around, stage.inside) if place}
        try:
            if around & gone:
                gone.add(name)
            else:
                tree["stages"][name]["recipe"] = change(stage.recipe).model_dump()
        except RecipeError as error:
            lost = error
            gone.add(name)
    tree["stages"] = {name: stage for name, stage in tree["stages"].items() if name not in gone}
    tree["answer"] = {name: place for name, place in tree["answer"].items() if place.partition(".")[0] not in gone}
    if not tree["answer"]:
        raise lost or RecipeError("no stage is left")
    return build_cascade(tree, recipe.name)


def _all_folds(recipe: Recipe | CascadeRecipe) -> int:
    """How many folds a recipe has."""
    split = recipe.split
    if split.sizes:
        return 1
    return split.folds if split.file is None else len(entries(split.file))


def _changes(published: Recipe | CascadeRecipe, recipe: Recipe | CascadeRecipe) -> list[str]:
    """Fields in which what is trained differs from the shipped recipe, without places on this machine."""
    return [line for line in differences(published, recipe) if not line.startswith("start.model")]


def as_one(recipe: Recipe | CascadeRecipe) -> Recipe:
    """A recipe that names what is found: the recipe itself, or the answer of a cascade."""
    return recipe if isinstance(recipe, Recipe) else answer_recipe(recipe)


def labelled_as(resolved: Recipe, published: Recipe | CascadeRecipe, material: Material) -> Recipe:
    """A trained recipe whose structures are made of the labels of other data; numbers stay those of the model.

    Args:
        resolved: of the trained model.
        published: the recipe of the paper that it came from, which names the labels.
        material: the other data.
    """
    parts = {s.name: s.parts or (s.name,) for s in as_one(published).labels}
    structures = [
        {**s.model_dump(), "parts": [label for part in parts[s.name] for label in material.names.get(part, ())]}
        for s in resolved.labels
    ]
    return build({**resolved.model_dump(), "labels": structures, "channels": resolved.channels}, resolved.name)


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
