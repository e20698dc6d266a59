"""Intervals: against the formulas, and by how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest

from swg_fast.common.intervals import (
    LEVEL,
    interval_text,
    mean_interval,
    score_difference,
    score_interval,
    success_interval,
)


@pytest.mark.parametrize("k,n", [(0, 10), (25, 25), (98, 100), (1, 1), (43, 100)])
def test_wilson(k, n):
    """Wilson (1927), with z of 97.5 %."""
    z, p = 1.959963984540054, k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    found = success_interval(k, n)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-9)
    assert found.high - found.low > 0.03 and LEVEL == 0.95  # never a width of 0


def test_bootstrap_holds_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = []
    for _ in range(60):
        found = mean_interval(rng.exponential(100.0, 20))
        held.append(found.low <= 100.0 <= found.high)
    assert 0.8 <= np.mean(held) <= 1.0  # 95 % of large samples, less of 20 skewed ones; 60 trials
    assert mean_interval([1.0, 2.0, 4.0]) == mean_interval([1.0, 2.0, 4.0])


@pytest.mark.parametrize("values", [[3.0], [2.0, 2.0, 2.0]])
def test_no_interval_where_there_is_no_spread(values):
    assert mean_interval(values) is None
    text = interval_text(values[0], None, len(values))
    assert "no interval" in text and "0.0" not in text.split("(")[1]


def test_scores_are_in_per_cent():
    found = score_interval([100.0] * 25, True)
    assert (found.low, found.high, found.method) == (pytest.approx(86.68, abs=0.01), 100.0, "wilson")
    assert score_interval([10.0, 20.0, 30.0], False).method == "bootstrap"
    assert interval_text(100.0, found, 25) == "100.0, 95 % interval 86.7 to 100.0 (Wilson, 25 episodes)"


def rates(successes, episodes):
    """Scores of 0 and 100."""
    return [100.0] * successes + [0.0] * (episodes - successes)


@pytest.mark.parametrize("first, second, low, high", [
    ((56, 70), (48, 80), 5.24, 33.39), ((9, 10), (3, 10), 17.05, 80.91), ((10, 10), (0, 10), 60.75, 100.0)])
def test_the_difference_of_rates_is_newcombes(first, second, low, high):
    """Table II of Newcombe (1998), method 10; his difference is the first rate less the second."""
    found = score_difference(rates(*second), rates(*first), True)
    assert (found.low, found.high, found.method) == (
        pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01), "newcombe")


def test_the_difference_of_means_is_held_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = [found.low <= 5.0 <= found.high for found in (
        score_difference(rng.normal(10, 3, 15), rng.normal(15, 9, 25), False) for _ in range(60))]
    assert 0.85 <= np.mean(held) <= 1.0
    assert score_difference([1.0], [2.0, 3.0], False) is None
    assert score_difference([2.0, 2.0], [3.0, 3.0], False) is None
    assert score_difference([2.0, 2.0], [3.0, 4.0], False).low >= 1.0
