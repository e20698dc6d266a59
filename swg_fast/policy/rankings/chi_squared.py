"""A draw from the chi-squared regularised distribution over a state's candidates (arXiv 2503.21878).

Its probabilities are proportional to max(0, r - nu). r is the standardised weight over the temperature, and
nu is such that max(0, r - nu) has the mean 1. The best of N trusts the highest weight alone; this does not.
"""

import torch

from swg_fast.policy.rankings.ranked import Ranked, standardised


def score(found: Ranked) -> torch.Tensor:
    r = standardised(found.weights) / found.temperature
    ordered = r.sort(dim=1, descending=True).values
    count = torch.arange(1, r.shape[1] + 1, device=r.device)
    # With the k largest above nu: (their sum - k nu) / N = 1. The right k is the last whose nu they exceed.
    nu = (ordered.cumsum(dim=1) - r.shape[1]) / count
    last = (ordered > nu).sum(dim=1, keepdim=True).clamp(min=1) - 1
    return (r - nu.gather(1, last)).clamp(min=0).log() + found.noise()
