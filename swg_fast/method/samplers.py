"""Samplers, each a table of coefficients (see `kernels.shared.sampler_table.SamplerTable`).

To add one, write a function here that returns its table, and add a line with its name to
`method.sampler_names`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from swg_fast.common.checks import choice
from swg_fast.common.errors import UsageError
from swg_fast.kernels.shared.sampler_table import COLUMNS, SamplerTable
from swg_fast.method.sampler_names import READOUTS, SAMPLERS, WEIGHT_CLIP
from swg_fast.method.schedule import NoiseSchedule

Columns = dict[str, torch.Tensor]


def evenly_spaced(trained: int, count: int | None) -> tuple[int, ...]:
    """``count`` (None: all) of the steps 0..trained-1, rising, with both ends; a single step is the last."""
    if count is None:
        return tuple(range(trained))
    if not 1 <= count <= trained:
        raise UsageError(f"sampler_steps must be in 1..{trained}, the steps that this policy was trained "
                         f"on; got {count}")
    if count == 1:
        return (trained - 1,)
    return tuple((2 * i * (trained - 1) + count - 1) // (2 * (count - 1)) for i in range(count))


@dataclass(frozen=True)
class Walk:
    """The inputs of a sampler's table: the trained ``steps`` that it walks, in rising order, and settings.

    guidance_interval: the lowest and the highest guided step; None: all are (limited-interval guidance,
    Kynkäänniemi et al. 2024, arXiv 2404.07724).
    """

    schedule: NoiseSchedule
    steps: tuple[int, ...]
    guidance_scale: float
    temperature: float
    weight_readout: str = "exact"
    weight_clip: tuple[float, float] = WEIGHT_CLIP
    clip_denoised: bool = True
    guidance_interval: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """`UsageError` for an interval that is empty, beyond the trained steps, or between the walk's."""
        if self.guidance_interval is None:
            return
        (low, high), last = self.guidance_interval, self.schedule.num_steps - 1
        what = f"guidance_interval={low}, {high}"
        if not 0 <= low <= high <= last:
            raise UsageError(f"{what}: give the lowest guided step, then the highest, both in 0..{last}")
        if not any(low <= step <= high for step in self.steps):
            raise UsageError(f"{what} has none of the steps that are walked, "
                             f"{', '.join(map(str, self.steps))}; give a wider interval, or guidance_scale=0")

    def columns(self) -> Columns:
        """The columns that every sampler shares; the rest are zero."""
        at = torch.tensor(self.steps, device="cpu")
        bars, sigmas = self.schedule.alphas_cumprod[at], self.schedule.sigmas[at]
        columns = {name: torch.zeros_like(sigmas) for name in COLUMNS}
        columns["sigma"] = sigmas
        columns["readout"] = (bars if self.weight_readout == "exact" else self.schedule.alphas[at]).rsqrt()
        low, high = self.guidance_interval or (0, self.schedule.num_steps)
        columns["guidance"] = self.guidance_scale * sigmas * ((at >= low) & (at <= high))
        columns["clean_scale"] = bars.rsqrt()
        return columns

    def table(self, columns: Columns, clips: str) -> SamplerTable:
        """The table of these columns, which clips the "state" or the "clean" sample."""
        columns["noise"][0] = 0.0  # no noise after the last step
        low, high = self.weight_clip
        return SamplerTable(
            torch.stack([columns[name] for name in COLUMNS], dim=1), self.steps, self.schedule.num_steps,
            self.temperature, (float(low), float(high)), self.clip_denoised and clips == "state",
            self.clip_denoised and clips == "clean", self.guidance_scale != 0)


def ddpm(walk: Walk) -> SamplerTable:
    """Algorithm 2 as in the paper and the authors' JAX code: clips the state; the noise has variance beta."""
    schedule, columns = walk.schedule, walk.columns()
    columns["state"] = schedule.alphas.rsqrt()
    columns["epsilon"] = -schedule.betas / schedule.sigmas * schedule.alphas.rsqrt()
    columns["noise"] = walk.temperature * schedule.betas.sqrt()
    return walk.table(columns, "state")


def ddpm_x0(walk: Walk) -> SamplerTable:
    """The authors' PyTorch variant: the predicted clean sample is clipped, and the DDPM posterior's
    mean and variance follow from it (Ho et al. 2020, eq. 7)."""
    schedule, columns = walk.schedule, walk.columns()
    bars = schedule.alphas_cumprod
    previous = torch.cat([torch.ones(1, dtype=bars.dtype, device="cpu"), bars[:-1]])
    columns["state"] = schedule.alphas.sqrt() * (1 - previous) / (1 - bars)
    columns["clean"] = previous.sqrt() * schedule.betas / (1 - bars)
    columns["noise"] = walk.temperature * (schedule.betas * (1 - previous) / (1 - bars)).sqrt()
    return walk.table(columns, "clean")


def ddim(walk: Walk) -> SamplerTable:
    """Denoising diffusion implicit models (Song et al. 2021, eq. 12, eta 0): z follows the clean
    sample; its clip changes the direction too."""
    columns = walk.columns()
    a, s = (1 - columns["sigma"] ** 2).sqrt(), columns["sigma"]
    columns["state"][1:] = s[:-1] / s[1:]
    columns["clean"][1:] = a[:-1] - a[1:] * s[:-1] / s[1:]
    columns["clean"][0] = 1.0  # the last step is the clean sample itself
    return walk.table(columns, "clean")


def dpmpp_2m(walk: Walk) -> SamplerTable:
    """DPM-Solver++ of order 2, multistep, data prediction (Lu et al. 2022, algorithm 2)."""
    return _second_order(walk, stochastic=False)


def dpmpp_2m_sde(walk: Walk) -> SamplerTable:
    """SDE-DPM-Solver++ of order 2, multistep (Lu et al. 2022, appendix B): `dpmpp_2m` with fresh
    noise at every step but the last."""
    return _second_order(walk, stochastic=True)


def _second_order(walk: Walk, stochastic: bool) -> SamplerTable:
    columns = walk.columns()
    s = columns["sigma"].tolist()
    a = [math.sqrt(1 - sigma**2) for sigma in s]
    h_before = None
    for j in range(len(walk.steps) - 1, 0, -1):
        h = math.log(a[j - 1] / s[j - 1]) - math.log(a[j] / s[j])  # half the log-SNR gained
        order = 2 * h if stochastic else h
        gain = -a[j - 1] * math.expm1(-order)
        ahead = 0.0 if h_before is None else h / (2 * h_before)  # 1 / (2 r)
        columns["state"][j] = s[j - 1] / s[j] * (math.exp(-h) if stochastic else 1.0)
        columns["clean"][j] = gain * (1 + ahead)
        columns["previous"][j] = -gain * ahead
        if stochastic:
            columns["noise"][j] = walk.temperature * s[j - 1] * math.sqrt(-math.expm1(-2 * h))
        h_before = h
    columns["clean"][0] = 1.0
    return walk.table(columns, "clean")


def sampler_table(name: str, schedule: NoiseSchedule, sampler_steps: int | None = None,
                  **settings: Any) -> SamplerTable:
    """The table of sampler ``name`` in ``sampler_steps`` steps (None: all trained ones), with the settings of
    `Walk`.

    Raises `UsageError` for an unknown name or read-out, more steps than were trained, fewer steps if the
    sampler needs all, a weight_clip that is not 0 < low < high, and a guidance interval without a step.
    """
    kind = SAMPLERS[choice("sampler", name, SAMPLERS)]
    if not kind.fewer_steps and sampler_steps not in (None, schedule.num_steps):
        solvers = [other for other, found in SAMPLERS.items() if found.fewer_steps]
        raise UsageError(f"sampler {name!r} walks all {schedule.num_steps} trained steps and not "
                         f"{sampler_steps}; use one of {', '.join(solvers)} for fewer")
    walk = Walk(schedule, evenly_spaced(schedule.num_steps, sampler_steps), **settings)
    choice("weight read-out", walk.weight_readout, READOUTS)
    low, high = walk.weight_clip
    if not 0.0 < low < high:
        raise UsageError(f"weight_clip needs 0 < low < high, got {low}, {high}")
    return globals()[name](walk)  # the function of that name in this file
