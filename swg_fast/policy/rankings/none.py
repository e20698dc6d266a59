"""No ranking: all are equal, and the first is kept."""

import torch

from swg_fast.policy.rankings.ranked import Ranked


def score(found: Ranked) -> torch.Tensor:
    return torch.zeros_like(found.weights)
