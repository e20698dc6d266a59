"""The temperature of softmax that is the noise of the weights which it compares.

A sampled weight is a draw around the expected weight of its action. Two candidates whose log weights differ
by less than that noise are not told apart by it, so the inverse temperature is the inverse of the noise. Why
a softmax chooses better than the best of N where a score errs: Aminian et al. (arXiv 2507.05913).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from swg_fast.common.errors import UsageError
from swg_fast.common.seeds import stream_seed
from swg_fast.data import Transitions
from swg_fast.policy.policy import Policy
from swg_fast.policy.sampling import SamplingConfig

CANDIDATES = 16  # of a state
AT_ONCE = 64  # states
NORMAL = 1.4826  # standard deviations of a normal variable in its median absolute deviation


@dataclass(frozen=True)
class FittedTemperature:
    """A ``temperature``, from so many candidates of so many states, drawn by this sampler at this guidance
    scale: what the card keeps."""

    temperature: float
    states: int
    candidates: int
    sampler: str
    guidance_scale: float


def draws_of(policy: Policy) -> SamplingConfig:
    """The policy's own search, but of candidates that have a sampled and an expected weight each.
    `UsageError` where the policy cannot tell them."""
    config = replace(policy.config, n_candidates=CANDIDATES, temperature=1.0, select="expected_weight",
                     ranking="draws", keep_share=1.0, leaves=1, branch_after=None, finish=None)
    policy.bind(config)
    return config


def held_out_states(data: Transitions, share: float, count: int, seed: int) -> torch.Tensor:
    """``count`` states of ``data`` (fewer where there are no more), [B, S], of held-out episodes."""
    rows = np.flatnonzero(data.unlearnt(share, seed, "the temperature is fitted"))
    chosen = np.random.default_rng(stream_seed(seed, "temperature")).choice(
        rows, min(count, len(rows)), replace=False)
    return torch.from_numpy(data.observations[chosen])


@torch.no_grad()
def fit_temperature(policy: Policy, states: torch.Tensor, seed: int) -> FittedTemperature:
    """The standard deviation of a candidate's log weight around the logarithm of its expected weight, within
    ``states`` [B, S]. By the median, so that a weight near 0, whose logarithm is far off, does not decide.

    Raises `UsageError` as `draws_of` does, and where the weights have no noise.
    """
    config, found = draws_of(policy), []
    for first in range(0, len(states), AT_ONCE):
        part = states[first:first + AT_ONCE]
        drawn = policy.sample(part, config, seed=stream_seed(seed, "temperature"), return_candidates=True,
                              state_indices=torch.arange(first, first + len(part)))
        assert drawn.candidate_weights is not None and drawn.expected_weights is not None
        low = config.weight_clip[0]
        noise = drawn.candidate_weights.clamp(min=low).log() - drawn.expected_weights.clamp(min=low).log()
        found.append((noise - noise.median(dim=1, keepdim=True).values).flatten().cpu())
    temperature = NORMAL * float(torch.cat(found).abs().median())
    if temperature <= 0:
        raise UsageError("the sampled weights have no noise to fit a temperature to; give a number instead")
    return FittedTemperature(temperature, len(states), CANDIDATES, config.sampler, config.guidance_scale)
