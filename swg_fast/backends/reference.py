"""Backend ``reference``: Algorithm 2 by autograd, as `reference/` writes it."""

from __future__ import annotations

import torch

from swg_fast import reference
from swg_fast.backends.base import Backend, Model, SamplingJob, counters, draw_noise


class ReferenceBackend(Backend):
    name = "reference"
    dtypes = ("fp32", "fp64")

    def __init__(self, model: Model, dtype: str, device: torch.device) -> None:
        super().__init__(model, dtype, device)
        self.type = torch.float64 if dtype == "fp64" else torch.float32
        self.network = model.network
        if dtype == "fp64":
            import copy

            self.network = copy.deepcopy(model.network).double()

    def candidates(self, job: SamplingJob, rows: slice, first: int, count: int
                   ) -> tuple[torch.Tensor, torch.Tensor]:
        words = (part.reshape(-1) for part in counters(job, rows, first, count))
        initial, steps = draw_noise(job, *words)
        states = job.states[rows].repeat_interleave(count, dim=0)
        noise = reference.Noise(initial.to(self.type), steps.flip(0).to(self.type))
        settings = {k: v for k, v in job.settings.items() if k != "latent_dim"}
        path = reference.sample(self.network, self.model.schedule, states.to(self.type), noise,
                                sampler=job.sampler, return_trajectory=True, **settings)
        shape = (-1, count)
        return path.final.float().unflatten(0, shape), path.weight.float().unflatten(0, shape)
