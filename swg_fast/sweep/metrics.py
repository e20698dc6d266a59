"""A report's metrics: values of cells, and estimates with intervals for groups of cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from swg_fast.common.errors import UsageError
from swg_fast.common.intervals import LEVEL, success_interval

RESAMPLES = 5000
CUT = 0.25  # share that the interquartile mean leaves out at either end
Result = dict[str, Any]  # a finished cell's JSON


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval, None for a single run. ``runs`` and ``episodes`` count the group's cells
    and their episodes."""

    value: float
    low: float | None
    high: float | None
    runs: int
    episodes: int


@dataclass(frozen=True)
class Metric:
    """``estimate`` takes a group's cells and returns None where they do not have the metric."""

    title: str
    interval: str  # in words, for a table's caption
    estimate: Callable[[list[Result]], Estimate | None]
    digits: int = 1
    lower_is_better: bool = False


def stratified(strata: Sequence[Sequence[float]], statistic: Callable[..., Any], seed: int = 0
               ) -> tuple[float, float] | None:
    """The 95 % interval of ``statistic`` of all values by percentile bootstrap, resampled within each stratum
    as in rliable; None where every stratum has one value."""
    from scipy.stats import bootstrap

    groups = [np.asarray(values, np.float64) for values in strata]
    if all(len(group) < 2 for group in groups):
        return None
    # scipy refuses samples of one value; they resample to themselves, so they are added as constants.
    several = [group for group in groups if len(group) > 1]
    ones = np.concatenate([group for group in groups if len(group) == 1] or [np.empty(0)])

    def pooled(*parts: np.ndarray, axis: int = -1) -> np.ndarray:
        shape = parts[0].shape[:-1]
        return statistic(np.concatenate([*parts, np.broadcast_to(ones, (*shape, len(ones)))], axis=-1), axis)

    found = bootstrap(tuple(several), pooled, n_resamples=RESAMPLES, confidence_level=LEVEL, vectorized=True,
                      method="percentile", batch=500, rng=np.random.default_rng(seed)).confidence_interval
    return float(found.low), float(found.high)


def interquartile_mean(values: np.ndarray, axis: int = -1) -> Any:
    """The mean of the middle half."""
    from scipy.stats import trim_mean

    return trim_mean(values, CUT, axis=axis)


def _mean(values: np.ndarray, axis: int = -1) -> Any:
    return values.mean(axis=axis)


def _by_task(cells: list[Result], value: Callable[[Result], float | None]) -> list[list[float]]:
    """The cells' values, in strata of one task (or toy data set) each."""
    strata: dict[Any, list[float]] = {}
    for cell in cells:
        found = value(cell)
        if found is not None:
            strata.setdefault(cell["task"] or cell["settings"].get("name"), []).append(found)
    return list(strata.values())


def _over_runs(value: Callable[[Result], float | None], statistic: Callable[..., Any]
               ) -> Callable[[list[Result]], Estimate | None]:
    def estimate(cells: list[Result]) -> Estimate | None:
        strata = _by_task(cells, value)
        if not strata:
            return None
        low, high = stratified(strata, statistic) or (None, None)
        runs = sum(map(len, strata))
        return Estimate(float(statistic(np.concatenate(strata))), low, high, runs, _episodes(cells))

    return estimate


def _episodes(cells: list[Result]) -> int:
    return sum(len(cell["result"].get("scores", [])) for cell in cells)


def _over_episodes(name: str) -> Callable[[list[Result]], Estimate | None]:
    def estimate(cells: list[Result]) -> Estimate | None:
        strata = [cell["result"][name] for cell in cells if name in cell["result"]]
        if not strata:
            return None
        everything = np.concatenate(strata)
        low, high = stratified(strata, _mean) or (None, None)
        return Estimate(float(everything.mean()), low, high, len(strata), len(everything))

    return estimate


def _success(cells: list[Result]) -> Estimate | None:
    cells = [cell for cell in cells if "successes" in cell["result"]]
    if not cells:
        return None
    good, all_ = sum(cell["result"]["successes"] for cell in cells), _episodes(cells)
    interval = success_interval(good, all_)
    return Estimate(100 * good / all_, 100 * interval.low, 100 * interval.high, len(cells), all_)


def _rank(cell: Result) -> float | None:
    found = [value for value in cell["result"].get("rank_correlations", []) if value is not None]
    return float(np.mean(found)) if found else None


def _distance(name: str) -> Callable[[Result], float | None]:
    return lambda cell: cell["result"].get("distances", {}).get(name)


def _loss(name: str) -> Callable[[Result], float | None]:
    return lambda cell: cell["result"].get("training", {}).get("held_out_losses", {}).get(name)


def _milliseconds(cell: Result) -> float | None:
    """Milliseconds of sampling for a step of one environment."""
    found = cell["result"]
    steps = sum(found.get("episode_lengths", []))
    return 1000 * found["seconds"]["sampling"] / steps if steps else None


RUNS = "stratified bootstrap over runs (a run: one seed of one task)"
EPISODES = ("bootstrap over episodes, resampled within each run: what other episodes of these very policies "
            "would give")
METRICS = {
    "score": Metric("mean score", EPISODES, _over_episodes("scores")),
    "steps": Metric("steps of an episode", EPISODES, _over_episodes("episode_lengths"), 0),
    "success": Metric("success rate, %", "Wilson, of all episodes together: these very policies", _success),
    "iqm": Metric("score, interquartile mean over runs", RUNS, _over_runs(
        lambda cell: cell["result"].get("score"), interquartile_mean)),
    "distance": Metric("sliced Wasserstein distance of guided samples to the target", RUNS,
                       _over_runs(_distance("guided_to_target"), _mean), 4, True),
    "unguided": Metric("sliced Wasserstein distance of unguided samples to the data", RUNS,
                       _over_runs(_distance("unguided_to_data"), _mean), 4, True),
    "floor": Metric("sliced Wasserstein distance of two draws of the target", RUNS,
                    _over_runs(_distance("floor"), _mean), 4, True),
    "rank": Metric("Spearman's correlation of the ranking weight with the critic's value", RUNS,
                   _over_runs(_rank, _mean), 3),
    "milliseconds": Metric("sampling, ms a step of one environment", RUNS,
                           _over_runs(_milliseconds, _mean), 2, True),
}


def metric(name: str) -> Metric:
    """The metric called ``name``; ``loss:NAME`` is a held-out loss of the training."""
    if name.startswith("loss:"):
        loss = name.removeprefix("loss:")
        return Metric(f"held-out loss {loss} at the end of the training", RUNS,
                      _over_runs(_loss(loss), _mean), 4, True)
    if name not in METRICS:
        raise UsageError(f"unknown metric {name!r} in [report]; use one of {', '.join(METRICS)} or loss:NAME")
    return METRICS[name]
