"""A draw with a probability proportional to weight ** (1 / temperature), by the Gumbel-max trick."""

import torch

from swg_fast.policy.rankings.ranked import Ranked


def score(found: Ranked) -> torch.Tensor:
    return found.weights.clamp(min=found.config.weight_clip[0]).log() / found.temperature + found.noise()
