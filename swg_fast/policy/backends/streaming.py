"""What a backend is, and the streaming search that most share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch.nn import functional as F

from swg_fast.kernels.shared import analytic
from swg_fast.kernels.shared.packing import ROW_MULTIPLE, PackedNetwork
from swg_fast.kernels.shared.sampler_table import Latent, Ranking, Words
from swg_fast.policy.backends.job import Candidates, Samples, SamplingJob
from swg_fast.policy.backends.search import Search
from swg_fast.policy.model import Model
from swg_fast.policy.rankings.ranked import Support

NOISE_BYTES = 32  # a normal's share of what is computed on the way to it
LEAST_BYTES = 128  # of a candidate, with its words and its places in the search
DRAWS = 8  # of a ranking, whose noise is drawn together


class Backend:
    """Draws candidates and keeps the best of each state.

    A subclass sets ``name`` and ``dtypes`` and writes `hoist`, `walk` and `predict`, or `candidates`
    itself; one that can select on the way overrides `run`. It is made once for a model, a compute type
    and a device.
    """

    name: ClassVar[str]
    dtypes: ClassVar[tuple[str, ...]] = ("fp32",)

    def __init__(self, model: Model, dtype: str, device: torch.device) -> None:
        self.model = model
        self.dtype = dtype
        self.device = device

    def __reduce__(self) -> Any:
        """A copy packs its network anew: oneDNN's layout cannot be copied."""
        return type(self), (self.model, self.dtype, self.device)

    @classmethod
    def fastest_dtype(cls, device: torch.device) -> str:
        """The compute type that ``dtype="auto"`` stands for."""
        return cls.dtypes[0]

    def default_chunk(self) -> int:
        """How many candidates to hold at once where the caller does not say."""
        return 1024 if self.device.type == "cpu" else 65536

    def held(self, job: SamplingJob) -> int:
        """How many candidates are in memory at once, at most: a root's leaves stay together."""
        leaves = job.plan.tree.leaves if job.plan.tree is not None else 1
        return max(job.chunk or self.default_chunk(), leaves)

    def bytes_each(self, job: SamplingJob) -> int:
        """About how much memory each of them takes: activations, and the noise of all steps."""
        network, steps = self.model.network, job.plan.table.num_steps + 2
        floats = network.hidden_dim * (6 * network.num_blocks + 16)
        return floats * (8 if self.dtype == "fp64" else 4) + steps * job.plan.latent_dim * NOISE_BYTES

    def hoist(self, states: torch.Tensor) -> torch.Tensor:
        """What `walk` is given of the states [b, S]: a vector each [b, H]."""
        raise NotImplementedError

    def walk(self, job: SamplingJob, vectors: torch.Tensor, words: Words, rows: Sequence[int],
             start: Latent | None) -> Latent:
        """M candidates through ``rows`` of the job's table, from ``start`` or else the initial draw."""
        raise NotImplementedError

    def predict(self, vectors: torch.Tensor, words: Words, z: torch.Tensor, t: int | None) -> torch.Tensor:
        """The network's eps [M, D] for z [M, D] at the trained step t, or at the one to read at."""
        raise NotImplementedError

    def expect(self, job: SamplingJob, vectors: torch.Tensor, words: Words, z: torch.Tensor) -> torch.Tensor:
        """The job's ranking of finished candidates z [M, D]: an estimate of E[w | a, s], [M]."""
        return self.renoised(job, job.plan.ranking, vectors, words, z).weight

    def read(self, vectors: torch.Tensor, words: Words, z: torch.Tensor) -> torch.Tensor:
        """E[w | a, s] of finished candidates z [M, D] as a network trained for it reads it off, [M]."""
        return -self.predict(vectors, words, torch.cat([z[:, :-1], torch.zeros_like(z[:, -1:])], dim=1),
                             None)[:, -1]

    def candidates(self, job: SamplingJob, states: slice, first: int, count: int) -> Candidates:
        """Candidates first .. first+count-1 of these states, whole roots where the job has a tree."""
        vectors, plan = self.hoist(job.states[states]), job.plan
        start, rows = None, range(plan.table.num_steps - 1, -1, -1)
        last = first + count
        if plan.tree is not None:
            K, shared = plan.tree.leaves, plan.tree.shared
            roots = job.words(states, torch.arange(first, last, K, device=self.device))
            start = self.walk(job, vectors, roots, rows[:shared], None)
            start = start.take(torch.arange(len(roots.owners), device=self.device).repeat_interleave(K))
            rows = rows[shared:]
        words = job.words(states, torch.arange(first, last, device=self.device))
        z, _, weight = self.walk(job, vectors, words, rows, start)
        return self.finished(job, vectors, words, z, weight, count)

    def finished(self, job: SamplingJob, vectors: torch.Tensor, words: Words, z: torch.Tensor,
                 weight: torch.Tensor, count: int) -> Candidates:
        """Finished candidates z [b count, D] and their weights as `candidates` gives them, with expected
        weights where this backend tells them."""
        expected = self.expect(job, vectors, words, z) if job.plan.ranking is not None else None
        if job.plan.expects == "read" and job.teacher is None:
            expected = self.read(vectors, words, z)
        return Candidates(*(None if part is None else part.float().unflatten(0, (-1, count))
                            for part in (z, weight, expected)))

    def expected(self, job: SamplingJob, states: slice, first: int, z: torch.Tensor) -> torch.Tensor:
        """What the job's plan takes for E[w | a, s] of finished candidates z [b, n, D] of these states, the
        first of them at this place: [b, n]."""
        b, n, _ = z.shape
        vectors = self.hoist(job.states[states])
        words = job.words(states, torch.arange(first, first + n, device=self.device))
        flat = z.reshape(b * n, -1)
        found = self.read(vectors, words, flat) if job.plan.ranking is None else \
            self.expect(job, vectors, words, flat)
        return found.float().view(b, n)

    def support(self, job: SamplingJob, states: slice, first: int, z: torch.Tensor) -> Support:
        """The support [b, n] of finished candidates z [b, n, D] of these states, the first of them at this
        place. All candidates of a state are given the same noise, so that they differ by their actions alone.
        """
        b, n, _ = z.shape
        words = job.words(states, torch.arange(first, first + n, device=self.device))
        words = words._replace(candidates=torch.zeros_like(words.candidates))
        vectors = self.hoist(job.states[states])
        found = self.renoised(job, job.plan.support, vectors, words, z.reshape(b * n, -1))
        return Support(*(part.float().view(b, n) for part in found))

    def renoised(self, job: SamplingJob, r: Ranking, vectors: torch.Tensor, words: Words, z: torch.Tensor
                 ) -> Support:
        """The means over the draws of ``r`` of what the network predicts of finished candidates z [M, D]
        noised again, [M]."""
        centred = torch.cat([z[:, :-1], torch.full_like(z[:, -1:], r.mean)], dim=1)
        error, weight = torch.zeros_like(z[:, -1]), torch.zeros_like(z[:, -1])
        for i in range(0, r.draws, DRAWS):
            for noise in job.noise(words, r.words[i:i + DRAWS]).to(z.dtype):
                again = r.signal * centred + r.sigma * noise
                eps = self.predict(vectors, words, again, r.step)
                error += (eps - noise)[:, :-1].square().sum(dim=1)
                weight += (again[:, -1] - r.sigma * eps[:, -1]) / r.signal
        return Support(error / r.draws, weight / r.draws)

    def run(self, job: SamplingJob, judge: Backend | None = None) -> Samples:
        """Streams the candidates through in chunks, keeping a running best, or the best share. ``judge`` is
        the backend of the job's teacher, where it has one."""
        if job.draws_one:
            job = replace(job, plan=replace(job.plan, tree=None))
        parts = []
        for states in self._groups(job):
            search, everything = self._search(job, states, judge)
            parts.append((*search.best(), *everything))
        joined = [None if column[0] is None else torch.cat(column) for column in zip(*parts, strict=True)]
        return Samples(*joined, candidate_indices=job.chosen if job.return_candidates else None)

    def shortlist(self, job: SamplingJob) -> torch.Tensor:
        """The candidates of each state that the plan's shortlist takes, by the selection's score and rising:
        [B, K] int64."""
        return torch.cat([self._search(job, states, None)[0].shortlisted() for states in self._groups(job)])

    def _groups(self, job: SamplingJob) -> Iterator[slice]:
        """Slices of the states whose candidates are in memory together."""
        B, group = len(job.states), max(1, self.held(job) // self._count(job))
        return (slice(i, min(i + group, B)) for i in range(0, B, group))

    def _count(self, job: SamplingJob) -> int:
        """How many candidates of a state are drawn in all."""
        return 1 if job.draws_one else job.config.n_candidates

    def _search(self, job: SamplingJob, states: slice, judge: Backend | None
                ) -> tuple[Search, list[torch.Tensor | None]]:
        """The search that all candidates of these states have gone through, and, if they are to be returned,
        they, their weights and expected weights."""
        leaves = job.plan.tree.leaves if job.plan.tree is not None else 1
        N = self._count(job)
        count = min(N, self.held(job) // leaves * leaves)  # a root's leaves stay together
        search = Search(job, states, self.model, self if judge is None else judge)
        kept: list[tuple[torch.Tensor | None, ...]] = []
        for first in range(0, N, count):
            found = search.add(first, self.candidates(job, states, first, min(count, N - first)))
            if job.return_candidates:
                kept.append((found.z[..., :-1], found.weights, found.expected))
        everything = [None if column[0] is None else torch.cat(column, dim=1)
                      for column in zip(*kept, strict=True)] or [None, None, None]
        return search, everything


def predicted(packed: PackedNetwork, vectors: torch.Tensor, words: Words, z: torch.Tensor, t: int | None
              ) -> torch.Tensor:
    """`Backend.predict` in plain torch operations."""
    M, words = len(z), words.padded(ROW_MULTIPLE)
    z = F.pad(z.to(packed.input_z.dtype), (0, 0, 0, -M % ROW_MULTIPLE))
    base = vectors[words.owners] + packed.time_row(t)
    return analytic.eps_and_weight_vjp(packed, z, base, guided=False)[0][:M]


def row_noise(job: SamplingJob, words: Words, rows: Sequence[int], start: Latent | None,
              dtype: torch.dtype) -> tuple[Latent, dict[int, torch.Tensor]]:
    """Where a walk begins, and the noise [M, D] of each of its rows that adds any."""
    table = job.plan.table
    noisy = [j for j in rows if j in table.noisy]
    fresh = [table.trained_steps] if start is None else []
    drawn = job.noise(words, [*fresh, *(table.steps[j] for j in noisy)]).to(dtype)
    if start is None:
        start = Latent(table.initial * drawn[0], None, drawn[0, :, -1])
    return start, dict(zip(noisy, drawn[len(fresh):], strict=True))
