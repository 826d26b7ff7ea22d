"""What several runs amount to: their scores as one, and a card that sets them side by side."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from attentus.io.atomic import write_text
from attentus.metrics import PRESETS, summarise, to_csv, to_json
from attentus.metrics.summary import from_json
from attentus.types import Scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from attentus.metrics import Summary
    from attentus.recipes import Recipe
    from attentus.train.farm.worker import Job

SHOWN = ("dice", "hd95_mm", "assd_mm")
"""Metrics on the card."""


def conclude(
    out: Path, recipe: Recipe, jobs: Sequence[Job], runs: Mapping[str, Path], failed: Mapping[str, str]
) -> Scores:
    """Write scores.json, scores.csv and card.md over the runs that are finished."""
    texts = {name: (folder / "scores.json").read_text(encoding="utf-8") for name, folder in runs.items()}
    each = {name: from_json(text) for name, text in texts.items()}
    scores = join(each)
    timing = join_timing({name: json.loads(text).get("timing", {}) for name, text in texts.items()}, each)
    write_text(out / "scores.json", to_json(scores, model=recipe.name, runs=list(runs), timing=timing))
    write_text(out / "scores.csv", to_csv(scores))
    seeds: dict[int, dict[str, Scores]] = {}
    for job in jobs:
        if job.name in each:
            seeds.setdefault(job.recipe.seed, {})[job.name] = each[job.name]
    rows = [line for name, found in each.items() for line in _rows(name, found)]
    if len(seeds) > 1:
        by_seed = {seed: join(found) for seed, found in seeds.items()}
        rows += [line for seed, found in by_seed.items() for line in _rows(f"seed {seed}", found)]
        rows += _between(list(by_seed.values()))
    rows += _rows("all", scores)
    lines = [
        *(f"# {recipe.name}: {len(runs)} of {len(jobs)} runs", "", recipe.about, ""),
        "Every case is scored by models that have not seen it. Mean ± SD over cases, finite values only; the row",
        "`between seeds` gives mean ± SD of the seeds' means.",
        "",
        *("| run | structure | " + " | ".join(SHOWN) + " |", "|---|---|" + "---|" * len(SHOWN), *rows, ""),
        *(f"- {name} failed: {' '.join(message.split())}" for name, message in failed.items()),
        *([""] if failed else []),
        "Research models: no medical device, not for diagnosis.",
        "",
    ]
    write_text(out / "card.md", "\n".join(lines))
    return scores


def join(scores: Mapping[str, Scores]) -> Scores:
    """Scores of several runs as one. A case that several runs scored appears once for each, as "case (run)"."""
    known_as = _case_names(scores)
    rules = next((found.rules for found in scores.values()), PRESETS["default"].describe())
    rows = tuple(row._replace(case=known_as[name, row.case]) for name, found in scores.items() for row in found)
    failures = {known_as[name, case]: text for name, found in scores.items() for case, text in found.failures.items()}
    return Scores(rows, rules, failures)


def _case_names(scores: Mapping[str, Scores]) -> dict[tuple[str, str], str]:
    """What the case of a run is called beside those of the others."""
    cases = {run: {*found.cases, *found.failures} for run, found in scores.items()}
    owners = Counter(case for of_run in cases.values() for case in of_run)
    return {
        (run, case): f"{case} ({run})" if owners[case] > 1 else case for run, of_run in cases.items() for case in of_run
    }


def join_timing(timings: Mapping[str, Mapping[str, Any]], scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Times of several runs as one; runs of earlier versions have none."""
    known_as = _case_names(scores)
    machines = dict.fromkeys(name for timing in timings.values() for name in timing.get("hardware", ()))
    seconds = {
        known_as[run, case]: took
        for run, timing in timings.items()
        for case, took in timing.get("seconds", {}).items()
        if (run, case) in known_as
    }
    return {"hardware": list(machines), "seconds": seconds}


def _rows(label: str, scores: Scores) -> list[str]:
    """Lines of the card's table, one per structure."""
    found = {(s.structure, s.metric): s for s in summarise(scores)}
    return [
        f"| {label} | {structure} | " + " | ".join(_cell(found.get((structure, metric))) for metric in SHOWN) + " |"
        for structure in scores.structures
    ]


def _cell(summary: Summary | None) -> str:
    if summary is None:
        return ""
    text = f"{summary.mean:.4f} ± {summary.sd:.4f}" if summary.n > 1 else f"{summary.mean:.4f}"
    everyone = summary.n + summary.n_nan + summary.n_inf
    return text + (f" ({summary.n} of {everyone})" if summary.n < everyone else f" ({everyone})")


def _between(by_seed: Sequence[Scores]) -> list[str]:
    """How far the means of seeds lie apart."""
    from statistics import mean, stdev

    lines = []
    for structure in by_seed[0].structures:
        means = [[scores.mean(metric, structure) for scores in by_seed] for metric in SHOWN]
        cells = [f"{mean(values):.4f} ± {stdev(values):.4f} ({len(values)})" for values in means]
        lines.append(f"| between seeds | {structure} | " + " | ".join(cells) + " |")
    return lines
