"""card.md of a cascade: its stages, where each looked, and how they do together."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from attentus.cascade.views import cuts_of
from attentus.infer.model import price
from attentus.io.atomic import write_text
from attentus.metrics.summary import from_json
from attentus.train.environment import environment
from attentus.train.evaluate import table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attentus.cascade.views import Training
    from attentus.types import Scores


def write_card(job: Training, scores: Scores) -> None:
    """Write card.md and environment.json of a trained cascade."""
    plan = job.plan
    answer = ", ".join(f"{name} from stage {place.partition('.')[0]}" for name, place in plan.answer.items())
    lines = [
        *(f"# {plan.name}", "", plan.about, ""),
        f"- Answer: {answer}",
        *(line for name in plan.stages for line in _stage(job, name)),
        *("", "## On cases held back, through all stages", ""),
        "Every case by the models of a fold that has not seen it, in boxes that they predicted themselves.",
        *("", table(scores), ""),
        "A research model: not a medical device, not for diagnosis. It has seen only the data it was trained on;",
        "test it on scans of your own site, scanner and protocol before you rely on it.",
        "",
    ]
    write_text(job.folder / "card.md", "\n".join(lines))
    write_text(job.folder / "environment.json", json.dumps(environment(), indent=1))


def _stage(job: Training, name: str) -> Iterator[str]:
    """What a stage is, where it learned, how it did there."""
    stage, folder = job.plan.stages[name], job.place(name)
    how = stage.recipe
    runs = sorted(file.parent.name for file in folder.glob("fold*/recipe.yaml"))
    millions = price(how).parameters / 1e6
    looks = "the whole scan" if stage.box is None else f"a box around {stage.box.around}"
    inside = f", inside {stage.inside} only" if stage.inside else ""
    yield (
        f"- Stage {name}: {how.name}, {how.net.name} in {how.net.dims}D, {millions:.2f} M parameters,"
        f" {len(runs)} fold(s); looks at {looks}{inside}"
    )
    found = from_json((folder / "scores.json").read_text(encoding="utf-8"))
    dice = ", ".join(f"{structure} {found.mean('dice', structure):.4f}" for structure in found.structures)
    yield f"- Stage {name} alone, on held-back cases: Dice {dice}"
    cuts = cuts_of(job.folder, name)
    if cuts:
        origins = Counter(cut.origin for cut in cuts.values())
        yield f"- Boxes in which stage {name} learned: " + "; ".join(f"{n} {text}" for text, n in origins.items())
        for structure in (structure.name for structure in how.labels):
            shares = [cut.recall[structure] for cut in cuts.values() if structure in cut.recall]
            if shares:
                whole = sum(share == 1 for share in shares)
                yield (
                    f"- Of {structure} inside the boxes of stage {name}: {sum(shares) / len(shares):.2%} on average,"
                    f" least {min(shares):.2%}; all of it in {whole} of {len(shares)} cases"
                )
