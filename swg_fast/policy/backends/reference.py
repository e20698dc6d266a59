"""Backend ``reference``: Algorithm 2 by autograd, as `reference/` writes it."""

from __future__ import annotations

import copy

import torch

from swg_fast import reference
from swg_fast.kernels.shared.sampler_table import Words
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

    def candidates(self, job: SamplingJob, states: slice, first: int, count: int) -> Candidates:
        words = job.words(states, torch.arange(first, first + count, device=self.device))
        noise = reference.Noise(*(part.to(self.type) for part in job.reference_noise(words)))
        rows = job.states[states][words.owners].to(self.type)
        path = job.reference_path(self.network, self.model.schedule, rows, noise)
        weigh = job.plan.expects in ("draws", "read") and job.teacher is None
        expected = self._expected(job, words, rows, path.final[:, :-1]) if weigh else None
        return Candidates(*(None if part is None else part.float().unflatten(0, (-1, count))
                            for part in (path.final, path.weight, expected)))

    def expected(self, job: SamplingJob, states: slice, first: int, z: torch.Tensor) -> torch.Tensor:
        words = job.words(states, torch.arange(first, first + z.shape[1], device=self.device))
        rows = job.states[states][words.owners].to(self.type)
        found = self._expected(job, words, rows, z.flatten(0, 1)[:, :-1].to(self.type))
        return found.float().view(z.shape[:2])

    def support(self, job: SamplingJob, states: slice, first: int, z: torch.Tensor) -> Support:
        r, (b, n, _) = job.plan.support, z.shape
        words = job.words(states, torch.arange(first, first + n, device=self.device))
        words = words._replace(candidates=torch.zeros_like(words.candidates))
        found = reference.support(
            self.network, self.model.schedule, job.states[states][words.owners].to(self.type),
            z.flatten(0, 1)[:, :-1].to(self.type), job.noise(words, r.words).to(self.type), r.step, r.mean)
        return Support(*(part.float().view(b, n) for part in found))

    def _expected(self, job: SamplingJob, words: Words, rows: torch.Tensor, actions: torch.Tensor
                  ) -> torch.Tensor:
        schedule, r = self.model.schedule, job.plan.ranking
        if r is None:
            return reference.read_weight(self.network, rows, actions, schedule.num_steps)
        return reference.expected_weight(self.network, schedule, rows, actions,
                                         job.noise(words, r.words).to(self.type), r.step, r.mean)
