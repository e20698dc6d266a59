"""What a backend is, and the streaming search that most share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from swg_fast.backends.job import Model, Samples, SamplingJob
from swg_fast.kernels.shared.table import Latent, Words
from swg_fast.reference import philox
from swg_fast.reference.resample import keep


class Backend:
    """Draws candidates and keeps the best of each state.

    A subclass sets ``name`` and ``dtypes`` and writes `hoist` and `walk`, or `candidates` itself; one
    that can select on the way overrides `run`. It is made once for a model, a compute type and a
    device.
    """

    name: ClassVar[str]
    dtypes: ClassVar[tuple[str, ...]] = ("fp32",)

    def __init__(self, model: Model, dtype: str, device: torch.device) -> None:
        self.model = model
        self.dtype = dtype
        self.device = device

    @classmethod
    def fastest_dtype(cls, device: torch.device) -> str:
        """The compute type that ``dtype="auto"`` stands for."""
        return cls.dtypes[0]

    def default_chunk(self) -> int:
        """How many candidates to hold at once where the caller does not say."""
        return 1024 if self.device.type == "cpu" else 65536

    def hoist(self, states: torch.Tensor) -> torch.Tensor:
        """What `walk` is given of the states [b, S]: a vector each [b, H]."""
        raise NotImplementedError

    def walk(self, job: SamplingJob, vectors: torch.Tensor, words: Words, rows: Sequence[int],
             start: Latent | None) -> Latent:
        """M candidates through ``rows`` of the job's table, from ``start`` or else the initial draw."""
        raise NotImplementedError

    def candidates(self, job: SamplingJob, states: slice, first: int, count: int
                   ) -> tuple[torch.Tensor, torch.Tensor]:
        """Candidates first .. first+count-1 of these states: z [b, count, D] after the last step,
        and their weights before its clip [b, count]."""
        words = job.words(states, torch.arange(first, first + count, device=self.device))
        rows = range(job.table.num_steps - 1, -1, -1)
        z, _, weight = self.walk(job, self.hoist(job.states[states]), words, rows, None)
        return z.float().unflatten(0, (-1, count)), weight.float().unflatten(0, (-1, count))

    @torch.no_grad()
    def run(self, job: SamplingJob) -> Samples:
        """Streams the candidates through in chunks, keeping a running best."""
        B, N = len(job.states), job.n_candidates
        if job.select == "none" and not job.return_candidates:
            N = 1  # nothing is compared, so candidate 0 is all that is needed
        chunk = max(1, job.chunk or self.default_chunk())
        group = max(1, chunk // N)
        count = min(N, chunk)
        parts = [self._search(job, slice(i, min(i + group, B)), N, count) for i in range(0, B, group)]
        joined = [None if column[0] is None else torch.cat(column) for column in zip(*parts, strict=True)]
        return Samples(*joined)

    def _search(self, job: SamplingJob, states: slice, N: int, count: int) -> tuple[Any, ...]:
        best = None
        kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        for first in range(0, N, count):
            z, weights = self.candidates(job, states, first, min(count, N - first))
            scores = self._scores(job, states, first, z, weights)
            scores = torch.where(scores.isnan(), -torch.inf, scores)
            at = keep(scores)
            pick = at[:, None]
            new = (scores.gather(1, pick)[:, 0], first + at,
                   z.gather(1, pick[..., None].expand(-1, -1, z.shape[2]))[:, 0],
                   weights.gather(1, pick)[:, 0])
            if best is None:
                best = new
            else:
                better = new[0] > best[0]  # strictly: ties go to the lower index
                best = tuple(torch.where(better[:, None] if a.ndim == 2 else better, a, b)
                             for a, b in zip(new, best, strict=True))
            if job.return_candidates:
                kept.append((z[..., :-1], weights))
        _, index, z, weight = best
        everything = [torch.cat(column, dim=1) for column in zip(*kept, strict=True)] or [None, None]
        return z[:, :-1], weight, index, *everything

    def _scores(self, job: SamplingJob, states: slice, first: int, z: torch.Tensor,
                weights: torch.Tensor) -> torch.Tensor:
        """What candidates [b, n] are ranked by."""
        b, n, _ = z.shape
        if job.select == "max_weight":
            return weights
        if job.select == "max_q":
            repeated = job.states[states].repeat_interleave(n, dim=0)
            return self.model.critic.minimum(repeated, z[..., :-1].reshape(b * n, -1)).view(b, n)
        if job.select == "softmax":
            logits = weights.clamp(min=job.table.weight_clip[0]).log() / job.selection_temperature
            words = job.words(states, torch.arange(first, first + n, device=self.device))
            noise = philox.gumbel(job.seed, words.candidates, words.states, job.table.trained_steps)
            return logits + noise.view(b, n)
        return torch.zeros_like(weights)


def row_noise(job: SamplingJob, words: Words, rows: Sequence[int], start: Latent | None,
              dtype: torch.dtype) -> tuple[Latent, dict[int, torch.Tensor]]:
    """Where a walk begins, and the noise [M, D] of each of its rows that adds any."""
    table = job.table
    noisy = [j for j in rows if table.row(j)["noise"] != 0]
    fresh = [table.trained_steps] if start is None else []
    drawn = job.noise(words, [*fresh, *(table.steps[j] for j in noisy)]).to(dtype)
    if start is None:
        start = Latent(table.initial * drawn[0], None, drawn[0, :, -1])
    return start, dict(zip(noisy, drawn[len(fresh):], strict=True))
