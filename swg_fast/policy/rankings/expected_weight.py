"""The expected weight E[w | a, s]."""

import torch

from swg_fast.policy.rankings.ranked import Ranked


def score(found: Ranked) -> torch.Tensor:
    assert found.expected is not None
    return found.expected
