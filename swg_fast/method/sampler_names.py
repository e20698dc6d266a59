"""The samplers by name, and their abilities. Imports no torch, since the command line's help reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SamplerKind:
    """A sampler's abilities: to walk ``fewer_steps`` than were trained, and to draw noise at later steps."""

    fewer_steps: bool
    stochastic: bool


# A sampler is a line here and a function of the same name in `method.samplers`, which makes its table.
SAMPLERS = {
    "ddpm": SamplerKind(fewer_steps=False, stochastic=True),
    "ddpm_x0": SamplerKind(fewer_steps=False, stochastic=True),
    "ddim": SamplerKind(fewer_steps=True, stochastic=False),
    "dpmpp_2m": SamplerKind(fewer_steps=True, stochastic=False),
    "dpmpp_2m_sde": SamplerKind(fewer_steps=True, stochastic=True),
}
STUDENT = "student"  # instead of a sampler: the calls of a policy's student (`method.student`)
READOUTS = ("exact", "official")  # of the predicted weight: see `method.samplers`
WEIGHT_CLIP = (1e-4, 1.0)
