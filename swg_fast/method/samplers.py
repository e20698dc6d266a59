"""Samplers, each a table of coefficients (see `kernels.shared.sampler_table.SamplerTable`).

To add one: write a function here that returns its table, and give it a line of its name in
`method.sampler_names`.
"""

from __future__ import annotations

import math

import torch

from swg_fast.common.errors import UsageError
from swg_fast.kernels.shared.sampler_table import COLUMNS, SamplerTable
from swg_fast.method.sampler_names import READOUTS, SAMPLERS, WEIGHT_CLIP
from swg_fast.method.schedule import NoiseSchedule

Columns = dict[str, torch.Tensor]


def evenly_spaced(trained: int, count: int | None) -> tuple[int, ...]:
    """``count`` of the steps 0..trained-1 in rising order, both ends among them; one step alone is
    the last. None takes all."""
    if count is None:
        return tuple(range(trained))
    if not 1 <= count <= trained:
        raise UsageError(f"sampler_steps must be in 1..{trained}, the steps that this policy was trained "
                         f"on; got {count}")
    if count == 1:
        return (trained - 1,)
    return tuple((2 * i * (trained - 1) + count - 1) // (2 * (count - 1)) for i in range(count))


def _columns(schedule: NoiseSchedule, steps: tuple[int, ...], guidance_scale: float,
             weight_readout: str) -> Columns:
    """The columns that every sampler shares; the rest are zero."""
    at = torch.tensor(steps, device="cpu")
    bars, sigmas = schedule.alphas_cumprod[at], schedule.sigmas[at]
    columns = {name: torch.zeros_like(sigmas) for name in COLUMNS}
    columns["sigma"] = sigmas
    columns["readout"] = (bars if weight_readout == "exact" else schedule.alphas[at]).rsqrt()
    columns["guidance"] = guidance_scale * sigmas
    columns["clean_scale"] = bars.rsqrt()
    return columns


def ddpm(schedule: NoiseSchedule, guidance_scale: float, temperature: float,
         weight_readout: str = "exact", weight_clip: tuple[float, float] = WEIGHT_CLIP,
         clip_denoised: bool = True) -> SamplerTable:
    """Algorithm 2 as the paper and the authors' JAX code have it: the state is clipped, the noise
    has variance beta."""
    steps = evenly_spaced(schedule.num_steps, None)
    columns = _columns(schedule, steps, guidance_scale, weight_readout)
    columns["state"] = schedule.alphas.rsqrt()
    columns["epsilon"] = -schedule.betas / schedule.sigmas * schedule.alphas.rsqrt()
    columns["noise"] = temperature * schedule.betas.sqrt()
    return _table(schedule, steps, columns, temperature, weight_clip, guidance_scale,
                  clip_state=clip_denoised)


def ddpm_x0(schedule: NoiseSchedule, guidance_scale: float, temperature: float,
            weight_readout: str = "exact", weight_clip: tuple[float, float] = WEIGHT_CLIP,
            clip_denoised: bool = True) -> SamplerTable:
    """The authors' PyTorch variant: the predicted clean sample is clipped, and the DDPM posterior's
    mean and variance follow from it (Ho et al. 2020, eq. 7)."""
    steps = evenly_spaced(schedule.num_steps, None)
    bars = schedule.alphas_cumprod
    previous = torch.cat([torch.ones(1, dtype=bars.dtype, device="cpu"), bars[:-1]])
    columns = _columns(schedule, steps, guidance_scale, weight_readout)
    columns["state"] = schedule.alphas.sqrt() * (1 - previous) / (1 - bars)
    columns["clean"] = previous.sqrt() * schedule.betas / (1 - bars)
    columns["noise"] = temperature * (schedule.betas * (1 - previous) / (1 - bars)).sqrt()
    return _table(schedule, steps, columns, temperature, weight_clip, guidance_scale,
                  clip_clean=clip_denoised)


def ddim(schedule: NoiseSchedule, guidance_scale: float, temperature: float,
         weight_readout: str = "exact", weight_clip: tuple[float, float] = WEIGHT_CLIP,
         clip_denoised: bool = True, sampler_steps: int | None = None) -> SamplerTable:
    """Denoising diffusion implicit models (Song et al. 2021, eq. 12, eta 0): z follows the clean
    sample, whose clip its direction takes part in."""
    steps = evenly_spaced(schedule.num_steps, sampler_steps)
    columns = _columns(schedule, steps, guidance_scale, weight_readout)
    a, s = (1 - columns["sigma"] ** 2).sqrt(), columns["sigma"]
    columns["state"][1:] = s[:-1] / s[1:]
    columns["clean"][1:] = a[:-1] - a[1:] * s[:-1] / s[1:]
    columns["clean"][0] = 1.0  # the last step is the clean sample itself
    return _table(schedule, steps, columns, temperature, weight_clip, guidance_scale,
                  clip_clean=clip_denoised)


def dpmpp_2m(schedule: NoiseSchedule, guidance_scale: float, temperature: float,
             weight_readout: str = "exact", weight_clip: tuple[float, float] = WEIGHT_CLIP,
             clip_denoised: bool = True, sampler_steps: int | None = None) -> SamplerTable:
    """DPM-Solver++ of order 2, multistep, data prediction (Lu et al. 2022, algorithm 2)."""
    return _second_order(schedule, sampler_steps, guidance_scale, temperature, weight_readout,
                         weight_clip, clip_denoised, stochastic=False)


def dpmpp_2m_sde(schedule: NoiseSchedule, guidance_scale: float, temperature: float,
                 weight_readout: str = "exact", weight_clip: tuple[float, float] = WEIGHT_CLIP,
                 clip_denoised: bool = True, sampler_steps: int | None = None) -> SamplerTable:
    """SDE-DPM-Solver++ of order 2, multistep (Lu et al. 2022, appendix B): `dpmpp_2m` with fresh
    noise at every step but the last."""
    return _second_order(schedule, sampler_steps, guidance_scale, temperature, weight_readout,
                         weight_clip, clip_denoised, stochastic=True)


def _second_order(schedule: NoiseSchedule, sampler_steps: int | None, guidance_scale: float,
                  temperature: float, weight_readout: str, weight_clip: tuple[float, float],
                  clip_denoised: bool, stochastic: bool) -> SamplerTable:
    steps = evenly_spaced(schedule.num_steps, sampler_steps)
    columns = _columns(schedule, steps, guidance_scale, weight_readout)
    s = columns["sigma"].tolist()
    a = [math.sqrt(1 - sigma**2) for sigma in s]
    h_before = None
    for j in range(len(steps) - 1, 0, -1):
        h = math.log(a[j - 1] / s[j - 1]) - math.log(a[j] / s[j])  # half the log-SNR gained
        order = 2 * h if stochastic else h
        gain = -a[j - 1] * math.expm1(-order)
        ahead = 0.0 if h_before is None else h / (2 * h_before)  # 1 / (2 r)
        columns["state"][j] = s[j - 1] / s[j] * (math.exp(-h) if stochastic else 1.0)
        columns["clean"][j] = gain * (1 + ahead)
        columns["previous"][j] = -gain * ahead
        if stochastic:
            columns["noise"][j] = temperature * s[j - 1] * math.sqrt(-math.expm1(-2 * h))
        h_before = h
    columns["clean"][0] = 1.0
    return _table(schedule, steps, columns, temperature, weight_clip, guidance_scale,
                  clip_clean=clip_denoised)


def sampler_table(name: str, schedule: NoiseSchedule, sampler_steps: int | None = None,
                  **settings: object) -> SamplerTable:
    """The table of sampler ``name`` in ``sampler_steps`` steps (None: all that were trained).

    Raises `UsageError` for an unknown name or read-out, more steps than were trained, or fewer with
    a sampler that needs all.
    """
    if name not in SAMPLERS:
        raise UsageError(f"unknown sampler {name!r}; use one of {', '.join(SAMPLERS)}")
    if settings.get("weight_readout", "exact") not in READOUTS:
        raise UsageError(f"unknown weight read-out {settings['weight_readout']!r}; "
                         f"use one of {', '.join(READOUTS)}")
    if SAMPLERS[name].fewer_steps:
        settings["sampler_steps"] = sampler_steps
    elif sampler_steps not in (None, schedule.num_steps):
        solvers = [other for other, kind in SAMPLERS.items() if kind.fewer_steps]
        raise UsageError(f"sampler {name!r} walks all {schedule.num_steps} trained steps and not "
                         f"{sampler_steps}; use one of {', '.join(solvers)} for fewer")
    return globals()[name](schedule, **settings)  # the function of that name in this file


def _table(schedule: NoiseSchedule, steps: tuple[int, ...], columns: Columns, temperature: float,
           weight_clip: tuple[float, float], guidance_scale: float, clip_state: bool = False,
           clip_clean: bool = False) -> SamplerTable:
    low, high = weight_clip
    if not 0.0 < low < high:
        raise UsageError(f"weight_clip needs 0 < low < high, got {low}, {high}")
    columns["noise"][0] = 0.0  # no noise after the last step
    return SamplerTable(torch.stack([columns[name] for name in COLUMNS], dim=1), steps,
                        schedule.num_steps, temperature, (float(low), float(high)), clip_state,
                        clip_clean, guidance_scale != 0)
