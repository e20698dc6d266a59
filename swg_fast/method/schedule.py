"""Noise schedules: betas, alphas and their cumulative product (SWG, section 5; DDPM)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from swg_fast.common.checks import choice, text, whole
from swg_fast.common.errors import UsageError
from swg_fast.common.inputs import real_tensor

MAX_STEPS = 10_000  # T; the noise of every step is held for every candidate


@dataclass(frozen=True)
class NoiseSchedule:
    """A discrete variance schedule of ``T`` steps.

    ``betas``, ``alphas`` and ``alphas_cumprod`` are float64 tensors of shape [T], entry ``t`` for the integer
    step ``t`` in 0..T-1. float64 makes every derived table exact in the type that it is later cast to.
    """

    name: str
    betas: torch.Tensor

    def __post_init__(self) -> None:
        betas = real_tensor("betas", self.betas).to("cpu", torch.float64)
        if betas.ndim != 1 or not 1 <= betas.numel() <= MAX_STEPS:
            raise UsageError(f"a noise schedule needs betas of shape [T], T in 1..{MAX_STEPS}, got "
                             f"{list(betas.shape)}")
        if not bool(((betas > 0) & (betas < 1)).all()):
            raise UsageError("every beta of a noise schedule must lie strictly between 0 and 1")
        text("the name of a noise schedule", self.name)
        object.__setattr__(self, "betas", betas)

    @property
    def num_steps(self) -> int:
        return self.betas.numel()

    @property
    def alphas(self) -> torch.Tensor:
        return 1.0 - self.betas

    @property
    def alphas_cumprod(self) -> torch.Tensor:
        return torch.cumprod(self.alphas, dim=0)

    @property
    def sigmas(self) -> torch.Tensor:
        """Standard deviation of the noise in z_t: sqrt(1 - alphas_cumprod), shape [T]."""
        return torch.sqrt(1.0 - self.alphas_cumprod)

    @classmethod
    def vp(cls, num_steps: int) -> NoiseSchedule:
        """Variance-preserving SDE discretised in ``num_steps`` steps, beta from 0.1 to 10."""
        k = _steps(num_steps)
        T = len(k)
        alphas = torch.exp(-0.1 / T - 0.5 * 9.9 * (2 * k - 1) / T**2)
        return cls("vp", 1.0 - alphas)

    @classmethod
    def cosine(cls, num_steps: int) -> NoiseSchedule:
        """Squared-cosine schedule (Nichol & Dhariwal, eq. 17) with offset 0.008, beta <= 0.999."""
        steps = torch.cat([torch.zeros(1, dtype=torch.float64, device="cpu"), _steps(num_steps)])
        steps /= len(steps) - 1
        bar = torch.cos((steps + 0.008) / 1.008 * (math.pi / 2)) ** 2
        return cls("cosine", (1.0 - bar[1:] / bar[:-1]).clamp(0.0, 0.999))

    @classmethod
    def linear(cls, num_steps: int) -> NoiseSchedule:
        """Betas evenly spaced from 1e-4 to 2e-2."""
        T = len(_steps(num_steps))
        return cls("linear", torch.linspace(1e-4, 2e-2, T, dtype=torch.float64, device="cpu"))

    @classmethod
    def by_name(cls, name: str, num_steps: int) -> NoiseSchedule:
        """Schedule ``vp``, ``cosine`` or ``linear``; `UsageError` for another name."""
        return getattr(cls, choice("schedule", name, SCHEDULES))(num_steps)


SCHEDULES = ("vp", "cosine", "linear")


def _steps(num_steps: int) -> torch.Tensor:
    return torch.arange(1, whole("num_steps", num_steps, 1, MAX_STEPS) + 1, dtype=torch.float64, device="cpu")
