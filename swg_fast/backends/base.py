"""What every backend is given, what it gives back, and the streaming search that most share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from swg_fast.kernels.shared.table import SamplerTable
from swg_fast.networks import ScoreNetwork, TwinQ
from swg_fast.reference import philox
from swg_fast.reference.resample import keep
from swg_fast.schedule import NoiseSchedule

SELECTIONS = ("max_weight", "max_q", "softmax", "none")


@dataclass(frozen=True)
class Model:
    """What a policy is made of."""

    network: ScoreNetwork
    schedule: NoiseSchedule
    critic: TwinQ | None = None


@dataclass(frozen=True)
class SamplingJob:
    """One call of `Policy.sample`, checked and on the policy's device.

    states [B, S] float32; state_indices [B] int64, the noise's state word; ``settings`` are the
    sampler's own (guidance_scale, temperature, weight_clip, weight_readout, clip_denoised).
    """

    states: torch.Tensor
    state_indices: torch.Tensor
    n_candidates: int
    table: SamplerTable
    sampler: str
    settings: dict[str, Any]
    seed: int
    select: str
    selection_temperature: float
    chunk: int | None
    return_candidates: bool


@dataclass(frozen=True)
class Samples:
    """What `Policy.sample` returns, for B states of N candidates.

    actions [B, A]; weights [B], the kept candidates' predicted weights before the last clip (so
    that candidates which a clip would tie can still be told apart); indices [B] int64, which
    candidate was kept. With ``return_candidates``: candidates [B, N, A], candidate_weights [B, N].
    """

    actions: torch.Tensor
    weights: torch.Tensor
    indices: torch.Tensor
    candidates: torch.Tensor | None = field(default=None)
    candidate_weights: torch.Tensor | None = field(default=None)


class Backend:
    """Draws candidates and keeps the best of each state.

    A subclass sets ``name`` and ``dtypes`` and writes `candidates`; one that can select on the way
    overrides `run`. It is made once for a model, a compute type and a device.
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

    def candidates(self, job: SamplingJob, rows: slice, first: int, count: int
                   ) -> tuple[torch.Tensor, torch.Tensor]:
        """Candidates first .. first+count-1 of the states in ``rows``: z [b, count, D] after the
        last step, and their weights before its clip [b, count]."""
        raise NotImplementedError

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

    def _search(self, job: SamplingJob, rows: slice, N: int, count: int) -> tuple[Any, ...]:
        best = None
        kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        for first in range(0, N, count):
            z, weights = self.candidates(job, rows, first, min(count, N - first))
            scores = self._scores(job, rows, first, z, weights)
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

    def _scores(self, job: SamplingJob, rows: slice, first: int, z: torch.Tensor,
                weights: torch.Tensor) -> torch.Tensor:
        """What candidates [b, n] are ranked by."""
        b, n, _ = z.shape
        if job.select == "max_weight":
            return weights
        if job.select == "max_q":
            states = job.states[rows].repeat_interleave(n, dim=0)
            with torch.no_grad():
                return self.model.critic.minimum(states, z[..., :-1].reshape(b * n, -1)).view(b, n)
        if job.select == "softmax":
            logits = weights.clamp(min=job.table.weight_clip[0]).log() / job.selection_temperature
            candidates, states = counters(job, rows, first, n)
            return logits + philox.gumbel(job.seed, candidates, states, job.table.num_steps)
        return torch.zeros_like(weights)


def counters(job: SamplingJob, rows: slice, first: int, count: int
             ) -> tuple[torch.Tensor, torch.Tensor]:
    """The noise's candidate and state words of a chunk, both [b, count]."""
    states = job.state_indices[rows]
    candidates = torch.arange(first, first + count, device=states.device)
    return torch.broadcast_tensors(candidates[None, :], states[:, None])


def draw_noise(job: SamplingJob, candidates: torch.Tensor, states: torch.Tensor
               ) -> tuple[torch.Tensor, torch.Tensor]:
    """All noise of candidate and state words [M]: the initial draw [M, D], and [T, M, D] with row t
    for step t.

    Zero where the table adds none (temperature 0), so that nothing is drawn for nothing.
    """
    T, D = job.table.num_steps, job.settings["latent_dim"]
    if job.table.initial == 0:
        zero = torch.zeros((T + 1, len(candidates), D), device=states.device)
        return zero[T], zero[:T]
    steps = torch.arange(T + 1, device=states.device)[:, None]
    noise = philox.normals(job.seed, candidates, states, steps, D)
    return noise[T], noise[:T]
