"""Statistics over cases, against values worked out by hand and against SciPy where it does the same."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from attentus.errors import BadInput, UnknownName
from attentus.metrics.statistics import (
    bootstrap_interval,
    effect,
    holm,
    paired_test,
    rank_methods,
    stars,
    t_test,
    wilcoxon,
)

GOLDEN = (0.02, -0.01, 0.05, 0.10, 0.04, 0.03)
ZEROS = (0.0,) * 6

fractions = st.integers(0, 1000).map(lambda k: k / 1000)
pairs = st.lists(st.tuples(fractions, fractions), min_size=2, max_size=30).map(lambda rows: np.array(rows).T)


def by_counting(d):
    """W and p of Wilcoxon's test by trying every assignment of signs."""
    d = np.array([x for x in d if x])
    ranks = scipy.stats.rankdata(np.abs(np.round(d, 9)))
    sums = np.array(list(product((0, 1), repeat=len(d)))) @ ranks
    least = min(ranks[d > 0].sum(), ranks[d < 0].sum())
    return least, min(1.0, 2 * (sums <= least + 1e-9).mean())


def test_the_golden_example():
    t = t_test(GOLDEN, ZEROS)
    assert (t.n, t.left_out) == (6, 0)
    assert t.statistic == pytest.approx(2.5682698408, abs=1e-10)
    assert t.p == pytest.approx(0.0501404973, abs=1e-10)
    w = wilcoxon(GOLDEN, ZEROS)
    assert (w.n, w.statistic, w.p) == (6, 1, 0.0625)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=10))
def test_wilcoxon_is_exact_with_ties_and_zeros(whole):
    found = wilcoxon(np.array(whole) / 10, np.zeros(len(whole)))
    if any(whole):
        assert (found.statistic, found.p) == pytest.approx(by_counting(whole))
    else:
        assert found.p == 1


@pytest.mark.parametrize("n", [3, 10, 25, 26, 80])
def test_wilcoxon_agrees_with_scipy_where_nothing_ties(n):
    rng = np.random.default_rng(n)
    one, other = rng.random((2, n))
    theirs = scipy.stats.wilcoxon(one, other, method="exact" if n <= 25 else "approx")
    ours = wilcoxon(one, other)
    assert (ours.statistic, ours.p) == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-9)


def test_many_ties_follow_scipys_normal_approximation():
    d = np.round(np.random.default_rng(1).normal(0.3, 1, 60), 1)
    theirs = scipy.stats.wilcoxon(d, method="approx", zero_method="wilcox", correction=False)
    ours = wilcoxon(d, np.zeros(60))
    assert (ours.statistic, ours.p) == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-9)


@given(pairs)
def test_t_agrees_with_scipy(values):
    one, other = values
    if np.ptp(np.round(one - other, 9)) == 0:
        assert math.isnan(t_test(one, other).p) != (one == other).all()
        return
    theirs = scipy.stats.ttest_rel(one, other)
    ours = t_test(one, other)
    assert (ours.statistic, ours.p) == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("method", ["wilcoxon", "t"])
@given(values=pairs, shift=st.integers(-9, 9))
def test_swapping_and_shifting_keep_p(method, values, shift):
    one, other = values
    found = paired_test(one, other, method)
    swapped, shifted = paired_test(other, one, method), paired_test(one + shift, other + shift, method)
    assert swapped.p == pytest.approx(found.p, nan_ok=True)
    assert shifted.p == pytest.approx(found.p, rel=1e-6, nan_ok=True)
    sizes, back = effect(one, other), effect(other, one)
    assert back.difference == pytest.approx(-sizes.difference)
    assert back.rank_biserial == pytest.approx(-sizes.rank_biserial)
    assert back.cohens_dz == pytest.approx(-sizes.cohens_dz, nan_ok=True)
    assert -1 <= sizes.rank_biserial <= 1


def test_what_is_not_finite_is_left_out_in_pairs_and_counted():
    one = [*GOLDEN, math.nan, 0.5, math.inf]
    other = [*ZEROS, 0.2, math.inf, math.inf]
    for method in ("wilcoxon", "t"):
        found = paired_test(one, other, method)
        assert (found.n, found.left_out) == (6, 3)
        assert found.p == pytest.approx(paired_test(GOLDEN, ZEROS, method).p)
    assert effect(one, other) == effect(GOLDEN, ZEROS)


def test_tests_without_an_answer_say_so():
    same = [0.3, 0.5, 0.7]
    assert (wilcoxon(same, same).p, t_test(same, same).p) == (1, 1)
    assert (wilcoxon([], []).n, wilcoxon([math.inf], [1]).left_out) == (0, 1)
    assert math.isnan(wilcoxon([], []).p)
    assert math.isnan(t_test([], []).p)
    assert math.isnan(t_test([0.5], [0.4]).p)
    assert math.isnan(t_test([0.5, 0.6], [0.4, 0.5]).p)  # alike but not zero: no spread to compare with
    assert wilcoxon([0.5], [0.4]).p == 1
    assert math.isnan(effect([], []).difference)
    with pytest.raises(BadInput, match="same cases"):
        wilcoxon([1, 2], [1])
    with pytest.raises(UnknownName, match="No paired test is called 'u'"):
        paired_test([1], [1], "u")


def test_rounding_makes_no_difference_of_its_own():
    # 0.9 - 0.8 and 0.3 - 0.2 differ in the last bit, 0.3 and 0.1 + 0.2 too
    found = wilcoxon([0.9, 0.3, 0.3, 0.5], [0.8, 0.2, 0.1 + 0.2, 0.7])
    assert (found.statistic, found.p) == pytest.approx(by_counting([0.1, 0.1, -0.2]))


def test_effect_sizes_by_hand():
    found = effect([0.9, 0.8, 0.6], [0.8, 0.6, 0.7])  # 0.1, 0.2, -0.1: ranks 1.5, 3, -1.5
    assert found.difference == pytest.approx(0.2 / 3)
    assert found.cohens_dz == pytest.approx((0.2 / 3) / np.std([0.1, 0.2, -0.1], ddof=1))
    assert found.rank_biserial == pytest.approx((4.5 - 1.5) / 6)
    assert found.low <= found.difference <= found.high


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == []
    with_hole = holm([0.02, math.nan, 0.03])
    assert with_hole[::2] == pytest.approx([0.04, 0.04])
    assert math.isnan(with_hole[1])


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_monotone_and_never_below_the_raw_value(p):
    corrected = holm(p)
    assert all(raw <= new <= 1 for raw, new in zip(p, corrected, strict=True))
    order = np.argsort(p, kind="stable")
    assert list(np.array(corrected)[order]) == sorted(corrected)
    assert all(new <= min(1, len(p) * raw) for raw, new in zip(p, corrected, strict=True))


def test_stars():
    assert [stars(p) for p in (0.0009, 0.009, 0.049, 0.05, math.nan)] == ["***", "**", "*", "", ""]


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_intervals_agree_with_scipy(method):
    values = np.random.default_rng(3).beta(8, 2, 30)
    theirs = scipy.stats.bootstrap((values,), np.mean, n_resamples=20_000, method=method).confidence_interval
    ours = bootstrap_interval(values, method=method, resamples=20_000)
    width = theirs.high - theirs.low
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03 * width)


def test_an_interval_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = [low <= 0.8 <= high for low, high, *_ in (bootstrap_interval(rng.beta(8, 2, 40)) for _ in range(300))]
    assert 0.90 <= np.mean(covered) <= 0.98


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_an_interval_lies_within_the_values_and_is_repeatable(values):
    found = bootstrap_interval(values)
    assert found == bootstrap_interval(values) or len(values) == 1
    if len(values) > 1:
        assert min(values) <= found.low <= found.high <= max(values)


def test_odd_values_have_intervals_too():
    found = bootstrap_interval([0.5, math.nan, 0.5, math.inf])
    assert found == (0.5, 0.5, 2, 2)
    assert math.isnan(bootstrap_interval([0.5]).low)
    assert bootstrap_interval([math.nan])[2:] == (0, 1)
    skewed = bootstrap_interval([1.0] * 19 + [0.0])
    assert skewed.low < 0.95 - (skewed.high - 0.95)  # BCa leans towards the tail


def test_ranks_by_hand():
    values = [[0.9, 0.8, 0.7], [0.8, 0.9, 0.7], [0.9, 0.9, 0.1]]
    found = rank_methods(values, "higher")
    assert found.score == pytest.approx([4.5 / 3, 4.5 / 3, 3])
    assert (found.rank, found.n) == ((1, 1, 3), 3)
    assert found.first[2] == 0
    by_means = rank_methods(values, "higher", by="means")
    assert by_means.score == pytest.approx([2.6 / 3, 2.6 / 3, 0.5])
    assert by_means.rank == (1, 1, 3)
    assert rank_methods(values, "lower").rank == (2, 2, 1)


def test_a_clear_order_is_stable_and_a_tie_is_not():
    clear = rank_methods(np.arange(3) + np.linspace(0, 0.1, 20)[:, None], "lower")
    assert (clear.rank, clear.first, clear.tau) == ((1, 2, 3), (1, 0, 0), pytest.approx(1))
    noise = rank_methods(np.random.default_rng(0).random((20, 4)), "lower")
    assert noise.tau < 0.9
    alike = rank_methods(np.ones((5, 2)), "lower")
    assert (alike.rank, alike.first) == ((1, 1), (1, 1))
    assert math.isnan(alike.tau)


def test_an_infinite_distance_is_the_worst_and_a_nan_leaves_the_case_out():
    found = rank_methods([[1.0, math.inf], [2.0, 1.9], [3.0, math.inf], [math.nan, 0.0]], "lower")
    assert (found.n, found.rank) == (3, (1, 2))
    assert found.score == pytest.approx([4 / 3, 5 / 3])
    assert rank_methods([[1.0, math.inf], [2.0, 1.9]], "lower", by="means").rank == (1, 2)
    none = rank_methods([[math.nan, 1.0]], "lower")
    assert none.n == 0
    with pytest.raises(BadInput, match="'higher' or 'lower'"):
        rank_methods([[1.0, 2.0]], "")


def test_kendalls_tau_is_scipys():
    values = np.random.default_rng(5).random((12, 5))
    found = rank_methods(values, "lower", resamples=40, seed=2)
    ranks = scipy.stats.rankdata(values, axis=1)
    rng = np.random.default_rng(2)
    rows = rng.integers(0, 12, (40, 12), dtype=np.int32)
    taus = [scipy.stats.kendalltau(ranks.mean(axis=0), ranks[row].mean(axis=0)).statistic for row in rows]
    assert found.tau == pytest.approx(np.mean(taus))
