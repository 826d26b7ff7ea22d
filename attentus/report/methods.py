"""What is compared: the scores of a run, of several folds or of a file, and what the method costs if that is known."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attentus.errors import BadFile, BadInput
from attentus.metrics.summary import from_json
from attentus.recipes import Recipe
from attentus.report.run import CASCADE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from attentus.types import Score, Scores

SCORES = "scores.json"


@dataclass(frozen=True)
class Price:
    """What a network costs."""

    net: str
    parameters: int
    flops: int
    """Of one window: two per multiply-add."""
    window: tuple[int, ...]
    """(z, y, x), or (y, x)."""


@dataclass(frozen=True)
class Method:
    """One thing to compare."""

    name: str
    scores: Scores
    price: Price | None
    """None where no recipe tells the network."""
    seconds: Mapping[str, float]
    """Case to the time from scan file to label file; empty where it was not taken."""
    hardware: tuple[str, ...]
    """What the times were taken on."""
    folder: Path | None = None
    """Where its predictions are; None for a file of scores."""
    home: Path | None = None
    """The run that tells recipe and dataset: the folder itself, or the first of several folds."""


def open_methods(texts: Sequence[str], *, priced: bool = True) -> list[Method]:
    """Open what is to be compared.

    Args:
        texts: paths, or NAME=PATH: the folder of a run, or of several folds and seeds, or a JSON file that
            `attentus score` or a training wrote. Without a name, a folder's own name is taken, and a file's.
        priced: whether to count what networks cost, which takes some seconds each.

    Raises:
        BadFile: no such place, no scores in it, or a damaged file.
        BadInput: two methods of one name.
        RecipeError: the recipe of a run is from a version this one cannot read.
    """
    return [open_method(name, place, priced=priced) for name, place in named(texts).items()]


def named(texts: Sequence[str]) -> dict[str, Path]:
    """Names and places of what is written as PLACE or NAME=PLACE; without a name, the place's own is taken.

    Raises:
        BadInput: two of one name.
    """
    found: dict[str, Path] = {}
    for name, place in map(_named, texts):
        if name in found:
            raise BadInput(
                f"Two methods are called '{name}': {found[name]} and {place}.\n"
                f"  Give them names: first={found[name]} second={place}"
            )
        found[name] = place
    return found


def open_method(name: str, place: Path, *, priced: bool = True) -> Method:
    """Open one method; see `open_methods`.

    Raises:
        BadFile: no such place, no scores in it, or a damaged file.
        RecipeError: the recipe of a run is from a version this one cannot read.
    """
    if not place.exists():
        raise BadFile(place, "does not exist", "Name the folder of a run, or a JSON file that `attentus score` wrote.")
    file = place / SCORES if place.is_dir() else place
    if not file.is_file():
        raise BadFile(place, f"holds no scores (no {SCORES})", "Name the folder of a training that has finished.")
    scores, facts = read_scores(file)
    runs = [str(run) for run in facts.get("runs", ())]
    timing = facts.get("timing", {})
    home = place / runs[0] if runs and not (place / CASCADE).is_file() else place
    known = place.is_dir() and any((home / recipe).is_file() for recipe in ("recipe.yaml", CASCADE))
    return Method(
        name,
        _one_row_per_case(scores, runs) if runs else scores,
        _price(home) if priced and place.is_dir() and (home / "recipe.yaml").is_file() else None,
        {case: _mean(took) for case, took in _grouped(timing.get("seconds", {}).items(), runs).items()},
        tuple(timing.get("hardware", ())),
        place if known else None,
        home if known else None,
    )


def _named(text: str) -> tuple[str, Path]:
    """NAME=PATH, or a path that gives the name."""
    path = Path(text)
    if not path.exists() and "=" in text:
        name, _, rest = text.partition("=")
        if name and rest:
            return name, Path(rest)
    place = path.resolve()
    return (place.parent.name if place.name == SCORES else place.name if place.is_dir() else place.stem), path


def read_scores(file: Path) -> tuple[Scores, dict[str, Any]]:
    """Scores from a JSON file, and all it says.

    Raises:
        BadFile: no such file, or no scores in it.
    """
    try:
        text = file.read_text(encoding="utf-8")
        return from_json(text), json.loads(text)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise BadFile(
            file,
            f"holds no scores that can be read ({reason})",
            "Name a JSON file that `attentus score PRED REF -o FILE.json` or a training wrote.",
        ) from None


def _price(folder: Path) -> Price:
    """What the network of a run costs, counted without its weights."""
    from attentus.infer.model import price, window_of

    recipe = Recipe.load(folder / "recipe.yaml")
    cost = price(recipe)
    window = window_of(recipe).size[-recipe.net.dims :]
    return Price(f"{recipe.net.name}, {recipe.net.dims}D", cost.parameters, cost.flops, window)


def _one_row_per_case(scores: Scores, runs: Sequence[str]) -> Scores:
    """A case that several runs scored, named "case (run)", becomes one, with the mean of its values."""
    groups: dict[tuple[str, str, str], list[Score]] = {}
    for row in scores:
        groups.setdefault((_plain(row.case, runs), row.structure, row.metric), []).append(row)
    rows = tuple(
        group[0]._replace(case=case, value=_mean([row.value for row in group])) for (case, *_), group in groups.items()
    )
    return replace(scores, rows=rows, failures={_plain(case, runs): why for case, why in scores.failures.items()})


def _grouped(pairs: Iterable[tuple[str, float]], runs: Sequence[str]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for case, value in pairs:
        groups.setdefault(_plain(case, runs), []).append(float(value))
    return groups


def _plain(case: str, runs: Sequence[str]) -> str:
    """The id of a case without the run that scored it."""
    return next((case.removesuffix(f" ({run})") for run in runs if case.endswith(f" ({run})")), case)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
