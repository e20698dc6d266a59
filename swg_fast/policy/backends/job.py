"""One call of `Policy.sample`: what a backend is given, what it gives back, and its noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from swg_fast import reference
from swg_fast.common.errors import UsageError
from swg_fast.kernels.shared.sampler_table import Words
from swg_fast.policy.sampling import SamplingConfig
from swg_fast.policy.search_plan import SearchPlan
from swg_fast.reference import Noise, philox


@dataclass(frozen=True)
class SamplingJob:
    """One call of `Policy.sample`, checked and on the policy's device.

    states [B, S] float32, with the guidance's code where the plan has one; state_indices [B] int64, the
    noise's state word. chunk: candidates in memory at once; None is the backend's own. chosen [B, N] int64:
    which candidates to draw, rising; None is 0..N-1. teacher: of a student's job whose teacher judges the
    candidates, the teacher's own.
    """

    states: torch.Tensor
    state_indices: torch.Tensor
    seed: int
    plan: SearchPlan
    chunk: int | None = None
    return_candidates: bool = False
    chosen: torch.Tensor | None = None
    teacher: SamplingJob | None = None

    def __post_init__(self) -> None:
        if len(self.states) != len(self.state_indices):
            raise UsageError(f"{len(self.state_indices)} state indices for {len(self.states)} states; give "
                             "one a state")

    @property
    def config(self) -> SamplingConfig:
        return self.plan.config

    @property
    def draws_one(self) -> bool:
        """Whether candidate 0 is all that is needed: nothing is compared or returned beside it."""
        return self.config.select == "none" and self.config.keep_share == 1 and not self.return_candidates

    def indices(self, vectors: slice, places: torch.Tensor) -> torch.Tensor:
        """Which candidates stand at these places [n], of every state in the slice: [b, n]."""
        if self.chosen is not None:
            return self.chosen[vectors][:, places]
        return places.expand(len(self.state_indices[vectors]), -1)

    def words(self, vectors: slice, places: torch.Tensor) -> Words:
        """Owners and noise words of the candidates at these places [n], of every state in the slice, b
        states' worth: [b n]. The owners count from the slice's start."""
        states = self.state_indices[vectors]
        owners = torch.arange(len(states), device=states.device)
        grid = torch.broadcast_tensors(owners[:, None], self.indices(vectors, places), states[:, None])
        return Words(*(part.reshape(-1) for part in grid))

    def noise(self, words: Words, steps: Sequence[int]) -> torch.Tensor:
        """Noise [k, M, D] of these candidates at k step words: a trained step's number, or T for the
        initial draw."""
        column = torch.tensor(steps, dtype=torch.int64, device=words.states.device)[:, None]
        return philox.normals(self.seed, words.candidates, words.states, column,
                              self.plan.latent_dim)

    def reference_noise(self, words: Words) -> Noise:
        """All noise of these candidates, as `reference.sample` takes it: each on its own, one that has a
        root with the noise of the root's first leaf as far as they are one."""
        table, tree = self.plan.table, self.plan.tree
        steps = [table.trained_steps, *reversed(table.steps)]
        if tree is None:
            initial, *rest = self.noise(words, steps)
            return Noise(initial, torch.stack(rest))
        first, K = 1 + tree.shared, tree.leaves
        roots = words._replace(candidates=words.candidates // K * K)
        initial, *rest = torch.cat([self.noise(roots, steps[:first]), self.noise(words, steps[first:])])
        return Noise(initial, torch.stack(rest))

    def reference_path(self, network: Any, schedule: Any, rows: torch.Tensor, noise: Noise
                       ) -> reference.Trajectory:
        """The walk of states [M, S], as `reference` writes it."""
        table = self.plan.table
        if self.plan.student:
            clips = table.weight_clip if table.clip_clean else None
            return reference.student(network, rows, table.initial * noise.initial, table.steps[::-1], clips)
        path: Any = reference.sample(network, schedule, rows, noise, return_trajectory=True,
                                     **self._reference_settings())
        return path

    def _reference_settings(self) -> dict[str, Any]:
        """The sampler and its settings, as `reference.sample` takes them."""
        config = self.config
        return {name: getattr(config, name) for name in (
            "guidance_scale", "guidance_interval", "temperature", "weight_clip", "weight_readout",
            "clip_denoised", "sampler")
        } | {"sampler_steps": self.plan.table.num_steps}


@dataclass(frozen=True, repr=False)
class Samples:
    """What `Policy.sample` returns, for B states of N candidates.

    actions [B, A] in [-1, 1]; weights [B], the kept candidates' predicted weights before the last clip (so
    that candidates which a clip would tie can still be told apart); indices [B] int64, which
    candidate was kept. With ``average_share`` the first two are means, and the index is that of the
    candidate that ranks highest. With ``return_candidates``: candidates [B, N, A], candidate_weights [B, N]
    and, where these were asked for to rank or to filter, expected_weights [B, N]. Where a teacher has
    finished K of a student's candidates, these are the K, and candidate_indices [B, K] int64 tells which
    they are.
    finite: whether the backend has found all of them finite on its way; None where it has not looked.
    """

    actions: torch.Tensor
    weights: torch.Tensor
    indices: torch.Tensor
    candidates: torch.Tensor | None = field(default=None)
    candidate_weights: torch.Tensor | None = field(default=None)
    expected_weights: torch.Tensor | None = field(default=None)
    candidate_indices: torch.Tensor | None = field(default=None)
    finite: bool | None = field(default=None)

    def __repr__(self) -> str:
        there = {name: value for name, value in vars(self).items() if torch.is_tensor(value)}
        parts = (f"  {name} {list(tensor.shape)}: {float(tensor.min()):.4g} to {float(tensor.max()):.4g}"
                 for name, tensor in there.items() if tensor.numel())
        return "\n".join((f"Samples for {len(self.actions)} state(s) on {self.actions.device}", *parts))


class Candidates(NamedTuple):
    """Finished candidates of b states: z [b, n, D], their weights before the last clip [b, n], and
    their expected weights [b, n] where the job asks for them."""

    z: torch.Tensor
    weights: torch.Tensor
    expected: torch.Tensor | None
