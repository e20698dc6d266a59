"""The sampled weight."""

import torch

from swg_fast.policy.rankings.ranked import Ranked


def score(found: Ranked) -> torch.Tensor:
    return found.weights
