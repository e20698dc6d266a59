"""Backend ``reference``: Algorithm 2 by autograd, as `reference/` writes it."""

from __future__ import annotations

import copy

import torch

from swg_fast import reference
from swg_fast.policy.backends.job import Candidates, SamplingJob
from swg_fast.policy.backends.streaming import NOISE_BYTES, Backend
from swg_fast.policy.model import Model


class ReferenceBackend(Backend):
    name = "reference"
    dtypes = ("fp32", "fp64")

    def __init__(self, model: Model, dtype: str, device: torch.device) -> None:
        super().__init__(model, dtype, device)
        self.type = torch.float64 if dtype == "fp64" else torch.float32
        self.network = copy.deepcopy(model.network).double() if dtype == "fp64" else model.network

    def bytes_each(self, job: SamplingJob) -> int:
        draws = job.plan.ranking.draws if job.plan.ranking is not None else 0
        return super().bytes_each(job) + draws * job.plan.latent_dim * NOISE_BYTES

    def candidates(self, job: SamplingJob, states: slice, first: int, count: int) -> Candidates:
        words = job.words(states, torch.arange(first, first + count, device=self.device))
        noise = reference.Noise(*(part.to(self.type) for part in job.reference_noise(words)))
        rows = job.states[states][words.owners].to(self.type)
        path = reference.sample(self.network, self.model.schedule, rows, noise, return_trajectory=True,
                                **job.reference_settings())
        expected, r = None, job.plan.ranking
        if r is not None:
            expected = reference.expected_weight(
                self.network, self.model.schedule, rows, path.final[:, :-1],
                job.noise(words, r.words).to(self.type), r.step, r.mean)
        if job.plan.expects == "read":
            T = self.model.schedule.num_steps
            expected = reference.read_weight(self.network, rows, path.final[:, :-1], T)
        return Candidates(*(None if part is None else part.float().unflatten(0, (-1, count))
                            for part in (path.final, path.weight, expected)))
