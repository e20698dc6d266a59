"""Resampling: keeps one of N candidates per state (SWG-R)."""

from __future__ import annotations

import math
from typing import Any

import torch

from swg_fast.reference.guidance import predicted_weight


def keep(scores: torch.Tensor) -> torch.Tensor:
    """Index [B] of each row's highest score [B, N]. Ties go to the lowest index; NaN never beats a number."""
    scores = torch.where(scores.isnan(), -torch.inf, scores)
    best = scores.amax(dim=1, keepdim=True)
    order = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
    return torch.where(scores == best, order, scores.shape[1]).amin(dim=1)


def keep_mean(scores: torch.Tensor, parts: torch.Tensor, count: int) -> torch.Tensor:
    """The mean [B, D] of the ``count`` candidates of each row, of parts [B, N, D], that score highest.

    Ties as in `keep`. One without a score, NaN or minus infinity, is left out, unless none has any.
    """
    scores = torch.where(scores.isnan(), -torch.inf, scores)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return mean_of(scores[:, :count], order[:, :count], parts)


def mean_of(scores: torch.Tensor, order: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
    """The mean [B, D] of parts [B, N, D] at ``order`` [B, K], whose scores [B, K] fall; see `keep_mean`."""
    first = torch.arange(scores.shape[1], device=scores.device) == 0
    counted = ((scores > -torch.inf) | first)[..., None]
    best = parts.gather(1, order[..., None].expand(-1, -1, parts.shape[2]))
    return torch.where(counted, best, 0.0).sum(dim=1) / counted.sum(dim=1)


@torch.no_grad()
def expected_weight(network: Any, schedule: Any, states: torch.Tensor, actions: torch.Tensor,
                    noise: torch.Tensor, t: int, mean_weight: float) -> torch.Tensor:
    """An estimate of E[w | a, s], [M], for finished actions [M, A].

    Each draw of noise [K, M, D] noises the actions to the small step t, with ``mean_weight`` for their
    unknown weights; the result is the mean of the network's K predicted clean weights.
    """
    weights = torch.full_like(actions[:, :1], mean_weight)
    z = torch.cat([actions, weights], dim=1)
    bar = float(schedule.alphas_cumprod[t])
    found, step = [], torch.tensor(t, device=z.device)
    for xi in noise:
        noisy = bar**0.5 * z + (1 - bar) ** 0.5 * xi
        found.append(predicted_weight(noisy, network(noisy, states, step), schedule, t))
    return torch.stack(found).mean(dim=0)


@torch.no_grad()
def support(network: Any, schedule: Any, states: torch.Tensor, actions: torch.Tensor, noise: torch.Tensor,
            t: int, mean_weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(error, weight), [M] each, of finished actions [M, A] noised as in `expected_weight`: the mean squared
    error of the noise predicted in the action's entries, and the mean predicted weight."""
    z = torch.cat([actions, torch.full_like(actions[:, :1], mean_weight)], dim=1)
    bar = float(schedule.alphas_cumprod[t])
    errors, weights, step = [], [], torch.tensor(t, device=z.device)
    for xi in noise:
        noisy = bar**0.5 * z + (1 - bar) ** 0.5 * xi
        eps = network(noisy, states, step)
        errors.append((eps - xi)[:, :-1].square().sum(dim=1))
        weights.append(predicted_weight(noisy, eps, schedule, t))
    return torch.stack(errors).mean(dim=0), torch.stack(weights).mean(dim=0)


@torch.no_grad()
def read_weight(network: Any, states: torch.Tensor, actions: torch.Tensor, T: int) -> torch.Tensor:
    """E[w | a, s], [M], for finished actions [M, A], from a network trained to give it at step T: its input
    is the clean action with weight 0, and its predicted noise of the weight is minus the expected weight."""
    z = torch.cat([actions, torch.zeros_like(actions[:, :1])], dim=1)
    return -network(z, states, torch.tensor(T, device=z.device))[:, -1]


def keep_among(scores: torch.Tensor, expected: torch.Tensor, share: float) -> torch.Tensor:
    """`keep` among the best ``share`` of each row by expected weight [B, N]."""
    kept = []
    for row, weights in zip(scores, expected, strict=True):
        ranked = sorted(range(len(row)), key=lambda i: (-float(weights[i]), i))
        among = sorted(ranked[: max(1, math.ceil(share * len(row)))])
        kept.append(among[int(keep(row[among][None])[0])])
    return torch.tensor(kept, device=scores.device)
