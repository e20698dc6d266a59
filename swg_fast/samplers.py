"""Samplers, each a table of coefficients (see `kernels.shared.table.SamplerTable`).

To add one: write a function that returns its table and give it a line in `SAMPLERS`.
"""

from __future__ import annotations

import torch

from swg_fast.errors import UsageError
from swg_fast.kernels.shared.table import COLUMNS, SamplerTable
from swg_fast.schedule import NoiseSchedule

WEIGHT_CLIP = (1e-4, 1.0)
READOUTS = ("exact", "official")


def _columns(schedule: NoiseSchedule, guidance_scale: float, weight_readout: str
             ) -> dict[str, torch.Tensor]:
    """The columns that every sampler shares; the rest are zero."""
    bars, sigmas = schedule.alphas_cumprod, schedule.sigmas
    columns = {name: torch.zeros_like(sigmas) for name in COLUMNS}
    columns["sigma"] = sigmas
    columns["readout"] = (bars if weight_readout == "exact" else schedule.alphas).rsqrt()
    columns["guidance"] = guidance_scale * sigmas
    columns["clean_scale"] = bars.rsqrt()
    return columns


def ddpm(schedule: NoiseSchedule, guidance_scale: float, temperature: float,
         weight_readout: str = "exact", weight_clip: tuple[float, float] = WEIGHT_CLIP,
         clip_denoised: bool = True) -> SamplerTable:
    """Algorithm 2 as the paper and the authors' JAX code have it: the state is clipped, the noise
    has variance beta."""
    columns = _columns(schedule, guidance_scale, weight_readout)
    columns["state"] = schedule.alphas.rsqrt()
    columns["epsilon"] = -schedule.betas / schedule.sigmas * schedule.alphas.rsqrt()
    columns["noise"] = temperature * schedule.betas.sqrt()
    return _table(columns, temperature, weight_clip, guidance_scale, clip_state=clip_denoised)


def ddpm_x0(schedule: NoiseSchedule, guidance_scale: float, temperature: float,
            weight_readout: str = "exact", weight_clip: tuple[float, float] = WEIGHT_CLIP,
            clip_denoised: bool = True) -> SamplerTable:
    """The authors' PyTorch variant: the predicted clean sample is clipped, and the DDPM posterior's
    mean and variance follow from it (Ho et al. 2020, eq. 7)."""
    bars = schedule.alphas_cumprod
    previous = torch.cat([torch.ones(1, dtype=bars.dtype), bars[:-1]])
    columns = _columns(schedule, guidance_scale, weight_readout)
    columns["state"] = schedule.alphas.sqrt() * (1 - previous) / (1 - bars)
    columns["clean"] = previous.sqrt() * schedule.betas / (1 - bars)
    columns["noise"] = temperature * (schedule.betas * (1 - previous) / (1 - bars)).sqrt()
    return _table(columns, temperature, weight_clip, guidance_scale, clip_clean=clip_denoised)


SAMPLERS = {"ddpm": ddpm, "ddpm_x0": ddpm_x0}


def sampler_table(name: str, schedule: NoiseSchedule, **settings: object) -> SamplerTable:
    """The table of sampler ``name``; `UsageError` for an unknown name or read-out."""
    if name not in SAMPLERS:
        raise UsageError(f"unknown sampler {name!r}; use one of {', '.join(SAMPLERS)}")
    if settings.get("weight_readout", "exact") not in READOUTS:
        raise UsageError(f"unknown weight read-out {settings['weight_readout']!r}; "
                         f"use one of {', '.join(READOUTS)}")
    return SAMPLERS[name](schedule, **settings)  # type: ignore[arg-type]


def _table(columns: dict[str, torch.Tensor], temperature: float, weight_clip: tuple[float, float],
           guidance_scale: float, clip_state: bool = False, clip_clean: bool = False) -> SamplerTable:
    low, high = weight_clip
    if not 0.0 < low < high:
        raise UsageError(f"weight_clip needs 0 < low < high, got {low}, {high}")
    columns["noise"][0] = 0.0  # no noise after the last step
    return SamplerTable(torch.stack([columns[name] for name in COLUMNS], dim=1), temperature,
                        (float(low), float(high)), clip_state, clip_clean, guidance_scale != 0)
