"""Self-weighted guided sampling (SWG, Algorithm 2)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from swg_fast.reference.guidance import log_weight_gradient
from swg_fast.reference.solvers import SOLVERS, solver_step, spaced_steps


class Noise(NamedTuple):
    """Standard normal draws for M rows, before temperature: ``initial`` [M, D], and ``steps``
    [n, M, D] in the order of sampling (``steps[0]`` belongs to step T-1)."""

    initial: torch.Tensor
    steps: torch.Tensor


class Settings(NamedTuple):
    """The settings of every step: guidance scale rho, temperature of the noise, range of the weight,
    ``weight_readout`` (see `guidance.readout_scale`), whether samples are clipped, the sampler, and the
    ``guidance_interval``, the lowest and the highest guided step (None: all; Kynkäänniemi et al. 2024).

    ``ddpm`` is Algorithm 2. ``ddpm_x0`` clips the predicted clean sample instead of the state and takes the
    DDPM posterior's mean and variance, as the authors' PyTorch code does. `solvers` has the others.
    """

    guidance_scale: float
    temperature: float
    weight_clip: tuple[float, float] = (1e-4, 1.0)
    weight_readout: str = "exact"
    clip_denoised: bool = True
    sampler: str = "ddpm"
    guidance_interval: tuple[int, int] | None = None


class Step(NamedTuple):
    """One step's results: the next state, the unguided noise and the log-weight's gradient, all [M, D];
    ``weight`` [M], the next state's unclipped last entry; and the predicted clean sample [M, D], clipped if
    the sampler clips it."""

    z: torch.Tensor
    eps: torch.Tensor
    grad_log_weight: torch.Tensor
    weight: torch.Tensor
    clean: torch.Tensor


class Trajectory(NamedTuple):
    """All steps in the order of sampling: z [n+1, M, D], eps and grad_log_weight [n, M, D],
    final [M, D], and ``weight`` [M], the last step's unclipped weight, which ranks candidates."""

    z: torch.Tensor
    eps: torch.Tensor
    grad_log_weight: torch.Tensor
    final: torch.Tensor
    weight: torch.Tensor


def clip(z: torch.Tensor, weight_clip: tuple[float, float]) -> torch.Tensor:
    """Actions to [-1, 1], the weight to ``weight_clip``."""
    return torch.cat([z[:, :-1].clamp(-1.0, 1.0), z[:, -1:].clamp(*weight_clip)], dim=1)


@torch.no_grad()
def guided_step(network: Any, schedule: Any, states: torch.Tensor, z: torch.Tensor, t: int,
                noise: torch.Tensor, *, gradient: bool = True, to: int | None = None,
                last: tuple[int, torch.Tensor] | None = None, **settings: Any) -> Step:
    """z_t -> z_{t-1} for z, noise [M, D], states [M, S] and the integer step t.

    ``settings`` are the fields of `Settings`. Solvers go to the step ``to`` (-1: the clean sample); ``last``
    is the previous step and its clean sample. The gradient of an unguided step has no effect, and is only
    computed where ``gradient`` asks for it. Raises `ValueError` for an unknown sampler.
    """
    how = Settings(**settings)
    alpha, beta = float(schedule.alphas[t]), float(schedule.betas[t])
    bar, sigma = float(schedule.alphas_cumprod[t]), float(schedule.sigmas[t])
    to = t - 1 if to is None else to
    low, high = how.guidance_interval or (0, schedule.num_steps)
    scale = how.guidance_scale if low <= t <= high else 0.0
    if gradient or scale != 0:
        eps, grad_log_weight = log_weight_gradient(
            network, schedule, states, z, t, weight_clip=how.weight_clip, weight_readout=how.weight_readout)
    else:
        eps = network(z, states, torch.full((z.shape[0],), t, dtype=torch.int64, device=z.device))
        grad_log_weight = torch.zeros_like(eps)
    guided = eps - scale * sigma * grad_log_weight
    raw = (z - sigma * guided) / bar**0.5
    clean = clip(raw, how.weight_clip) if how.clip_denoised and how.sampler != "ddpm" else raw

    def move(clean: torch.Tensor) -> torch.Tensor:
        if how.sampler in SOLVERS:
            return solver_step(how.sampler, schedule, z, clean, t, to, noise, how.temperature, last)
        if how.sampler == "ddpm":
            mean, variance = (z - (1.0 - alpha) / sigma * guided) / alpha**0.5, beta
        elif how.sampler == "ddpm_x0":
            previous = float(schedule.alphas_cumprod[t - 1]) if t > 0 else 1.0
            mean = (previous**0.5 * beta * clean + alpha**0.5 * (1.0 - previous) * z) / (1.0 - bar)
            variance = beta * (1.0 - previous) / (1.0 - bar)
        else:
            raise ValueError(f"sampler must be 'ddpm', 'ddpm_x0' or one of {', '.join(SOLVERS)}, "
                             f"got {how.sampler!r}")
        return mean + variance**0.5 * how.temperature * noise if t > 0 else mean

    weight = move(raw)[:, -1].clone()  # unclipped: clipped weights would tie
    z = move(clean)
    if how.clip_denoised and how.sampler == "ddpm":
        z = clip(z, how.weight_clip)
    return Step(z, eps, grad_log_weight, weight, clean)


def sample(network: Any, schedule: Any, states: torch.Tensor, noise: Noise | Mapping[str, torch.Tensor], *,
           sampler_steps: int | None = None, return_trajectory: bool = False, **settings: Any
           ) -> torch.Tensor | Trajectory:
    """Draws z_0 = [action, weight], [M, D], for each row of states [M, S].

    ``noise`` is a `Noise` or a mapping with its two fields; ``settings`` are the fields of `Settings`.
    Solvers may take only ``sampler_steps`` of the trained steps. ``return_trajectory`` adds all steps.
    """
    if isinstance(noise, Mapping):
        noise = Noise(noise["initial"], noise["steps"])
    z, last = Settings(**settings).temperature * noise.initial, None
    trajectory = [z]
    steps = []
    walked = [*spaced_steps(schedule.num_steps, sampler_steps or schedule.num_steps), -1]
    for i, (t, to) in enumerate(pairwise(walked)):
        step = guided_step(network, schedule, states, z, t, noise.steps[i], gradient=return_trajectory, to=to,
                           last=last, **settings)
        z, last = step.z, (t, step.clean)
        if return_trajectory:
            trajectory.append(z)
            steps.append(step)
    if not return_trajectory:
        return z
    return Trajectory(torch.stack(trajectory), torch.stack([s.eps for s in steps]),
                      torch.stack([s.grad_log_weight for s in steps]), z, step.weight)
