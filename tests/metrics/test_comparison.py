"""Methods side by side: which cases count, what is tested against what, what is best."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from attentus.errors import BadInput, UnknownName
from attentus.metrics import Rules, summarise
from attentus.metrics.comparison import compare
from attentus.metrics.statistics import holm, wilcoxon
from attentus.types import Score, Scores


def scored(values, metric="dice", structure="liver", unit="", first=0, **others):
    """Scores of one metric of one structure, case by case."""
    rows = [Score(f"c{k}", structure, metric, value, unit) for k, value in enumerate(values, first)]
    return Scores(tuple(rows), Rules().describe(), **others)


def joined(*parts):
    return replace(parts[0], rows=tuple(row for part in parts for row in part))


RNG = np.random.default_rng(0)
GOOD = RNG.uniform(0.8, 0.9, 12)
WORSE = GOOD - RNG.uniform(0.01, 0.05, 12)


def test_numbers_are_those_of_the_summary_and_of_the_tests():
    methods = {"ours": scored(GOOD), "theirs": scored(WORSE)}
    (column,) = compare(methods).columns
    assert (column.structure, column.metric, column.better, column.n) == ("liver", "dice", "higher", 12)
    for entry, scores in zip(column.entries, methods.values(), strict=True):
        (summary,) = summarise(scores)
        for name in ("mean", "sd", "low", "high", "median"):
            assert getattr(entry, name) == pytest.approx(getattr(summary, name))
    ours, theirs = column.entries
    assert (ours.best, theirs.best) == (True, False)
    assert ours.versus is None
    assert theirs.versus.test == wilcoxon(WORSE, GOOD)
    assert theirs.versus.test.p == 2 / 2**12
    assert theirs.versus.stars == "***"
    assert theirs.versus.effect.difference == pytest.approx((WORSE - GOOD).mean())
    assert column.ranking.rank == (1, 2)


def test_holm_counts_every_test_of_the_table():
    noise = RNG.normal(0, 0.02, (2, 12))
    methods = {
        name: joined(scored(values), scored(values, "precision"), scored(10 * values, "assd_mm", unit="mm"))
        for name, values in (("a", GOOD), ("b", WORSE), ("c", GOOD + noise[0]), ("d", WORSE + noise[1]))
    }
    found = compare(methods)
    each = [versus for _, _, versus in found.each_versus()]
    assert len(each) == found.tests == 9
    assert [versus.p_holm for versus in each] == holm([versus.test.p for versus in each])
    assert "corrected after Holm over 9 tests" in " ".join(found.notes())


def test_less_is_better_for_distances_and_nothing_for_volumes():
    methods = {
        "a": joined(scored([1.0, 2.0, 3.0], "assd_mm", unit="mm"), scored([5.0, 6.0, 7.0], "volume_ml", unit="ml")),
        "b": joined(scored([2.0, 3.0, 4.0], "assd_mm", unit="mm"), scored([6.0, 7.0, 8.0], "volume_ml", unit="ml")),
    }
    distance, volume = compare(methods, metrics=["assd_mm", "volume_ml"]).columns
    assert [entry.best for entry in distance.entries] == [True, False]
    assert [entry.best for entry in volume.entries] == [False, False]
    assert volume.ranking is None
    assert volume.entries[1].versus is not None


def test_equals_share_the_best_and_all_alike_have_none():
    methods = {"a": scored([0.5, 0.7]), "b": scored([0.7, 0.5]), "c": scored([0.1, 0.1])}
    (column,) = compare(methods).columns
    assert [entry.best for entry in column.entries] == [True, True, False]
    (column,) = compare({"a": scored([0.5, 0.7]), "b": scored([0.5, 0.7])}).columns
    assert not any(entry.best for entry in column.entries)
    assert column.entries[1].versus.test.p == 1


def test_only_common_cases_count_and_the_others_are_told():
    methods = {"a": scored(GOOD), "b": scored(WORSE[2:], first=2), "c": scored(GOOD[:11], failures={"c11": "broken"})}
    found = compare(methods)
    assert found.cases == tuple(f"c{k}" for k in range(2, 11))
    assert found.left_out == {"c0": ("b",), "c1": ("b",), "c11": ("c",)}
    assert found.columns[0].entries[0].mean == pytest.approx(GOOD[2:11].mean())
    notes = " ".join(found.notes())
    assert "over the 9 case(s)" in notes
    assert "because b did not score them: c0, c1." in notes
    assert "because c did not score them: c11." in notes


def test_infinite_distances_count_in_ranks_not_in_means():
    methods = {
        "a": scored([1.0, 2.0, 3.0, 4.0], "hd95_mm", unit="mm"),
        "b": scored([0.9, math.inf, math.inf, 3.9], "hd95_mm", unit="mm"),
        "c": scored([5.0, 5.0, 5.0, math.nan], "hd95_mm", unit="mm"),
    }
    found = compare(methods, metrics=["hd95_mm"])
    (column,) = found.columns
    assert column.n == 1
    assert [entry.mean for entry in column.entries] == [1.0, 0.9, 5.0]
    assert [(entry.n_inf, entry.n_nan) for entry in column.entries] == [(0, 0), (2, 0), (0, 1)]
    assert [entry.versus.test.n for entry in column.entries[1:]] == [2, 3]  # pairs of each with the reference
    assert column.ranking.rank[0] == 1
    assert "liver, hd95_mm: over 1 of 4 cases (b 2 infinite, c 1 undefined)." in found.notes()


def test_a_column_without_a_common_number_is_empty_not_wrong():
    methods = {"a": scored([math.inf, 1.0], "assd_mm", unit="mm"), "b": scored([1.0, math.inf], "assd_mm", unit="mm")}
    (column,) = compare(methods).columns
    assert column.n == 0
    assert all(math.isnan(entry.mean) and not entry.best for entry in column.entries)
    assert math.isnan(column.entries[1].versus.p_holm)


def test_the_reference_can_be_chosen():
    methods = {"a": scored(GOOD), "b": scored(WORSE)}
    found = compare(methods, reference="b", test="t")
    (column,) = found.columns
    assert column.entries[1].versus is None
    assert column.entries[0].versus.effect.difference > 0
    assert "different from b by the paired t-test" in " ".join(found.notes())


def test_too_few_cases_for_a_star_are_told():
    few = {"a": scored([0.9, 0.8, 0.9]), "b": scored([0.5, 0.4, 0.3])}
    assert "With 3 case(s) no corrected p can be below 0.25: no star is possible." in compare(few).notes()
    assert "no star" not in " ".join(compare(few, test="t").notes())
    assert "no star" not in " ".join(compare({"a": scored(GOOD), "b": scored(WORSE)}).notes())


def test_structures_are_matched_by_name():
    one = joined(scored(GOOD), scored(GOOD, structure="spleen"))
    found = compare({"a": one, "b": scored(WORSE)})
    assert found.structures == ["liver"]
    assert "Not every method has these structures: spleen." in found.notes()
    with pytest.raises(BadInput, match="no structure in common"):
        compare({"a": scored(GOOD), "b": scored(WORSE, structure="Liver")})
    with pytest.raises(UnknownName, match="No structure that all methods have is called 'spleen'"):
        compare({"a": one, "b": scored(WORSE)}, structures=["spleen"])


def test_what_cannot_be_compared_is_refused():
    good, other = scored(GOOD), scored(WORSE)
    with pytest.raises(BadInput, match="two methods at least"):
        compare({"a": good})
    with pytest.raises(BadInput, match="no case that all methods scored"):
        compare({"a": good, "b": scored(WORSE, first=50)})
    with pytest.raises(BadInput, match=r"different rules(?s:.*)empty: default / nnunet"):
        compare({"a": good, "b": replace(other, rules=Rules(empty="nnunet").describe())})
    with pytest.raises(UnknownName, match="No method is called 'c'"):
        compare({"a": good, "b": other}, reference="c")
    with pytest.raises(UnknownName, match="No paired test is called 'z'"):
        compare({"a": good, "b": other}, test="z")
    with pytest.raises(UnknownName, match="metric that all methods have"):
        compare({"a": good, "b": other}, metrics=["hd95_mm"])
    with pytest.raises(BadInput, match="Name one metric at least"):
        compare({"a": good, "b": other}, metrics=[])
