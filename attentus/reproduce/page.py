"""The page of a reproduction: tables with ours beside the published, figures, what differs, what was run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from attentus.report.page import render
from attentus.report.tables import rules_in_words
from attentus.reproduce.figures import Panel, charts_of, cost_chart, draw_figures
from attentus.reproduce.files import in_words, notes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attentus.report.charts import Chart
    from attentus.reproduce.plan import Plan
    from attentus.reproduce.results import TableResult
    from attentus.reproduce.work import Done

WARNING = (
    "A published number was measured on the paper's data, with its training. Ours was not, see what differs: that they"
    " are near or far proves little; that methods come in the same order says more."
)


class Extras(NamedTuple):
    """Charts of a table."""

    charts: list[Chart]
    cost: Panel | None


def to_html(
    plan: Plan,
    tables: Sequence[TableResult],
    done: Mapping[str, Done],
    lost: tuple[Mapping[str, str], Mapping[str, str]],
    differs: Sequence[str],
) -> str:
    """The page.

    Args:
        plan: that was carried out.
        tables: filled.
        done: runs that are done.
        lost: run to why it is not, and "run, case" to why that case is not scored.
        differs: what differs from the paper.
    """
    failed, cases = lost
    return render(
        "reproduction.html.j2",
        plan=plan,
        verdict=verdict(tables, len(done), len(failed)),
        warning=WARNING,
        tables=[(table, Extras(charts_of(table, done), cost_chart(table, plan))) for table in tables],
        figures=draw_figures(plan, done),
        differs=differs,
        runs=[_run(step.facts(), done, failed) for step in plan.steps],
        rules=_rules(plan, done),
        failures={**failed, **cases},
        words=in_words,
        notes=notes,
    )


def verdict(tables: Sequence[TableResult], done: int, lost: int) -> str:
    """What there is, in a sentence: rows, runs that are done, runs that are not."""
    rows = sum(len(table.lines) for table in tables)
    measured = sum(table.measured for table in tables)
    names = ", ".join(table.number for table in tables)
    many = "s" if len(tables) > 1 else ""
    left = f"; {lost} run{'' if lost == 1 else 's'} not done" if lost else ""
    return (
        f"Table{many} {names}: {measured} of {rows} rows have numbers of ours, from {done}"
        f" run{'' if done == 1 else 's'}{left}."
    )


def _run(facts: dict[str, Any], done: Mapping[str, Done], failed: Mapping[str, str]) -> dict[str, Any]:
    key = facts["run"]
    state = "done" if key in done else "failed" if key in failed and not facts["why_not"] else "not possible here"
    steps = ", ".join(f"{count:,}" for count in done[key].steps) if key in done else ""
    return {**facts, "state": state, "steps": steps}


def _rules(plan: Plan, done: Mapping[str, Done]) -> dict[str, list[str]]:
    """Source to the rules by which its scores were made, in sentences."""
    first = {plan.step(key).run.data: run for key, run in reversed(list(done.items()))}
    return {plan.materials[source].source.title: rules_in_words(run.scores.rules) for source, run in first.items()}
