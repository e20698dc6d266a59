"""The lower confidence bound of Q, over an ensemble of critics (Ghasemipour et al., arXiv 2205.13703)."""

import torch

from swg_fast.policy.rankings.ranked import Ranked


def score(found: Ranked) -> torch.Tensor:
    assert found.ensemble is not None
    return found.ensemble.lower_bound(found.config.pessimism)
