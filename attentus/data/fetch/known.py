"""The catalogue of public datasets, catalogue.yaml."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from attentus.errors import UnknownName


class Archive(BaseModel):
    """A file to download."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    md5: str | None = None

    @property
    def file(self) -> str:
        """Its name."""
        return self.url.rsplit("/", 1)[-1]


class Entry(BaseModel):
    """A dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    about: str
    licence: str
    home: str
    size_gb: float = 0.0
    """Of what is downloaded, 10^9 bytes, rounded; 0 where it is not known."""
    opens: tuple[str, ...] = ()
    """Folders within the archives that `Dataset.open` takes."""
    download: tuple[Archive, ...] = ()
    steps: tuple[str, ...] = ()
    """What a person must do where nothing can be downloaded."""

    @model_validator(mode="after")
    def _either(self) -> Entry:
        if bool(self.download) == bool(self.steps):
            raise ValueError(f"{self.name}: give either download or steps")
        if self.download and not (self.size_gb and self.opens):
            raise ValueError(f"{self.name}: a download needs size_gb and opens")
        return self


@cache
def catalogue() -> dict[str, Entry]:
    """All datasets by name."""
    text = (files("attentus.data.fetch") / "catalogue.yaml").read_text(encoding="utf-8")
    return {name: Entry(name=name, **facts) for name, facts in yaml.safe_load(text).items()}


def entry(name: str) -> Entry:
    """The dataset of that name.

    Raises:
        UnknownName: no such dataset.
    """
    if name not in catalogue():
        raise UnknownName("dataset", name, catalogue())
    return catalogue()[name]
