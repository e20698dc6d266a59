"""The critic's min(Q1, Q2)."""

import torch

from swg_fast.policy.rankings.ranked import Ranked


def score(found: Ranked) -> torch.Tensor:
    assert found.critic is not None
    return found.critic
