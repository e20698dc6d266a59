"""Reward transforms (SWG, appendix): what each D4RL family's rewards become before training."""

from __future__ import annotations

import math

import numpy as np

from swg_fast.common.errors import UsageError
from swg_fast.data import Transitions
from swg_fast.data.findings import Finding

REWARD_TRANSFORMS = ("none", "minus_one", "return_range")
UNBOUNDED = (-math.inf, math.inf)


def transform_rewards(data: Transitions, name: str) -> np.ndarray:
    """Rewards [N] after ``minus_one`` (r - 1), ``return_range`` (1000 r over the span of the
    episodes' returns) or ``none``."""
    if name == "none":
        return data.rewards
    if name == "minus_one":
        return data.rewards - np.float32(1.0)
    if name == "return_range":
        returns = np.bincount(data.episodes, weights=data.rewards.astype(np.float64))
        returns = returns[np.bincount(data.episodes) > 0]
        span = returns.max() - returns.min()
        if span <= 0:
            raise UsageError("reward transform 'return_range' needs episodes of different returns; "
                             "use --reward-transform none for this dataset")
        return (data.rewards * (1000.0 / span)).astype(np.float32)
    raise UsageError(
        f"unknown reward transform {name!r}; use one of {', '.join(REWARD_TRANSFORMS)}")


def reward_findings(data: Transitions, name: str) -> list[Finding]:
    """What is odd about rewards that the transform ``name`` is to change."""
    found, distinct = [], np.unique(data.rewards)
    if len(distinct) == 1:
        found.append(Finding(f"every step has the reward {distinct[0]:g}",
                             "no action can be better than another; check the rewards"))
    elif name == "minus_one" and np.isin(distinct, (-1, 0)).all():
        found.append(Finding("rewards are -1 and 0 already", "minus_one makes -2 and -1 of them; use "
                                                             "--reward-transform none"))
    episodes = len(np.unique(data.episodes))
    if name == "return_range" and episodes > len(data) / 2:
        found.append(Finding(f"{len(data):,} rows are {episodes:,} episodes", "return_range scales by the "
                             "span of their returns, which are single rewards; use --reward-transform none"))
    return found


def return_bounds(rewards: np.ndarray, discount: float) -> tuple[float, float]:
    """(lowest, highest) discounted return that ``rewards`` [N] allow: of an episode of any length whose every
    step earns the worst or the best of them. After its end an episode earns 0."""
    return (min(float(rewards.min()), 0.0) / (1.0 - discount),
            max(float(rewards.max()), 0.0) / (1.0 - discount))
