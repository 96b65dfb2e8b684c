"""Estimates with 95 % intervals from few, clustered observations. It knows numbers only, not what they measure.

Observations of one cluster (a scene, a conversation) are not independent, so clusters are resampled, never rows.
"""

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from scipy import stats

from roleplay.results.intervals import Z_95, Estimate, wilson

RESAMPLES = 10_000
SEED = 0


def bootstrap(numerators: Sequence[float], denominators: Sequence[float], clusters: Sequence[Hashable]) -> Estimate:
    """The ratio of two sums (a mean where every denominator is 1), resampled by cluster.

    For a paired difference hand over the differences as numerators. The percentiles are moved outwards as a t interval
    would be, for with few clusters plain percentiles are too narrow: the expanded percentile interval of Hesterberg,
    "What Teachers Should Know About the Bootstrap", 2015.
    """
    index = _numbered(clusters)
    top, bottom = np.bincount(index, numerators), np.bincount(index, denominators)
    value, count = float(top.sum() / bottom.sum()), len(top)
    assert count > 1, "one cluster tells nothing about the spread"
    draws = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    tail = stats.norm.cdf(math.sqrt(count / (count - 1)) * stats.t.ppf(0.025, count - 1))
    low, high = np.quantile((draws @ top) / (draws @ bottom), (tail, 1 - tail))
    return Estimate(value, float(low), float(high))


def share(hits: Sequence[bool], clusters: Sequence[Hashable]) -> Estimate:
    """A proportion with Wilson's interval at the effective sample size, which also holds near 0 and 1.

    The design effect comes from the intracluster correlation (one-way ANOVA); where it cannot be estimated, because all
    hits are alike, a cluster counts as one observation. Source: Franco, Little, Louis, Slud, "Comparative Study of
    Confidence Intervals for Proportions in Complex Sample Surveys", 2019.
    """
    values, index = np.asarray(hits, float), _numbered(clusters)
    sizes = np.bincount(index)
    count, groups = len(values), len(sizes)
    mean = float(values.mean())
    correlation = 1.0
    if 1 < groups < count and 0 < mean < 1:
        means = np.bincount(index, values) / sizes
        between = (sizes * (means - mean) ** 2).sum() / (groups - 1)
        within = ((values - means[index]) ** 2).sum() / (count - groups)
        typical = (count - (sizes**2).sum() / count) / (groups - 1)
        correlation = min(1.0, max(0.0, (between - within) / (between + (typical - 1) * within)))
    effective = count / (1 + ((sizes**2).sum() / count - 1) * correlation)
    return Estimate(mean, *wilson(mean * effective, effective))


def share_difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b of two proportions from their Wilson intervals; on paired items it errs on the wide side.

    Source: Newcombe, "Interval Estimation for the Difference Between Independent Proportions", 1998, method 10.
    """
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(value, low, high)


def paired_share_difference(a: Sequence[bool], b: Sequence[bool]) -> Estimate:
    """The share of hits in `a` less that in `b`, of the same independent items.

    As `share_difference`, with the correlation of the pairs taken off. Source: Newcombe, "Improved Confidence Intervals
    for the Difference Between Binomial Proportions Based on Paired Data", 1998, method 10.
    """
    count = len(a)
    both = sum(x and y for x, y in zip(a, b, strict=True))
    one, other = sum(a) - both, sum(b) - both
    product = float(both) * (count - both - one - other) - one * other
    if product > 0:
        product = max(0.0, product - count / 2)  # for continuity
    spread = sum(a) * (count - sum(a)) * sum(b) * (count - sum(b))
    phi = product / math.sqrt(spread) if spread else 0.0
    (p, q), (lower, upper) = (
        (sum(a) / count, sum(b) / count),
        zip(*(wilson(sum(x), count) for x in (a, b)), strict=True),
    )

    def half(left: float, right: float) -> float:
        return math.sqrt(max(0.0, left * left - 2 * phi * left * right + right * right))

    return Estimate(p - q, p - q - half(p - lower[0], upper[1] - q), p - q + half(upper[0] - p, q - lower[1]))


def jackknife(statistic: Callable[[list[str]], float], texts: Sequence[str]) -> Estimate:
    """A statistic of a set of texts that repeats would bias, so that it cannot be resampled, such as distinct things.

    The standard error comes from leaving out one text at a time (Efron and Stein, 1981).
    """
    value = statistic(list(texts))
    without = np.array([statistic([*texts[:i], *texts[i + 1 :]]) for i in range(len(texts))])
    half = Z_95 * math.sqrt((len(texts) - 1) * without.var())
    return Estimate(value, value - half, value + half)


def _numbered(clusters: Sequence[Hashable]) -> np.ndarray:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
