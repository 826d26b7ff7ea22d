"""What a paper's experiments are, as data: which runs there are, which tables they fill, what was published.

One YAML file per paper in `papers/`. A row of a table names the run that fills it; a row without one says why: it was
never retrained by the paper's authors either, or nothing here can stand for it. Numbers are as printed.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from attentus.errors import BadFile, UnknownName
from attentus.metrics.pair import metric_named
from attentus.metrics.pooled import POOLED
from attentus.metrics.presets import preset_named
from attentus.recipes.schema import Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PRINTED = re.compile(r"(?P<sign>\+?)(?P<value>-?\d*\.?\d+)(?:\s*±\s*(?P<sd>\d*\.?\d+))?")

MEAN = "mean"
"""A structure that stands for the mean over all that are scored."""


class Published(Section):
    """One number as a paper prints it."""

    text: str
    """As written in the paper's file: 94.45, "51.66 ± 30.29", or "+1.02" where the paper tells a difference."""
    value: float
    sd: float | None = None
    more: bool = False
    """Whether it is what comes on top of the table's first row."""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return given
        found = _PRINTED.fullmatch(str(given).strip())
        if not found:
            raise ValueError(f"no printed number: '{given}' (write 94.45, '51.66 ± 30.29' or '+1.02')")
        sd = found["sd"]
        return {
            "text": str(given).strip().replace("-", "−"),
            "value": float(found["value"]),
            "sd": None if sd is None else float(sd),
            "more": bool(found["sign"]),
        }


class Source(Section):
    """Data that a paper used, what stands in for them, and how it measured on them."""

    title: str
    """What the paper used."""
    parts: dict[str, tuple[str, ...]]
    """Label that the recipes name to what datasets may call it, best first; "a + b" joins labels. Its own name is
    always tried first."""
    phantom: Literal["abdomen", "brain"]
    """Which synthetic scans stand in where nothing is given."""
    seed: int = 0
    """Of these: sources of one kind and seed share the scans."""
    apart: str | None = None
    """Another source whose cases must not be among these: one folder given for both is dealt in halves."""
    scores: dict[str, tuple[str, ...]] = Field(default={})
    """What is scored: structure of the tables to the structures of the recipes that form it; what is not named is
    scored as it is."""
    preset: str = "default"
    """Metrics and rules by name, see `metrics.presets`."""
    lesions: tuple[str, ...] = ()
    """Structures that come in pieces, each of which is to be found."""
    organ: str = ""
    """Structure that holds them."""

    @field_validator("preset")
    @classmethod
    def _known(cls, name: str) -> str:
        preset_named(name)
        return name


class Level(Section):
    """A trained nested net, cut down."""

    of: str
    level: Annotated[int, Field(ge=1)]


class Applied(Section):
    """A trained model on other data, as it is."""

    of: str
    like: str | None = None
    """The run on whose test cases it is judged; null takes all cases of the source."""


class Run(Section):
    """One thing that fills rows: trained from a recipe, cut from a trained one, or applied to other data."""

    data: str
    """Its source."""
    recipe: str | None = None
    """A shipped recipe, a variant of one, or a cascade."""
    change: tuple[str, ...] = ()
    """Fields that are other than there, as --set takes them."""
    start: str | None = None
    """The run whose weights it starts from."""
    level: Level | None = None
    applied: Applied | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Run:
        if sum(way is not None for way in (self.recipe, self.level, self.applied)) != 1:
            raise ValueError("a run has one of recipe, level and applied")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """Runs that must be there first."""
        given = (self.start, self.level and self.level.of, self.applied and self.applied.of)
        like = self.applied.like if self.applied else None
        return tuple(key for key in (*given, like) if key)


class Column(Section):
    """What a table measures."""

    name: str
    """Heading as printed, with the unit."""
    structure: str = ""
    """One of the source's, or "mean"; empty for costs."""
    metric: str | None = None
    """Measured case by case: mean, SD and test."""
    pooled: str | None = None
    """Measured over all cases together, where the paper did so; this is what stands beside its number."""
    cost: Literal["parameters", "forward"] | None = None
    """"parameters": of the net as published, counted exactly. "forward": seconds of a forward pass of one window."""
    factor: float = 1.0
    """Ours times this is in the paper's unit."""
    digits: Annotated[int, Field(ge=0, le=6)] = 3
    """Decimals shown."""

    @model_validator(mode="after")
    def _measurable(self) -> Column:
        if (self.cost is None) == (self.metric is None and self.pooled is None):
            raise ValueError(f"column '{self.name}' has a metric, a pooled one or both, or a cost")
        if self.cost is None and not self.structure:
            raise ValueError(f"column '{self.name}' says of which structure")
        if self.metric:
            metric_named(self.metric)
        if self.pooled and self.pooled not in POOLED:
            raise ValueError(f"column '{self.name}': nothing pooled is called '{self.pooled}'")
        return self


class Row(Section):
    """A line of a table."""

    name: str
    """As printed."""
    run: str | None = None
    """What fills it; null where nothing does, see `why`."""
    why: str = ""
    """Why nothing does."""
    published: tuple[Published | None, ...]
    """A number per column; null where the paper has none."""
    against: str | None = None
    """The run it is tested against, where that is not the table's `method`."""

    @model_validator(mode="after")
    def _filled_or_said(self) -> Row:
        if (self.run is None) != bool(self.why):
            raise ValueError(f"row '{self.name}' has a run, or says why it has none")
        return self


class Table(Section):
    """A table of results."""

    title: str
    method: str | None = None
    """The run of the paper's own method, against which the others are tested."""
    test: Literal["wilcoxon", "t"] = "wilcoxon"
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    """What a reader must know of it: slips, readings."""

    @model_validator(mode="after")
    def _rectangular(self) -> Table:
        for row in self.rows:
            if len(row.published) != len(self.columns):
                raise ValueError(f"row '{row.name}' has {len(row.published)} numbers for {len(self.columns)} columns")
        return self

    @property
    def runs(self) -> tuple[str, ...]:
        """Runs that its rows name."""
        return tuple(dict.fromkeys(row.run for row in self.rows if row.run))


class Figure(Section):
    """A figure of results."""

    about: str
    kind: Literal["overlays", "levels", "curves"] | None = None
    """What draws it, see `reproduce.figures`; null where nothing does, see `why`."""
    runs: tuple[str, ...] = ()
    why: str = ""

    @model_validator(mode="after")
    def _drawn_or_said(self) -> Figure:
        if (self.kind is None) != bool(self.why) or (self.kind is None) == bool(self.runs):
            raise ValueError("a figure has a kind and runs, or says why it has none")
        return self


class Paper(Section):
    """The experiments of a paper."""

    name: str
    title: str
    cite: str
    method: str
    """The run that is the paper's method."""
    sources: dict[str, Source]
    runs: dict[str, Run]
    tables: dict[str, Table]
    figures: dict[str, Figure] = Field(default={})
    notes: tuple[str, ...] = ()
    """How the protocol here differs from the paper's, whatever the data and the budget."""

    @model_validator(mode="after")
    def _whole(self) -> Paper:
        for where, key in self._named_runs():
            if key not in self.runs:
                raise ValueError(f"{where}: there is no run '{key}'")
        for key, run in self.runs.items():
            if run.data not in self.sources:
                raise ValueError(f"runs.{key}: there is no source '{run.data}'")
        for key, source in self.sources.items():
            if source.apart and source.apart not in self.sources:
                raise ValueError(f"sources.{key}: there is no source '{source.apart}'")
        self.order(self.runs)
        return self

    def _named_runs(self) -> Iterator[tuple[str, str]]:
        yield "method", self.method
        for key, run in self.runs.items():
            yield from ((f"runs.{key}", other) for other in run.needs)
        for number, table in self.tables.items():
            named = (*table.runs, table.method, *(row.against for row in table.rows))
            yield from ((f"tables.{number}", key) for key in named if key)
        for number, figure in self.figures.items():
            yield from ((f"figures.{number}", key) for key in figure.runs)

    def order(self, wanted: Sequence[str] | dict[str, Run]) -> list[str]:
        """The runs and all that they need, each after what it needs, otherwise as in the file.

        Raises:
            ValueError: runs that need each other.
        """
        found: dict[str, None] = {}

        def add(key: str, above: tuple[str, ...]) -> None:
            if key in above:
                raise ValueError(f"runs need each other: {' -> '.join([*above, key])}")
            for other in self.runs[key].needs:
                add(other, (*above, key))
            found[key] = None

        for key in self.runs:
            if key in wanted:
                add(key, ())
        return list(found)

    def tables_named(self, wanted: Sequence[str] | None) -> dict[str, Table]:
        """Some of the tables, or all.

        Raises:
            UnknownName: no such table.
        """
        for number in wanted or ():
            if number not in self.tables:
                raise UnknownName(f"table of the paper '{self.name}'", number, self.tables)
        return {number: table for number, table in self.tables.items() if not wanted or number in wanted}


def papers() -> list[str]:
    """Names of the papers whose experiments are known, in alphabetical order."""
    return sorted(item.name.removesuffix(".yaml") for item in _folder().iterdir() if item.name.endswith(".yaml"))


def load_paper(name: str) -> Paper:
    """The experiments of a paper.

    Raises:
        UnknownName: no such paper.
        BadFile: its file is malformed.
    """
    if name not in papers():
        raise UnknownName("paper", name, papers())
    file = _folder() / f"{name}.yaml"
    tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    try:
        return Paper.model_validate({"name": name, **tree})
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise BadFile(str(file), "\n  ".join(["is malformed:", *lines]), "Correct it.") from None


def _folder() -> Any:
    return files("attentus.reproduce") / "papers"
