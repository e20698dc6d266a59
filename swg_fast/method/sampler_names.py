"""The samplers by name, and what each can do. Nothing here needs torch: the command line's help uses it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SamplerKind:
    """What a sampler can do: walk ``fewer_steps`` than were trained, and draw noise after the first."""

    fewer_steps: bool
    stochastic: bool


# A sampler is its line here and the function of that name in `method.samplers`, which makes its table.
SAMPLERS = {
    "ddpm": SamplerKind(fewer_steps=False, stochastic=True),
    "ddpm_x0": SamplerKind(fewer_steps=False, stochastic=True),
    "ddim": SamplerKind(fewer_steps=True, stochastic=False),
    "dpmpp_2m": SamplerKind(fewer_steps=True, stochastic=False),
    "dpmpp_2m_sde": SamplerKind(fewer_steps=True, stochastic=True),
}
READOUTS = ("exact", "official")  # of the predicted weight: see `method.samplers`
WEIGHT_CLIP = (1e-4, 1.0)
