"""Percentiles, confidence intervals and the test behind a verdict: pure arithmetic, without any library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_TINY: Final = 1e-300
_STEPS: Final = 200


def percentile(ordered: Sequence[float], percent: float) -> float:
    """
    Return the smallest of the sorted values that at least `percent` (0..100) of them do not exceed (nearest rank).

    Nothing has percentiles of NaN.
    """
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def steady_from(values: Sequence[float], *, batch: int = 5) -> int:
    """
    Return from which index on a series is steady: what comes before is warm-up.

    The marginal standard error rule on means of `batch` (MSER-5; White 1997): the cut that makes the standard error of
    the rest's mean smallest, never beyond the middle. A series too short to say begins at 0.
    """
    means = [fmean(values[i : i + batch]) for i in range(0, len(values) - batch + 1, batch)]
    if len(means) < 4:
        return 0
    best, cut = math.inf, 0
    for first in range(len(means) // 2 + 1):
        rest = means[first:]
        mean = fmean(rest)
        error = sum((value - mean) ** 2 for value in rest) / len(rest) ** 2
        if error < best:
            best, cut = error, first
    return cut * batch


@dataclass(frozen=True, slots=True)
class Interval:
    """
    An estimate between its bounds.
    """

    estimate: float
    low: float
    high: float

    def has(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    B against A over pairs of rounds.

    Attributes:
        ratio: B / A, geometric mean over the pairs, with its confidence interval; below 1: B is smaller.
        p: Probability of a difference as large by chance, were there none.
        effect: Mean difference in units of its standard deviation between pairs (Cohen's d for pairs).
        pairs: How many.
        alpha: Share of verdicts "different" that is accepted when there is no difference.
    """

    ratio: Interval
    p: float
    effect: float
    pairs: int
    alpha: float

    @property
    def is_different(self) -> bool:
        return self.p < self.alpha


def compare(a: Sequence[float], b: Sequence[float], *, alpha: float = 0.01) -> Comparison:
    """
    Compare what was measured in pairs (the same round, neighbours in time) by a paired t-test on logarithms.

    Ratios of noisy times are skewed and their logarithms are not; pairing takes the machine's drift out.
    Source: any textbook, "paired t-test"; Student's distribution by the regularised incomplete beta function.

    Raises:
        ValueError: fewer than three pairs, sides of unequal length, or a value that is not above 0.
    """
    if len(a) != len(b) or len(a) < 3:
        raise ValueError("a comparison needs at least three pairs of rounds")
    if min(*a, *b) <= 0:
        raise ValueError("only values above 0 have ratios")
    logs = [math.log(y / x) for x, y in zip(a, b, strict=True)]
    n, mean, spread = len(logs), fmean(logs), stdev(logs)
    if spread == 0:
        ratio = math.exp(mean)
        return Comparison(
            Interval(ratio, ratio, ratio),
            1.0 if mean == 0 else 0.0,
            math.copysign(math.inf, mean) if mean else 0.0,
            n,
            alpha,
        )
    error = spread / math.sqrt(n)
    reach = t_quantile(1 - alpha / 2, n - 1) * error
    interval = Interval(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach))
    return Comparison(interval, 2 * (1 - t_probability(abs(mean) / error, n - 1)), mean / spread, n, alpha)


def interval(values: Sequence[float], *, alpha: float = 0.01) -> Interval:
    """
    Return the median with a confidence interval that assumes no distribution: order statistics by the binomial.

    With few values the interval is all there is between the smallest and the largest, and says no more than that.
    """
    ordered = sorted(values)
    n = len(ordered)
    if not n:
        return Interval(math.nan, math.nan, math.nan)
    total, k = 0.0, 0
    for k in range(n // 2):  # where it stopped is what is wanted
        total += math.comb(n, k) / 2**n
        if total > alpha / 2:
            break
    return Interval(median(ordered), ordered[k], ordered[n - 1 - k])


def t_probability(t: float, freedom: int) -> float:
    """
    Return P(T <= t) of Student's distribution.
    """
    tail = 0.5 * _beta(freedom / (freedom + t * t), freedom / 2, 0.5)
    return 1 - tail if t >= 0 else tail


def t_quantile(p: float, freedom: int) -> float:
    """
    Return the t with P(T <= t) = p, for p in 0.5..1, by bisection.
    """
    low, high = 0.0, 1e6
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if t_probability(middle, freedom) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _beta(x: float, a: float, b: float) -> float:
    """
    Return the regularised incomplete beta function (Abramowitz and Stegun 26.5.8, Lentz's evaluation).
    """
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    value, c, d = 1.0, 1.0, 0.0
    for step in range(_STEPS):
        m = step // 2
        if step == 0:
            term = 1.0
        elif step % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / (1 + term * d or _TINY)
        c = 1 + term / c or _TINY
        value *= c * d
        if abs(1 - c * d) < 1e-14:
            break
    return front * (value - 1)
