"""Look-up by name: explicit tables, near misses suggested, plug-ins by entry point.

A plug-in package adds a name by declaring an entry point in the group of the table it extends, for example
`[project.entry-points."attentus.nets"]` with `my-net = "my_package:MyNet"`. It is imported only when asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from attentus.errors import BadInput, UnknownName, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.metadata import EntryPoint

T = TypeVar("T")


class Registry(Generic[T]):
    """A table from stable names to things of one kind.

    Args:
        kind: what the entries are, in words, for messages ("net", "loss").
        entries: the built-in names.
        group: entry-point group searched for names that are not built in, e.g. "attentus.nets".
    """

    def __init__(self, kind: str, entries: Mapping[str, T], group: str | None = None) -> None:
        self.kind = kind
        self._entries = dict(entries)
        self._group = group

    def names(self) -> list[str]:
        """All names in alphabetical order, plug-ins included."""
        return sorted({*self._entries, *self._plugins()})

    def get(self, name: str) -> T:
        """The entry of that name.

        Raises:
            UnknownName: no such entry; the message suggests the nearest one.
        """
        if name in self._entries:
            return self._entries[name]
        if name in (plugins := self._plugins()):
            loaded: T = plugins[name].load()
            return self._entries.setdefault(name, loaded)
        raise UnknownName(self.kind, name, {*self._entries, *plugins})

    def _plugins(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self._group)} if self._group else {}


class Factory(Registry[Callable[..., T]]):
    """A registry of things to build: each entry is called with plain values, its keyword-only arguments are options."""

    def options(self, name: str) -> dict[str, Any]:
        """The options of an entry and their defaults.

        Raises:
            UnknownName: no such entry.
        """
        parameters = inspect.signature(self.get(name)).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def create(self, name: str, *arguments: Any, **options: Any) -> T:
        """Build an entry.

        Raises:
            UnknownName: no such entry.
            BadInput: an option it does not have; the message suggests the nearest one.
        """
        known = self.options(name)
        for option in options:
            if option not in known:
                raise BadInput(f"The {self.kind} '{name}' has no option '{option}'.{did_you_mean(option, known)}")
        return self.get(name)(*arguments, **options)
