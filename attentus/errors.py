"""Every error a caller may want to catch. Each message says what was found, where, and what to do.

AttentusError
├── BadInput            a file, folder, array or request that cannot be used as it is
│   ├── BadFile         one file or folder: missing, empty, truncated, of another kind, ...
│   ├── GridMismatch    two volumes that should share a grid do not
│   └── Unusable        a backend that cannot serve here, where others can
├── RecipeError         a recipe that cannot be loaded or does not fit the data
├── UnknownName         a name that no table knows (also a LookupError)
├── MissingExtra        an optional package is not installed (also an ImportError)
└── TrainingStopped     training cannot go on (a loss that is not finite, a full disk, ...)
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike


class AttentusError(Exception):
    """Base of all errors raised on purpose; the command line shows its text and exits with code 2."""


class BadInput(AttentusError, ValueError):
    """The input cannot be used; the message names it and says how to get past it."""


class BadFile(BadInput):
    """One file or folder cannot be used: `path` says which, `problem` why, `fix` what to do about it."""

    def __init__(self, path: str | PathLike[str], problem: str, fix: str) -> None:
        super().__init__(f"{path}: {problem}\n  {fix}")
        self.path = str(path)
        self.problem = problem
        self.fix = fix

    def __reduce__(self) -> tuple[type[BadFile], tuple[str, str, str]]:
        """Survive the trip between processes, which rebuilds an error from its arguments."""
        return type(self), (self.path, self.problem, self.fix)


class GridMismatch(BadInput):
    """Two volumes should lie on one grid but differ in shape, spacing, position or direction."""


class Unusable(BadInput):
    """A backend cannot serve this net or machine; the message says why, and another one can be taken instead."""


class RecipeError(AttentusError, ValueError):
    """A recipe is malformed, contradicts itself or does not fit the data; the message names the field."""


class UnknownName(AttentusError, LookupError):
    """No entry of that name; the message gives the nearest known one and all others."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        super().__init__(f"No {kind} is called '{name}'.{did_you_mean(name, self.known)}")

    def __reduce__(self) -> tuple[type[UnknownName], tuple[str, str, list[str]]]:
        """Survive the trip between processes."""
        return type(self), (self.kind, self.name, self.known)


class MissingExtra(AttentusError, ImportError):
    """An optional package is needed; the message holds the `pip install` line that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package, self.extra, self.purpose = package, extra, purpose
        super().__init__(f"{purpose} needs the package '{package}'. Install it with: pip install 'attentus[{extra}]'")

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str, str]]:
        """Survive the trip between processes."""
        return type(self), (self.package, self.extra, self.purpose)


class TrainingStopped(AttentusError, RuntimeError):
    """Training cannot continue; what was reached is saved and the message says how to go on."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known name if one is near, then all of them."""
    names = sorted(known)
    near = get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    guess = f" Did you mean '{near[0]}'?" if near else ""
    return f"{guess} Known: {', '.join(names) if names else 'none'}."
