"""The lower confidence bound of the expected weight, over the ranker's networks."""

import torch

from swg_fast.policy.rankings.ranked import Ranked


def score(found: Ranked) -> torch.Tensor:
    assert found.ensemble is not None
    return found.ensemble.lower_bound(found.config.pessimism)
