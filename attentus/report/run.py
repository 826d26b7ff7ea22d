"""What a run folder holds, as far as it holds it, and a way to speak of it without naming places on this machine."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attentus.errors import BadFile
from attentus.metrics.summary import from_json
from attentus.recipes import Recipe, answer_recipe, load_cascade

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from attentus.train.snapshots import Picture, Snapshot
    from attentus.types import Scores

    T = TypeVar("T")

CASCADE = "cascade.yaml"
_PLACE = re.compile(r"(?<![\w/\\.<])(?:/|[A-Za-z]:[\\/])(?:[^\s/\\:'\"<>|]+[\\/])+(?=[^\s/\\])")
"""The folders of an absolute path, POSIX or Windows, up to its last part."""


@dataclass(frozen=True)
class Run:
    """The files of a training, read; what is missing is empty, and `gaps` says why."""

    folder: Path
    recipe: Recipe
    data: Mapping[str, Any]
    """data.json: dataset, root, labels, train, validation, left out."""
    steps: tuple[Mapping[str, Any], ...]
    """Lines of kind "step" of metrics.jsonl."""
    validations: tuple[Mapping[str, Any], ...]
    """Lines of kind "validation"."""
    scores: Scores | None
    environment: Mapping[str, str]
    card: Mapping[str, str]
    """Facts of card.md, e.g. Parameters."""
    gaps: tuple[str, ...]
    """What is missing or damaged, and what to do about it."""
    pictures: tuple[Picture, ...] = ()
    """Cases whose attention was looked at during the training."""
    snapshots: tuple[Snapshot, ...] = ()
    """What was seen."""

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Read a run, finished or not.

        Raises:
            BadFile: the folder does not exist or holds no run.
            RecipeError: its recipe is from a version this one cannot read.
        """
        from attentus.train.log import read_log

        if not folder.is_dir():
            raise BadFile(folder, "does not exist or is no folder", "Name the folder that `attentus train` wrote.")
        recipe = _recipe_of(_file_of(folder))
        gaps: list[str] = []
        log = [line for line in read_log(folder / "metrics.jsonl") if isinstance(line, dict)]
        steps = tuple(line for line in log if line.get("kind") == "step")
        validations = tuple(line for line in log if line.get("kind") == "validation")
        data = _load(folder / "data.json", _object, gaps) or {}
        scores = _load(folder / "scores.json", from_json, gaps)
        environment = _load(folder / "environment.json", _object, gaps) or {}
        card = dict(re.findall(r"^- ([^:\n]+): (.+)$", _text(folder / "card.md"), re.MULTILINE))
        gaps = [*_unfinished(recipe, steps, folder), *gaps]
        seen = _snapshots(folder, gaps)
        return cls(folder, recipe, data, steps, validations, scores, environment, card, tuple(gaps), *seen)

    @property
    def file(self) -> Path:
        """What was trained: the recipe, or the cascade."""
        return _file_of(self.folder)

    @property
    def is_cascade(self) -> bool:
        """Whether several stages make up the result."""
        return self.file.name == CASCADE

    @property
    def structures(self) -> list[str]:
        """Names of what is segmented, in the order of their colours."""
        return [structure.name for structure in self.recipe.labels]

    @property
    def seconds(self) -> float:
        """Time spent in training steps, without validation."""
        return sum(float(line["seconds"]) for line in self.steps)

    def discreet(self, text: str) -> str:
        """A text without absolute paths: what leads to the dataset, the run or any other file is cut off."""
        for place in (str(self.data.get("root", "")), str(self.folder.resolve())):
            if len(place) > 1:
                text = text.replace(place, Path(place).name)
        return without_folders(text)


def without_folders(text: str) -> str:
    """A text whose absolute paths have lost their folders."""
    return _PLACE.sub("", text)


def _file_of(folder: Path) -> Path:
    """recipe.yaml or cascade.yaml, whichever the folder holds.

    Raises:
        BadFile: it holds neither.
    """
    for name in (CASCADE, "recipe.yaml"):
        if (folder / name).is_file():
            return folder / name
    raise BadFile(folder, "holds no run (no recipe.yaml)", "Name the folder that `attentus train` wrote.")


def _recipe_of(file: Path) -> Recipe:
    """The recipe of a run; of a cascade, what it takes and finds as one."""
    return answer_recipe(load_cascade(file)) if file.name == CASCADE else Recipe.load(file)


def _load(file: Path, parse: Callable[[str], T], gaps: list[str]) -> T | None:
    """A parsed file; None where there is none, or where it is damaged, which is added to the gaps."""
    if not file.is_file():
        return None
    try:
        return parse(_text(file))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        gaps.append(
            f"{file.name} is damaged ({reason}); what it holds is missing here. Delete it and train again to renew it."
        )
        return None


def _snapshots(folder: Path, gaps: list[str]) -> tuple[tuple[Picture, ...], tuple[Snapshot, ...]]:
    """What was seen of the attention during the training; nothing if it cannot be read, which is added to the gaps."""
    if not (folder / "snapshots").is_dir():
        return (), ()
    from attentus.train.snapshots import read_snapshots

    try:
        pictures, seen = read_snapshots(folder)
    except BadFile as error:
        gaps.append(f"{Path(error.path).name}: {error.problem}. {error.fix}")
        return (), ()
    return tuple(pictures), tuple(seen)


def _object(text: str) -> dict[str, Any]:
    """A JSON object."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise TypeError(f"a JSON object is expected, found {type(value).__name__}")
    return value


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _unfinished(recipe: Recipe, steps: tuple[Mapping[str, Any], ...], folder: Path) -> list[str]:
    if (folder / "scores.json").is_file():
        return []
    if not steps:
        return ["Training has not begun: there are no steps and no scores yet. Run `attentus train` to begin."]
    return [
        f"Training is not finished ({steps[-1]['step']:,} of {recipe.train.steps:,} steps), so there are no scores yet."
        " Run the same training command again: it goes on where it stopped."
    ]
