"""Which structures are scored, and which label values form them on either side, which may count differently."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from attentus.errors import BadInput, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Values = int | tuple[int, ...] | Literal["any"]
"""Which voxels form a structure: those of one value, of several, or all that are not 0."""

Wanted = int | str | tuple[int | str, ...]
"""The same, where names that a side gives to its labels may stand for values."""

Names = dict[str, tuple[int, ...]]
"""Label name to the values its voxels hold."""


@dataclass(frozen=True)
class Sides:
    """A structure whose values differ between prediction and reference."""

    prediction: Wanted
    reference: Wanted


Labels = Mapping[str, Wanted | Sides] | tuple[Mapping[str, Wanted], Mapping[str, Wanted]]
"""Structure to what forms it: plain values hold for both sides; or one mapping for each side, predictions first."""


@dataclass(frozen=True)
class Side:
    """What one side of a case says about its labels."""

    names: Names | None = None
    """Label name to values; None when it names nothing."""
    numbers: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Number to the values its voxels hold, where these differ: segments that overlap."""
    numbered: bool = True
    """False when numbers mean nothing: one file per structure."""

    def values(self, wanted: Wanted, structure: str) -> Values:
        """The values that form a structure in this case; () when it names labels, but not this one.

        Raises:
            BadInput: a name, and this side names nothing.
        """
        if wanted == "any":
            return "any"
        values: list[int] = []
        for item in wanted if isinstance(wanted, tuple) else (wanted,):
            if isinstance(item, int) and self.numbered:
                values += self.numbers.get(item, (item,))
            elif self.names is None:
                raise BadInput(f"'{item}' names a label, but the labels here have no names; give values instead.")
            else:
                # Where every structure has a file of its own, a number can only mean the other side's.
                values += lookup(self.names).get(plain(structure if isinstance(item, int) else item), ())
        return values[0] if len(values) == 1 else tuple(values)


def plain(name: str) -> str:
    """A name without case and separators: "Kidney left" and "kidney_left" are one structure."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def lookup(names: Names) -> Names:
    """Plain names to values."""
    found: Names = {}
    for name, values in names.items():
        found[plain(name)] = tuple(dict.fromkeys((*found.get(plain(name), ()), *values)))
    return found


def choose(
    labels: Labels | None,
    predictions: Sequence[Names | None],
    references: Sequence[Names | None],
) -> tuple[dict[str, Sides] | None, list[str]]:
    """The structures to score.

    Args:
        labels: what the caller asked for: structure to values on both sides or `Sides`, or one mapping for the
            predictions and one for the references. None takes the labels that both sides name.
        predictions: names that each prediction gives to its labels.
        references: the same for the references.

    Returns:
        Structure to what forms it; None when nobody names labels, so that every value is a structure. Then the
        structures that only one side names, with the side.

    Raises:
        BadInput: no name is on both sides, or names were asked for that a side does not have.
    """
    found, truth = _union(predictions), _union(references)
    if isinstance(labels, tuple):
        asked, alone = _common({n: (n, v) for n, v in labels[0].items()}, {n: (n, v) for n, v in labels[1].items()})
    elif labels is not None:
        asked = {name: want if isinstance(want, Sides) else Sides(want, want) for name, want in labels.items()}
        alone = []
    if labels is not None:
        for side, known in (("prediction", found), ("reference", truth)):
            _require(asked, side, known)
        return asked, alone
    if found is not None and truth is not None:
        return _common({n: (n, n) for n in found}, {n: (n, n) for n in truth})
    if truth is not None:
        return {name: Sides(_agreed(name, references), name) for name in truth}, []
    return (None if found is None else {name: Sides(name, _agreed(name, predictions)) for name in found}), []


def match(structures: Mapping[str, Sides], prediction: Side, reference: Side) -> dict[str, tuple[Values, Values]]:
    """The values that form each structure in a case, in prediction and reference.

    Raises:
        BadInput: a side cannot tell.
    """
    return {
        name: (prediction.values(sides.prediction, name), reference.values(sides.reference, name))
        for name, sides in structures.items()
    }


def relabel(
    prediction: NDArray[Any], reference: NDArray[Any], structures: Mapping[str, tuple[Values, Values]]
) -> tuple[NDArray[Any], dict[str, Values]]:
    """Bring the prediction to the reference's values.

    A value of the prediction becomes one that belongs to exactly the same structures in the reference, or a new one.

    Args:
        prediction: (..., z, y, x) labels.
        reference: labels.
        structures: values of each structure in prediction and reference.

    Returns:
        The prediction, itself if the values agree, and the values of each structure on both sides.
    """
    top = int(reference.max(initial=0))
    unused = 1 + max(top, int(prediction.max(initial=0)), *(v for both in structures.values() for v in _all(both)))
    if all(_same(*sides) for sides in structures.values()):
        return prediction, {name: truth if truth != () else unused for name, (_, truth) in structures.items()}
    wanted = {
        name: tuple(range(1, top + 1)) if truth == "any" != found else truth
        for name, (found, truth) in structures.items()
    }
    taken = {v for truth in wanted.values() if truth != "any" for v in _listed(truth)}
    by_members = {frozenset(n for n, truth in wanted.items() if _belongs(v, truth)): v for v in sorted(taken)[::-1]}
    by_members.setdefault(frozenset(), unused if 0 in taken else 0)
    table = np.zeros(1 + int(prediction.max(initial=0)), np.uint16)
    fresh = unused + 1
    for value in range(len(table)):
        members = frozenset(name for name, (found, _) in structures.items() if _belongs(value, found))
        if members not in by_members:
            fresh += 1
            by_members[members] = fresh
            wanted |= {n: (*_listed(t), fresh) for n, t in wanted.items() if n in members and t != "any"}
        table[value] = by_members[members]
    table = table.astype(np.uint8) if table.max() < 256 else table
    return table[prediction], {name: truth if truth != () else unused + 1 for name, truth in wanted.items()}


def _union(sides: Sequence[Names | None]) -> Names | None:
    """What the cases of a side name together; a case may lack a structure that others have."""
    together: Names = {}
    named = False
    for names in sides:
        named = named or names is not None
        for name, values in (names or {}).items():
            together.setdefault(name, values)
    return together if named else None


def _agreed(name: str, sides: Sequence[Names | None]) -> tuple[int, ...]:
    """The values of a label that only one side names; the other side is taken to use the same.

    Raises:
        BadInput: there are none, or they differ between cases, so that nobody knows what the other side means.
    """
    values = {names[name] for names in sides if names and name in names}
    if len(values) == 1 and (only := values.pop()):
        return only
    raise BadInput(
        f"One side calls a label '{name}', the other names nothing, and which value it has there cannot be told.\n"
        f"  Give it, for example --label {name}={name}:1 (prediction:reference) or labels={{'{name}': 1}}."
    )


def _common(
    prediction: dict[str, tuple[str, Wanted]], reference: dict[str, tuple[str, Wanted]]
) -> tuple[dict[str, Sides], list[str]]:
    """Structures that both sides have, called as the reference calls them, and those that one side has alone."""
    mine = {plain(name): entry for name, entry in prediction.items()}
    theirs = {plain(name): entry for name, entry in reference.items()}
    both = {name: Sides(mine[key][1], wanted) for key, (name, wanted) in theirs.items() if key in mine}
    if not both:
        raise BadInput(
            "Prediction and reference name their labels, but no name is on both sides.\n"
            f"  prediction  {', '.join(prediction) or 'none'}\n"
            f"  reference   {', '.join(reference) or 'none'}\n"
            "  Say which belong together: labels={'liver': Sides('hepar', 'liver')}, or --label liver=hepar:liver."
        )
    alone = [f"{name} (prediction only)" for key, (name, _) in mine.items() if key not in theirs]
    return both, alone + [f"{name} (reference only)" for key, (name, _) in theirs.items() if key not in mine]


def _require(structures: Mapping[str, Sides], side: str, known: Names | None) -> None:
    """Every name that was asked for must be one that some case of the side has."""
    for sides in structures.values():
        wanted = getattr(sides, side)
        for item in wanted if isinstance(wanted, tuple) else (wanted,):
            if not isinstance(item, str) or item == "any":
                continue
            if known is None:
                raise BadInput(
                    f"'{item}' names a label, but the {side} does not name its labels.\n"
                    "  Give its value instead, for example --label liver=liver:1 (prediction:reference)."
                )
            if plain(item) not in lookup(known):
                raise BadInput(f"The {side} has no label '{item}'.{did_you_mean(item, known)}")


def _listed(values: Values) -> tuple[int, ...]:
    return values if isinstance(values, tuple) else (values,)  # type: ignore[return-value]


def _all(both: tuple[Values, Values]) -> tuple[int, ...]:
    return tuple(v for values in both if values != "any" for v in _listed(values))


def _same(one: Values, other: Values) -> bool:
    return one == other or ("any" not in (one, other) and set(_listed(one)) == set(_listed(other)))


def _belongs(value: int, values: Values) -> bool:
    return value > 0 if values == "any" else value in _listed(values)
