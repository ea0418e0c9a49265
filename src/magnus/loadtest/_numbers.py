"""Percentiles, confidence intervals and the test behind a verdict: pure arithmetic, without any library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
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
        pairs: How many; of unpaired runs the stretches of the shorter one.
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

    @property
    def verdict(self) -> str:
        """
        What it says of times, of which fewer are better: "better", "worse" or "no difference".
        """
        if not self.is_different:
            return "no difference"
        return "better" if self.ratio.estimate < 1 else "worse"

    def as_dict(self) -> dict[str, float | int | str | None]:
        """
        Return it ready for JSON; an infinite effect (no noise at all) is null.
        """
        return {
            "verdict": self.verdict, "ratio": round(self.ratio.estimate, 5), "low": round(self.ratio.low, 5),
            "high": round(self.ratio.high, 5), "confidence": 1 - self.alpha, "p": float(f"{self.p:.3g}"),
            "effect": None if math.isinf(self.effect) else round(self.effect, 3), "pairs": self.pairs,
        }  # fmt: skip


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
        return _exact(mean, n, alpha)
    error = spread / math.sqrt(n)
    reach = t_quantile(1 - alpha / 2, n - 1) * error
    interval = Interval(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach))
    return Comparison(interval, 2 * (1 - t_probability(abs(mean) / error, n - 1)), mean / spread, n, alpha)


def compare_apart(a: Sequence[float], b: Sequence[float], *, alpha: float = 0.01) -> Comparison:
    """
    Compare two runs that had nothing to do with each other, by the means of stretches of each, none overlapping.

    Welch's t-test on logarithms. It knows the noise within a run, not that between two: another hour, another plan or
    another cache count as a difference, too. Only interleaved rounds (`compare`) tell a change from those.

    Raises:
        ValueError: fewer than three stretches on a side, or a value that is not above 0.
    """
    if min(len(a), len(b)) < 3:
        raise ValueError("a comparison needs at least three stretches of each run")
    if min(*a, *b) <= 0:
        raise ValueError("only values above 0 have ratios")
    first, second = [math.log(x) for x in a], [math.log(x) for x in b]
    mean = fmean(second) - fmean(first)
    parts = [stdev(side) ** 2 / len(side) for side in (first, second)]
    error = math.sqrt(sum(parts))
    size = min(len(a), len(b))
    if error == 0:
        return _exact(mean, size, alpha)
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(side) - 1) for part, side in zip(parts, (first, second), strict=True)
    )
    reach = t_quantile(1 - alpha / 2, freedom) * error
    found = Interval(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach))
    spread = math.sqrt((stdev(first) ** 2 + stdev(second) ** 2) / 2)
    return Comparison(found, 2 * (1 - t_probability(abs(mean) / error, freedom)), mean / spread, size, alpha)


def compare_shares(failed_a: int, all_a: int, failed_b: int, all_b: int) -> float:
    """
    Return the probability of two shares as different as these by chance (two-sided z-test on the pooled share).
    """
    if not all_a or not all_b:
        return 1.0
    pooled = (failed_a + failed_b) / (all_a + all_b)
    error = math.sqrt(pooled * (1 - pooled) * (1 / all_a + 1 / all_b))
    return 1.0 if error == 0 else math.erfc(abs(failed_a / all_a - failed_b / all_b) / error / math.sqrt(2))


def stretches(values: Sequence[tuple[int, float]], most: int = 20) -> list[float]:
    """
    Return the means of at most `most` equal stretches of a course of (count, mean); neighbours in time depend on each
    other, stretches of several seconds hardly do (the method of batch means).
    """
    size = max(1, len(values) // most)
    groups = (values[start : start + size] for start in range(0, len(values) - size + 1, size))
    return [
        math.fsum(count * mean for count, mean in group) / total
        for group in groups
        if (total := sum(count for count, _ in group))
    ]


def _exact(mean: float, size: int, alpha: float) -> Comparison:
    ratio = math.exp(mean)
    effect = math.copysign(math.inf, mean) if mean else 0.0
    return Comparison(Interval(ratio, ratio, ratio), 0.0 if mean else 1.0, effect, size, alpha)


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


def t_probability(t: float, freedom: float) -> float:
    """
    Return P(T <= t) of Student's distribution.
    """
    tail = 0.5 * _beta(freedom / (freedom + t * t), freedom / 2, 0.5)
    return 1 - tail if t >= 0 else tail


@lru_cache(maxsize=256)
def t_quantile(p: float, freedom: float) -> float:
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
