"""Figures of what was learnt: value and return, advantages, sampled weights and advantages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from swg_fast.common.intervals import mean_interval, success_interval
from swg_fast.data import Transitions
from swg_fast.evaluation.inspect.learnt import Judge
from swg_fast.method.networks import TwinQ, ValueNetwork
from swg_fast.policy.backends.search import asked
from swg_fast.policy.policy import Policy

BATCH = 16384  # states at once
PART = 32  # states whose candidates are sampled at once


@dataclass(frozen=True)
class Draws:
    """Which candidates are drawn to look at; ``guidance_scale`` None is the policy's own. n_judged: of a
    state, where a judge measures the ranking."""

    n_states: int = 256
    n_candidates: int = 64
    n_judged: int = 1024
    guidance_scale: float | None = None
    seed: int = 0
    progress: bool = True


class Sampled(NamedTuple):
    """Predicted weights and the critic's advantages of candidates, both [B, n], and their rank correlation
    within each state where both vary."""

    weights: np.ndarray
    advantages: np.ndarray
    correlation: np.ndarray


def some(states: np.ndarray, draws: Draws) -> np.ndarray:
    """States [B, S] to draw candidates of."""
    chosen = np.random.default_rng(draws.seed).choice(len(states), min(draws.n_states, len(states)),
                                                      replace=False)
    return states[chosen]


@torch.no_grad()
def _batched(function: Callable[..., torch.Tensor], *arrays: np.ndarray) -> np.ndarray:
    return np.concatenate([function(*(torch.from_numpy(a[i:i + BATCH]) for a in arrays)).numpy()
                           for i in range(0, len(arrays[0]), BATCH)])


def values(network: ValueNetwork, data: Transitions) -> np.ndarray:
    """V(s) [N] of every state."""
    return _batched(network, data.observations)


def advantages(critic: TwinQ, value: np.ndarray, data: Transitions) -> np.ndarray:
    """u = min target Q - V of every recorded action, [N]."""
    return _batched(critic.minimum, data.observations, data.actions) - value


def returns_to_go(data: Transitions, rewards: np.ndarray, discount: float) -> np.ndarray:
    """Discounted return [N] from each transition to its episode's end. NaN where the recording stops without
    a terminal within 2 / (1 - discount) steps: too much of the return is unknown."""
    last = np.append(data.episodes[1:] != data.episodes[:-1], True)
    known = int(2 / (1 - discount))
    result = np.empty(len(rewards))
    total, left = 0.0, 0.0
    for i in range(len(rewards) - 1, -1, -1):
        if data.terminals[i]:
            total, left = rewards[i], np.inf
        elif last[i]:
            total, left = rewards[i], 1
        else:
            total, left = rewards[i] + discount * total, left + 1
        result[i] = total if left >= known else np.nan
    return result


def value_figures(value: np.ndarray, returns: np.ndarray) -> dict[str, float | int | None]:
    """Spread of V [N], and its rank correlation with the known returns to go [N]."""
    from scipy.stats import spearmanr

    known = np.isfinite(returns)
    varied = known.sum() > 2 and np.ptp(returns[known]) > 0 and np.ptp(value[known]) > 0
    return _spread(value) | {
        "known_returns": int(known.sum()),
        "rank_correlation": float(spearmanr(value[known], returns[known]).statistic) if varied else None,
        "mean_minus_return": float((value[known] - returns[known]).mean()) if known.any() else None}


def advantage_figures(advantage: np.ndarray) -> dict[str, float]:
    """Spread of the advantages [N] and the share above zero."""
    return _spread(advantage) | {"positive": float((advantage > 0).mean())}


def _spread(x: np.ndarray) -> dict[str, float]:
    return {"mean": float(x.mean()), "std": float(x.std()), "min": float(x.min()), "max": float(x.max())}


def sampled_weights(policy: Policy, judge: Judge, states: np.ndarray, guidance_scale: float, draws: Draws
                    ) -> Sampled:
    """Draws candidates of ``states`` [B, S] with the policy's sampler and lets the critic judge them."""
    from tqdm import tqdm

    weights, found, n, own = [], [], draws.n_candidates, policy.config
    for i in tqdm(range(0, len(states), PART), f"candidates, guidance {guidance_scale:g}", unit="part",
                  disable=not draws.progress):
        part = torch.from_numpy(states[i:i + PART])
        drawn = policy.sample(
            part, n_candidates=n, guidance_scale=guidance_scale, temperature=1.0, select="none", leaves=1,
            sampler=own.sampler, sampler_steps=own.sampler_steps,  # named, so that no teacher finishes a few
            seed=draws.seed, return_candidates=True, state_indices=np.arange(i, i + len(part)))
        with torch.no_grad():
            q = asked(judge.critic, part, drawn.candidates)
            found.append((q - judge.value(part)[:, None]).numpy())
        weights.append(drawn.candidate_weights.numpy())
    both = np.concatenate(weights), np.concatenate(found)
    return Sampled(*both, within_states(*both))


def within_states(weights: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Spearman's correlation of weights and advantages [B, n] within each state; states where one of
    them does not vary are left out."""
    from scipy.stats import spearmanr

    varied = (np.ptp(weights, axis=1) > 0) & (np.ptp(found, axis=1) > 0)
    return np.array([spearmanr(w, u).statistic for w, u in zip(weights[varied], found[varied], strict=True)])


def weight_figures(weights: np.ndarray, found: np.ndarray, correlation: np.ndarray) -> dict[str, Any]:
    """The fields of `Sampled` -> the mean correlation within a state, and the shares of actions with a
    positive advantage: of all candidates, of those with their state's highest weight, and of those with its
    highest advantage (an oracle)."""
    kept = found[np.arange(len(found)), weights.argmax(axis=1)] > 0
    interval, shares = mean_interval(correlation), success_interval(int(kept.sum()), len(kept))
    return {
        "rank_correlation": float(correlation.mean()) if len(correlation) else None,
        "interval": None if interval is None else asdict(interval),
        "positive": {"candidates": float((found > 0).mean()), "highest_weight": float(kept.mean()),
                     "highest_weight_interval": asdict(shares),
                     "oracle": float((found > 0).any(axis=1).mean())}}
