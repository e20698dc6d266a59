"""Resampling: of N candidates per state, one is kept (SWG-R)."""

from __future__ import annotations

import torch


def keep(scores: torch.Tensor) -> torch.Tensor:
    """Index [B] of each row's highest score [B, N]; ties go to the lowest index, NaN never wins
    over a number."""
    scores = torch.where(scores.isnan(), -torch.inf, scores)
    best = scores.amax(dim=1, keepdim=True)
    order = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
    return torch.where(scores == best, order, scores.shape[1]).amin(dim=1)
