"""A model without the attention modules that an audit found decorative, and what that changes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from attentus import nets
from attentus.errors import BadFile, BadInput
from attentus.explain.verdict import Change, change
from attentus.export.prune import without
from attentus.metrics.summary import case_means
from attentus.train.evaluate import evaluate
from attentus.train.levels import cases_of, write_pruned

if TYPE_CHECKING:
    from attentus.data.dataset import Dataset
    from attentus.infer.model import Model
    from attentus.progress import Progress
    from attentus.types import Scores


@dataclass(frozen=True, eq=False)
class Removal:
    """A model before and after."""

    source: Model
    pruned: Model
    modules: tuple[str, ...]
    parameters: tuple[int, int]
    gflop: tuple[float, float]
    """Of one window."""
    dice: Change | None
    """Of removing all of them together; None where neither the audit nor data tells."""
    measured_on: str
    scores: Scores | None = None
    """Of the pruned model, where it was measured here."""

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "modules": list(self.modules),
            "parameters": list(self.parameters),
            "gflop": list(self.gflop),
            "dice": self.dice and self.dice.facts(),
            "measured_on": self.measured_on,
        }

    def in_words(self) -> str:
        """For the model's card."""
        words = f"{self.source.recipe.name} without {', '.join(self.modules)}, not trained again"
        if self.dice is None:
            return words
        return (
            f"{words}; mean Dice {self.dice.after:.4f} instead of {self.dice.before:.4f}"
            f" ({self.dice.difference:+.4f}, 95 % {self.dice.low:+.4f} to {self.dice.high:+.4f}) on {self.measured_on}"
        )


def remove_decorative(
    model: Model, audit: Path, *, dataset: Dataset | None = None, progress: Progress | None = None
) -> Removal:
    """Take out what an audit of this model found decorative or harmful.

    Args:
        model: which was audited.
        audit: audit.json, or the folder it is in.
        dataset: what the model was trained on, to measure both models on the cases held back; without it the change is
            the one that the audit measured.
        progress: shows the cases.

    Raises:
        BadFile: no audit, or one of another model.
        BadInput: nothing can go.
    """
    facts = _read(audit, model)
    names = tuple(facts["decorative"])
    if not names:
        raise BadInput(f"{audit}: no module is decorative or harmful, so nothing is removed.")
    pruned = without(model, names)
    size = model.window.size[-model.recipe.net.dims :]
    before, after = (nets.cost(each.net, len(model.recipe.channels), size) for each in (model, pruned))
    cost = (before.parameters, after.parameters), (before.flops / 1e9, after.flops / 1e9)
    if dataset is None:
        dice = _audited(facts["rows"], names)
        place = f"{len(facts['cases'])} cases of {facts['dataset']} ({facts['side']}), in the audit"
        return Removal(model, pruned, names, *cost, dice, place)
    held_back = dataset.subset(cases_of(model, dataset, "validation"))
    with TemporaryDirectory(prefix="attentus-prune-") as scratch:
        was, now = (evaluate(each, held_back, Path(scratch), progress) for each in (model, pruned))
    old, new = case_means(was, "dice"), case_means(now, "dice")
    common = [case for case in old if case in new]
    dice = change("dice", [new[case] for case in common], [old[case] for case in common])
    return Removal(model, pruned, names, *cost, dice, f"{len(common)} cases held back", now)


def write_removal(found: Removal, out: Path, *, dataset: Dataset | None = None, overwrite: bool = False) -> None:
    """Write the model without its decorative modules as a complete model folder; see `train.levels.write_pruned`.

    Raises:
        BadInput, BadFile: see there.
    """
    how = found.in_words()
    write_pruned(found.source, found.pruned, how, out, scores=found.scores, dataset=dataset, overwrite=overwrite)


def _read(audit: Path, model: Model) -> dict[str, Any]:
    file = audit / "audit.json" if audit.is_dir() else audit
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        known = (facts["format"], facts["version"]) == ("attentus-audit", 1)
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise BadFile(file, "holds no audit", "Name the audit.json that `attentus audit` wrote.")
    if facts["fingerprint"] != model.fingerprint:
        raise BadFile(file, f"is the audit of another model ({facts['model']})", "Audit this model: `attentus audit`.")
    return facts


def _audited(rows: list[dict[str, Any]], names: tuple[str, ...]) -> Change | None:
    """What the audit measured for removing just these."""
    for row in rows:
        if {*row["modules"]} == {*names}:
            numbers = row["changes"]["none"]["dice"]
            return Change(**{key: _number(value) for key, value in numbers.items()})
    return None


def _number(value: Any) -> Any:
    return float("nan") if value is None else value
