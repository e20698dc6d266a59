"""95 % confidence intervals of mean scores and of their differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVEL = 0.95
NAMES = {"wilson": "Wilson", "bootstrap": "bootstrap", "newcombe": "Newcombe"}  # of the methods
RESAMPLES = 9999


@dataclass(frozen=True)
class Interval:
    """An interval of a mean or a difference, in its units. ``method`` is ``wilson``, ``bootstrap`` or
    ``newcombe``."""

    low: float
    high: float
    method: str
    level: float = LEVEL


def success_interval(successes: int, episodes: int) -> Interval:
    """Wilson's score interval of a success rate, in 0..1. It has a width even where all or none
    succeeded: 25 of 25 is [0.87, 1]."""
    from scipy.stats import binomtest

    found = binomtest(successes, episodes).proportion_ci(LEVEL, method="wilson")
    return Interval(float(found.low), float(found.high), "wilson")


def mean_interval(values: Sequence[float], seed: int = 0) -> Interval | None:
    """Bootstrap interval (BCa, 9,999 resamples) of the mean of ``values`` [N].

    None for one value, or where all are equal, up to rounding: every resample then has the same mean.
    """
    array = np.asarray(values, np.float64)
    return _bootstrapped((array,), np.mean, seed) if len(array) > 1 and _varies(array) else None


def _varies(values: np.ndarray) -> bool:
    return bool(np.ptp(values) > 1e-9 * np.abs(values).max())


def _bootstrapped(samples: tuple[np.ndarray, ...], statistic: Callable[..., Any], seed: int) -> Interval:
    from scipy.stats import bootstrap

    found = bootstrap(samples, statistic, confidence_level=LEVEL, n_resamples=RESAMPLES, method="BCa",
                      batch=max(1, 10**7 // sum(map(len, samples))), rng=np.random.default_rng(seed))
    return Interval(float(found.confidence_interval.low), float(found.confidence_interval.high), "bootstrap")


def score_interval(scores: Sequence[float], succeeds_or_fails: bool) -> Interval | None:
    """Interval of the mean of episodes' scores [N]: Wilson's where each is 0 or 100 (Ant Maze), else
    `mean_interval`."""
    if not succeeds_or_fails:
        return mean_interval(scores)
    share = success_interval(sum(score > 50 for score in scores), len(scores))
    return Interval(100 * share.low, 100 * share.high, share.method)


def rates_difference(first: Interval, second: Interval, rates: tuple[float, float]) -> Interval:
    """Newcombe's interval of ``rates[1] - rates[0]``, from Wilson's intervals of the two (Newcombe 1998,
    method 10). All have the same units."""
    p, q = rates
    return Interval(q - p - math.hypot(q - second.low, first.high - p),
                    q - p + math.hypot(second.high - q, p - first.low), "newcombe")


def means_difference(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Interval | None:
    """Bootstrap interval (BCa, 9,999 resamples) of the mean of ``second`` [N] less that of ``first`` [M],
    which are resampled apart. None where one has a single value, or neither varies."""
    samples = tuple(np.asarray(values, np.float64) for values in (first, second))
    if min(map(len, samples)) < 2 or not any(map(_varies, samples)):
        return None

    def difference(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return b.mean(axis=axis) - a.mean(axis=axis)

    return _bootstrapped(samples, difference, seed)


def score_difference(first: Sequence[float], second: Sequence[float], succeeds_or_fails: bool
                     ) -> Interval | None:
    """Interval of the mean of ``second`` [N] less that of ``first`` [M], scores of episodes that are taken as
    independent: Newcombe's where each is 0 or 100 (Ant Maze), else `means_difference`."""
    if not succeeds_or_fails:
        return means_difference(first, second)
    each = [score_interval(scores, True) for scores in (first, second)]
    assert each[0] is not None and each[1] is not None  # Wilson's always has a width
    return rates_difference(each[0], each[1], (float(np.mean(first)), float(np.mean(second))))


def interval_text(score: float, interval: Interval | None, episodes: int) -> str:
    """``98.0, 95 % interval 93.0 to 99.4 (Wilson, 100 episodes)``, or why there is none."""
    if interval is None:
        why = "one episode" if episodes == 1 else f"all {episodes} episodes scored the same"
        return f"{score:.1f} ({why}: no interval)"
    count = f"{episodes} episode{'s' if episodes > 1 else ''}"
    return (f"{score:.1f}, {100 * interval.level:.0f} % interval {interval.low:.1f} to {interval.high:.1f} "
            f"({NAMES[interval.method]}, {count})")
