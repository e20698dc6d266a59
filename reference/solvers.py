"""Solvers that take fewer than the trained steps, each as in its paper.

With a = sqrt(alphas_cumprod), s = sqrt(1 - alphas_cumprod) and lambda = log(a / s) of a step.
"""

from __future__ import annotations

import math
from typing import Any

import torch

SOLVERS = ("ddim", "dpmpp_2m", "dpmpp_2m_sde")


def spaced_steps(trained: int, count: int) -> list[int]:
    """``count`` of the steps trained-1 .. 0 in falling order, evenly spaced with both ends (halves round
    up); one step alone is trained-1."""
    if count == 1:
        return [trained - 1]
    return [math.floor((trained - 1) * (count - 1 - i) / (count - 1) + 0.5) for i in range(count)]


def solver_step(sampler: str, schedule: Any, z: torch.Tensor, clean: torch.Tensor, t: int, to: int,
                noise: torch.Tensor, temperature: float,
                last: tuple[int, torch.Tensor] | None = None) -> torch.Tensor:
    """z at step ``to`` < t (-1: the clean sample) from z [M, D] at step t and its predicted clean sample.
    ``last`` is the previous step and its predicted clean sample.

    Raises `ValueError` for an unknown sampler.
    """
    if to < 0:
        return clean
    a, s, lam = _scales(schedule, t)
    a_to, s_to, lam_to = _scales(schedule, to)
    if sampler == "ddim":
        return a_to * clean + s_to * (z - a * clean) / s
    h = lam_to - lam
    if last is None:
        d = clean
    else:
        r = (lam - _scales(schedule, last[0])[2]) / h
        d = (1 + 1 / (2 * r)) * clean - last[1] / (2 * r)
    if sampler == "dpmpp_2m":
        return s_to / s * z - a_to * (math.exp(-h) - 1) * d
    if sampler == "dpmpp_2m_sde":
        spread = math.sqrt(1 - math.exp(-2 * h))
        return (s_to / s * math.exp(-h) * z + a_to * (1 - math.exp(-2 * h)) * d
                + s_to * spread * temperature * noise)
    raise ValueError(f"sampler must be one of {', '.join(SOLVERS)}, got {sampler!r}")


def _scales(schedule: Any, t: int) -> tuple[float, float, float]:
    bar = float(schedule.alphas_cumprod[t])
    a, s = math.sqrt(bar), math.sqrt(1 - bar)
    return a, s, math.log(a / s)
