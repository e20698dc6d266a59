"""One call of `Policy.sample`: what a backend is given, what it gives back, and its noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from swg_fast.kernels.shared.sampler_table import Ranking, SamplerTable, Tree, Words
from swg_fast.method.networks import Ranker, ScoreNetwork, TwinQ
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.reference import Noise, philox

SELECTIONS = ("max_weight", "expected_weight", "max_q", "softmax", "none")
RANKINGS = ("draws", "ranker", "read")  # where expected weights come from


@dataclass(frozen=True)
class Model:
    """What a policy is made of."""

    network: ScoreNetwork
    schedule: NoiseSchedule
    critic: TwinQ | None = None
    ranker: Ranker | None = None


@dataclass(frozen=True)
class SamplingJob:
    """One call of `Policy.sample`, checked and on the policy's device.

    states [B, S] float32; state_indices [B] int64, the noise's state word; ``settings`` are the
    sampler's own (guidance_scale, temperature, weight_clip, weight_readout, clip_denoised). ``ranking``
    is there where candidates are ranked or filtered by their expected weight and that is estimated by
    draws; ``expects`` says by what it is, one of `RANKINGS`. Only the best ``keep_share`` of each state's
    goes on to ``select``.
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
    tree: Tree | None = None
    ranking: Ranking | None = None
    keep_share: float = 1.0
    expects: str | None = None

    def words(self, vectors: slice, candidates: torch.Tensor) -> Words:
        """Owners and noise words of these candidates [n] of every state in the slice, b states' worth:
        [b n]. The owners count from the slice's start."""
        states = self.state_indices[vectors]
        owners = torch.arange(len(states), device=states.device)
        grid = torch.broadcast_tensors(owners[:, None], candidates[None, :], states[:, None])
        return Words(*(part.reshape(-1) for part in grid))

    def noise(self, words: Words, steps: Sequence[int]) -> torch.Tensor:
        """Noise [k, M, D] of these candidates at k step words: a trained step's number, or T for the
        initial draw."""
        D = self.settings["latent_dim"]
        column = torch.tensor(steps, dtype=torch.int64, device=words.states.device)[:, None]
        return philox.normals(self.seed, words.candidates, words.states, column, D)

    def reference_noise(self, words: Words) -> Noise:
        """All noise of these candidates, as `reference.sample` takes it: each on its own, one that has a
        root with the noise of the root's first leaf as far as they are one."""
        steps = [self.table.trained_steps, *reversed(self.table.steps)]
        if self.tree is None:
            initial, *rest = self.noise(words, steps)
            return Noise(initial, torch.stack(rest))
        first, K = 1 + self.tree.shared, self.tree.leaves
        roots = words._replace(candidates=words.candidates // K * K)
        initial, *rest = torch.cat([self.noise(roots, steps[:first]), self.noise(words, steps[first:])])
        return Noise(initial, torch.stack(rest))

    def reference_settings(self) -> dict[str, Any]:
        """The sampler and its settings, as `reference.sample` takes them."""
        own = {name: value for name, value in self.settings.items() if name != "latent_dim"}
        return own | {"sampler": self.sampler, "sampler_steps": self.table.num_steps}


@dataclass(frozen=True)
class Samples:
    """What `Policy.sample` returns, for B states of N candidates.

    actions [B, A]; weights [B], the kept candidates' predicted weights before the last clip (so
    that candidates which a clip would tie can still be told apart); indices [B] int64, which
    candidate was kept. With ``return_candidates``: candidates [B, N, A], candidate_weights [B, N] and,
    where these were asked for to rank or to filter, expected_weights [B, N].
    """

    actions: torch.Tensor
    weights: torch.Tensor
    indices: torch.Tensor
    candidates: torch.Tensor | None = field(default=None)
    candidate_weights: torch.Tensor | None = field(default=None)
    expected_weights: torch.Tensor | None = field(default=None)


class Candidates(NamedTuple):
    """Finished candidates of b states: z [b, n, D], their weights before the last clip [b, n], and
    their expected weights [b, n] where the job asks for them."""

    z: torch.Tensor
    weights: torch.Tensor
    expected: torch.Tensor | None
