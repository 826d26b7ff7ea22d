"""Statistics over cases: bootstrap intervals, paired tests, Holm's correction, effect sizes, rankings.

Methods are compared on the same cases, so every test is paired and two-sided. Values that are not finite are left out,
of both methods at once, and counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from attentus.errors import BadInput, UnknownName

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

EXACT_UP_TO = 25
"""Differences up to which Wilcoxon's test counts every assignment of signs."""
DIGITS = 12
"""Decimal digits, counted from the largest value, to which differences are told apart: what lies below is rounding."""
RESAMPLES = 2000
STEP = 1_000_000
"""Numbers that one step of a bootstrap holds in memory."""


class Interval(NamedTuple):
    """A confidence interval of a mean."""

    low: float
    high: float
    n: int
    """Finite values it is made from."""
    left_out: int
    """Values that were not finite."""


@dataclass(frozen=True)
class PairedTest:
    """A two-sided test of two methods on the same cases."""

    method: str
    """Key of `TESTS`."""
    n: int
    """Pairs with two finite values."""
    left_out: int
    """Pairs without."""
    statistic: float
    """t, or the smaller of Wilcoxon's two rank sums."""
    p: float
    """nan where the test is undefined: no pairs; for t also a single pair, or differences all alike but not zero."""


@dataclass(frozen=True)
class Effect:
    """How large a paired difference is, first minus second."""

    difference: float
    """Mean difference, in the metric's unit."""
    low: float
    """95 % bootstrap interval of it."""
    high: float
    cohens_dz: float
    """Mean difference over the standard deviation of the differences (n - 1); nan where that is zero."""
    rank_biserial: float
    """(W+ - W-) / (W+ + W-), -1..1: how far the ranks of the differences fall on one side; 0 if none differs."""


@dataclass(frozen=True)
class Ranking:
    """Methods in order over cases, and how firm the order is. All tuples follow the columns of the values."""

    n: int
    """Cases ranked."""
    score: tuple[float, ...]
    """What the order is made from: mean ranks, or means."""
    rank: tuple[int, ...]
    """1 is best; methods alike share the better rank."""
    first: tuple[float, ...]
    """Share of the bootstrap samples in which a method has rank 1, 0..1."""
    tau: float
    """Mean Kendall tau-b between the order in a bootstrap sample and the order of all cases, -1..1; nan if all tie."""


def bootstrap_interval(
    values: ArrayLike,
    *,
    level: float = 0.95,
    method: Literal["bca", "percentile"] = "bca",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Bootstrap confidence interval of the mean.

    The same values give the same interval, whatever was drawn before. With fewer than about ten values any bootstrap
    is too narrow.

    Args:
        values: one per case; those not finite are left out and counted.
        level: coverage, 0..1.
        method: "bca" corrects bias and skewness (Efron 1987, https://doi.org/10.1080/01621459.1987.10478410),
            "percentile" does not.
        resamples: bootstrap samples.
        seed: of their draw.

    Returns:
        The interval; nan for fewer than two values, of no width where all are equal.
    """
    everything = np.asarray(values, float).ravel()
    finite = everything[np.isfinite(everything)]
    counts = (len(finite), len(everything) - len(finite))
    if len(finite) < 2:
        return Interval(math.nan, math.nan, *counts)
    if finite.min() == finite.max():
        return Interval(float(finite[0]), float(finite[0]), *counts)
    means = _resampled_means(finite[:, None], resamples, seed)[:, 0]
    tails = [(1 - level) / 2, (1 + level) / 2]
    tails = _corrected(tails, finite, means) if method == "bca" else tails
    low, high = np.quantile(means, tails).clip(finite.min(), finite.max())  # sums may be off by a last bit
    return Interval(float(low), float(high), *counts)


def t_test(first: ArrayLike, second: ArrayLike) -> PairedTest:
    """Paired t-test, t = mean(d) / (sd(d) / √n) with n - 1 degrees of freedom.

    Args:
        first: values of one method, one per case.
        second: of the other, for the same cases in the same order.

    Raises:
        BadInput: not as many values in both.
    """
    from scipy.special import stdtr

    d, left_out = _differences(first, second)
    if not len(d) or d.min() == d.max():
        none = bool(len(d)) and not d.any()
        return PairedTest("t", len(d), left_out, 0.0 if none else math.nan, 1.0 if none else math.nan)
    t = float(d.mean() / (d.std(ddof=1) / math.sqrt(len(d))))
    return PairedTest("t", len(d), left_out, t, float(2 * stdtr(len(d) - 1, -abs(t))))


def wilcoxon(first: ArrayLike, second: ArrayLike) -> PairedTest:
    """Wilcoxon's signed-rank test. Zero differences are dropped, ties share the mean of their ranks.

    Up to 25 differences p is exact, ties included: all assignments of signs to the ranks at hand are counted. Above,
    the normal approximation with the variance corrected for ties is used. All differences zero: p = 1.

    Args:
        first: values of one method, one per case.
        second: of the other, for the same cases in the same order.

    Raises:
        BadInput: not as many values in both.
    """
    d, left_out = _differences(first, second)
    if not len(d):
        return PairedTest("wilcoxon", 0, left_out, math.nan, math.nan)
    ranks, up = _signed_ranks(d)
    least = min(up, int(ranks.sum()) - up)
    exact = len(ranks) <= EXACT_UP_TO
    p = min(1.0, 2 * (_chance_at_most(least, ranks) if exact else _normal_chance_at_most(least, ranks)))
    return PairedTest("wilcoxon", len(d), left_out, least / 2, p)


TESTS: dict[str, Callable[[ArrayLike, ArrayLike], PairedTest]] = {"wilcoxon": wilcoxon, "t": t_test}
"""Paired tests by name."""


def paired_test(first: ArrayLike, second: ArrayLike, method: str = "wilcoxon") -> PairedTest:
    """A paired test by name; see `TESTS`.

    Raises:
        UnknownName: no such test.
        BadInput: not as many values in both.
    """
    if method not in TESTS:
        raise UnknownName("paired test", method, TESTS)
    return TESTS[method](first, second)


def effect(first: ArrayLike, second: ArrayLike) -> Effect:
    """How large the difference of two methods on the same cases is, first minus second.

    Raises:
        BadInput: not as many values in both.
    """
    d, _ = _differences(first, second)
    if not len(d):
        return Effect(*[math.nan] * 5)
    ranks, up = _signed_ranks(d)
    whole = int(ranks.sum())
    interval = bootstrap_interval(d)
    # Differences that are all alike, or that vanish when squared, have no spread to measure them by.
    spread = (float(d.std(ddof=1)) if d.min() < d.max() else 0.0) or math.nan
    biserial = (2 * up - whole) / whole if whole else 0.0
    return Effect(float(d.mean()), interval.low, interval.high, float(d.mean()) / spread, biserial)


def holm(p: Sequence[float]) -> list[float]:
    """Correct p values for their number by Holm's step-down method (Holm 1979); returned in the order given.

    Controls the chance of any false finding, whatever the dependence between the tests. nan stays nan and does not
    count.
    """
    counted = sorted((value, place) for place, value in enumerate(p) if not math.isnan(value))
    corrected, largest = [math.nan] * len(p), 0.0
    for smaller, (value, place) in enumerate(counted):
        largest = max(largest, min(1.0, (len(counted) - smaller) * value))
        corrected[place] = largest
    return corrected


def stars(p: float) -> str:
    """* below 0.05, ** below 0.01, *** below 0.001."""
    return "*" * sum(p < limit for limit in (0.05, 0.01, 0.001))


def rank_methods(
    values: ArrayLike,
    better: str,
    *,
    by: Literal["ranks", "means"] = "ranks",
    resamples: int = 1000,
    seed: int = 0,
) -> Ranking:
    """Order methods over cases, and again over bootstrap samples of the cases.

    After Wiesenfarth et al. 2021, "Methods and open-source toolkit for analyzing and visualizing challenge results"
    (challengeR), https://doi.org/10.1038/s41598-021-82017-6.

    Args:
        values: (cases, methods). An infinite distance is the worst of its case; a case with a nan is left out.
        better: "higher" or "lower".
        by: "ranks" orders the methods of every case (ties share the mean rank) and averages the ranks; "means"
            averages the values and orders the means.
        resamples: bootstrap samples.
        seed: of their draw.

    Raises:
        BadInput: `better` is neither, or no table.
    """
    table = np.asarray(values, float)
    if better not in ("higher", "lower") or table.ndim != 2:
        raise BadInput(f"A ranking takes a table (cases, methods) and 'higher' or 'lower'; got '{better}'.")
    table = table[~np.isnan(table).any(axis=1)]
    methods = table.shape[1]
    if not len(table) or not methods:
        return Ranking(0, (math.nan,) * methods, (1,) * methods, (math.nan,) * methods, math.nan)
    costs = -table if better == "higher" else table
    if by == "ranks":
        costs = np.array([_doubled_ranks(row) / 2 for row in costs])
    overall = costs.mean(axis=0)
    drawn = _resampled_means(costs, resamples, seed)
    # The rounding of sums must not part methods that are alike.
    overall, drawn = np.round(overall, DIGITS), np.round(drawn, DIGITS)
    first = (drawn == drawn.min(axis=1, keepdims=True)).mean(axis=0)
    order = 1 + (overall[None, :] < overall[:, None]).sum(axis=1)
    scores = overall if by == "ranks" else table.mean(axis=0)
    return Ranking(
        len(table),
        tuple(float(score) for score in scores),
        tuple(int(place) for place in order),
        tuple(float(share) for share in first),
        _mean_tau(overall, drawn),
    )


def _resampled_means(values: Array, resamples: int, seed: int) -> Array:
    """Column means of (n, k) values over bootstrap samples of the rows, (resamples, k)."""
    rng, n = np.random.default_rng(seed), len(values)
    step = max(1, STEP // n)
    drawn = []
    for start in range(0, resamples, step):
        rows = rng.integers(0, n, (min(step, resamples - start), n), dtype=np.int32)
        drawn.append(np.stack([column.take(rows).mean(axis=1) for column in values.T], axis=1))
    return np.concatenate(drawn)


def _corrected(tails: list[float], values: Array, means: Array) -> list[float]:
    """Quantiles that the BCa interval takes instead of the nominal ones."""
    normal, mean = NormalDist(), values.mean()
    below = float((np.count_nonzero(means < mean) + np.count_nonzero(means <= mean)) / (2 * len(means)))
    bias = normal.inv_cdf(min(max(below, 0.5 / len(means)), 1 - 0.5 / len(means)))
    away = values - mean  # what leaving one case out does to the mean, but for a factor that cancels
    away /= np.abs(away).max()
    acceleration = float((away**3).sum() / (6 * (away**2).sum() ** 1.5))
    shifted = [bias + normal.inv_cdf(tail) for tail in tails]
    return [normal.cdf(bias + z / (1 - acceleration * z)) for z in shifted]


def _differences(first: ArrayLike, second: ArrayLike) -> tuple[Array, int]:
    """First minus second where both are finite, and the number of pairs where they are not.

    Rounded to `DIGITS` digits of the largest value, so that 0.9 - 0.8 and 0.3 - 0.2 tie as they should.
    """
    one, other = np.asarray(first, float).ravel(), np.asarray(second, float).ravel()
    if len(one) != len(other):
        raise BadInput(f"Paired values come from the same cases; got {len(one)} and {len(other)}.")
    both = np.isfinite(one) & np.isfinite(other)
    one, other = one[both], other[both]
    largest = max(np.abs(one).max(), np.abs(other).max()) if both.any() else 0.0
    digits = min(DIGITS - math.ceil(math.log10(largest)), 300) if largest else 0
    return np.round(one - other, digits), int(len(both) - both.sum())


def _signed_ranks(d: Array) -> tuple[NDArray[np.int64], int]:
    """Doubled ranks of the sizes of the differences that are not zero, and the sum of those of positive ones."""
    d = d[d != 0]
    ranks = _doubled_ranks(np.abs(d))
    return ranks, int(ranks[d > 0].sum())


def _doubled_ranks(values: NDArray[Any]) -> NDArray[np.int64]:
    """Twice the rank of each value, 1 the smallest; ties share the mean, so that doubled ranks are whole numbers."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    doubled: NDArray[np.int64] = (2 * np.cumsum(counts) - counts + 1)[which]
    return doubled


def _chance_at_most(least: int, doubled: NDArray[np.int64]) -> float:
    """Chance that the positive ones among randomly signed ranks sum up to at most this; everything doubled."""
    ways = np.zeros(int(doubled.sum()) + 1)
    ways[0] = 1
    for rank in doubled:
        ways[rank:] += ways[:-rank].copy()
    return float(ways[: least + 1].sum() / 2.0 ** len(doubled))


def _normal_chance_at_most(least: int, doubled: NDArray[np.int64]) -> float:
    """The same by the normal distribution of that mean and variance (which the squared ranks hold, ties and all)."""
    mean, variance = doubled.sum() / 2, np.square(doubled.astype(float)).sum() / 4
    return 0.5 * math.erfc((mean - least) / math.sqrt(2 * variance))


def _mean_tau(overall: Array, drawn: Array) -> float:
    """Mean of Kendall's tau-b between one order of methods (k) and each of others (m, k)."""
    i, j = np.triu_indices(len(overall), 1)
    one, others = _signs(overall[None], i, j)[0], _signs(drawn, i, j)
    size = np.sqrt((others**2).sum(axis=1) * (one**2).sum())
    known = size > 0
    return float((others[known] @ one / size[known]).mean()) if known.any() else math.nan


def _signs(values: Array, i: NDArray[np.int64], j: NDArray[np.int64]) -> Array:
    """Which of each pair is larger: 1, -1 or 0; two infinities are alike."""
    return (values[:, i] > values[:, j]).astype(float) - (values[:, i] < values[:, j])
