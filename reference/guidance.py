"""Self-weighted guidance by autograd (SWG, section 4; Algorithm 2, lines 5-7)."""

from __future__ import annotations

from typing import Any

import torch


def readout_scale(schedule: Any, t: int, weight_readout: str) -> float:
    """k_t: 1 / sqrt(alphas_cumprod) for ``exact`` (the paper), 1 / sqrt(alphas) for ``official``
    (the authors' JAX code)."""
    if weight_readout not in ("exact", "official"):
        raise ValueError(f"weight_readout must be 'exact' or 'official', got {weight_readout!r}")
    alpha = schedule.alphas_cumprod[t] if weight_readout == "exact" else schedule.alphas[t]
    return 1.0 / float(alpha) ** 0.5


def predicted_weight(z: torch.Tensor, eps: torch.Tensor, schedule: Any, t: int,
                     weight_readout: str = "exact") -> torch.Tensor:
    """The clean weight [M] that z [M, D] and its predicted noise eps [M, D] imply, unclipped."""
    sigma = float(schedule.sigmas[t])
    return readout_scale(schedule, t, weight_readout) * (z[:, -1] - sigma * eps[:, -1])


def log_weight_gradient(
    network: Any, schedule: Any, states: torch.Tensor, z: torch.Tensor, t: int, *,
    weight_clip: tuple[float, float] = (1e-4, 1.0), weight_readout: str = "exact",
) -> tuple[torch.Tensor, torch.Tensor]:
    """(eps, grad_z log clip(w0)), both [M, D]; the gradient is zero outside the clip and where it is NaN."""
    steps = torch.full((z.shape[0],), t, dtype=torch.int64, device=z.device)
    with torch.enable_grad():
        z = z.detach().requires_grad_(True)
        eps = network(z, states, steps)
        weight = predicted_weight(z, eps, schedule, t, weight_readout).clamp(*weight_clip)
        (gradient,) = torch.autograd.grad(weight.log().sum(), z)
    return eps.detach(), torch.nan_to_num(gradient, nan=0.0, posinf=None, neginf=None)
