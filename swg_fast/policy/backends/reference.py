"""Backend ``reference``: Algorithm 2 by autograd, as `reference/` writes it."""

from __future__ import annotations

import copy

import torch

from swg_fast import reference
from swg_fast.kernels.shared.sampler_table import Ranking, Words
from swg_fast.policy.backends.job import Candidates, SamplingJob
from swg_fast.policy.backends.streaming import NOISE_BYTES, Backend
from swg_fast.policy.model import Model
from swg_fast.policy.rankings.ranked import Support


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

    def hoist(self, states: torch.Tensor) -> torch.Tensor:
        return states.to(self.type)

    def expect(self, job: SamplingJob, vectors: torch.Tensor, words: Words, z: torch.Tensor) -> torch.Tensor:
        r = job.plan.ranking
        return reference.expected_weight(
            self.network, self.model.schedule, vectors[words.owners], z[:, :-1].to(self.type),
            job.noise(words, r.words).to(self.type), r.step, r.mean)

    def read(self, vectors: torch.Tensor, words: Words, z: torch.Tensor) -> torch.Tensor:
        return reference.read_weight(self.network, vectors[words.owners], z[:, :-1].to(self.type),
                                     self.model.schedule.num_steps)

    def renoised(self, job: SamplingJob, r: Ranking, vectors: torch.Tensor, words: Words, z: torch.Tensor
                 ) -> Support:
        return Support(*reference.support(
            self.network, self.model.schedule, vectors[words.owners], z[:, :-1].to(self.type),
            job.noise(words, r.words).to(self.type), r.step, r.mean))

    def candidates(self, job: SamplingJob, states: slice, first: int, count: int) -> Candidates:
        words = job.words(states, torch.arange(first, first + count, device=self.device))
        noise = reference.Noise(*(part.to(self.type) for part in job.reference_noise(words)))
        vectors = self.hoist(job.states[states])
        path = job.reference_path(self.network, self.model.schedule, vectors[words.owners], noise)
        return self.finished(job, vectors, words, path.final, path.weight, count)
