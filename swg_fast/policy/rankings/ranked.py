"""What a ranking is given, and the call of one by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import NamedTuple

import torch

from swg_fast.policy.sampling import SamplingConfig


class Support(NamedTuple):
    """Of candidates [b, n]: the mean squared error of the noise that the network predicts of the action
    noised again, which is small where the data are; and the weight that it predicts from there."""

    error: torch.Tensor
    weight: torch.Tensor


class Spread(NamedTuple):
    """Of candidates [b, n]: the mean and the standard deviation of what an ensemble's members say."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def lower_bound(self, pessimism: float) -> torch.Tensor:
        """The lower confidence bound, ``pessimism`` standard deviations below the mean."""
        return self.mean - pessimism * self.deviation


@dataclass(frozen=True)
class Ranked:
    """Candidates [b, n] to rank, and what was predicted of them.

    weights: sampled, before the last clip. expected, critic (min(Q1, Q2)), support, ensemble (the ranker's or
    the critics'): where the ranking needs them. noise: standard Gumbel draws of each candidate, made when
    called. temperature: the selection's.
    """

    config: SamplingConfig
    temperature: float
    weights: torch.Tensor
    noise: Callable[[], torch.Tensor]
    expected: torch.Tensor | None = None
    critic: torch.Tensor | None = None
    support: Support | None = None
    ensemble: Spread | None = None


def scores_of(name: str, found: Ranked) -> torch.Tensor:
    """The scores [b, n] by the ranking ``name``: the highest is kept."""
    return _ranking(name)(found)


@cache
def _ranking(name: str) -> Callable[[Ranked], torch.Tensor]:
    function: Callable[[Ranked], torch.Tensor] = import_module(f"swg_fast.policy.rankings.{name}").score
    return function


def standardised(scores: torch.Tensor) -> torch.Tensor:
    """Scores [b, n] less their state's mean, over its standard deviation (0 where a state has one score)."""
    centred = scores - scores.mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    return torch.where(spread > 0, centred / spread, 0.0)
