"""A policy with its sampling settings bound: what is checked once, and what a call then does."""

from __future__ import annotations

import numpy as np
import torch

from swg_fast.common.checks import MAX_SEED, flag, whole
from swg_fast.common.errors import note
from swg_fast.common.inputs import index_row, state_rows
from swg_fast.policy.backends.job import Samples, SamplingJob
from swg_fast.policy.backends.streaming import Backend
from swg_fast.policy.model import Model
from swg_fast.policy.sampling import SamplingConfig
from swg_fast.policy.search_plan import SearchPlan
from swg_fast.policy.soundness import check_room, check_samples
from swg_fast.policy.surroundings import own_surroundings

Array = np.ndarray | torch.Tensor


class BoundSampler:
    """Draws for one `SamplingConfig` by one backend; `Policy.bind` makes it.

    `sample` checks the arrays that it is given; `draw` checks nothing before it draws: for a control loop
    whose states are tensors on the policy's device.
    """

    def __init__(self, model: Model, backend: Backend, plan: SearchPlan, chunk: int | None) -> None:
        self.model, self.backend, self.plan, self.chunk = model, backend, plan, chunk
        self._code = plan.code.to(backend.device) if plan.code is not None else None
        self._width = model.network.state_dim - (len(plan.code) if plan.code is not None else 0)

    @property
    def config(self) -> SamplingConfig:
        """The settings, every one with its value."""
        return self.plan.config

    @property
    def carried_out_by(self) -> str:
        """Backend, compute type and device in words, such as ``cpu fp32 on cpu``."""
        return f"{self.backend.name} {self.backend.dtype} on {self.backend.device}"

    def sample(self, states: Array, *, seed: int, state_indices: Array | None = None,
               return_candidates: bool = False) -> Samples:
        """As `Policy.sample`, with the settings that are bound."""
        config = self.config
        if config.temperature == 0 and config.n_candidates > 1:
            note(f"temperature 0 makes all {config.n_candidates} candidates the same; use a temperature "
                 "above 0 to resample")
        with own_surroundings():
            rows = state_rows(states, self._width, self.backend.device)
            indices = index_row(state_indices, len(rows), self.backend.device)
            job = self._job(rows, whole("seed", seed, 0, MAX_SEED), indices,
                            flag("return_candidates", return_candidates))
            check_room(job, self.backend)
            return self._run(job)

    def draw(self, states: torch.Tensor, seed: int, state_indices: torch.Tensor | None = None) -> Samples:
        """The kept candidates of states [B, S], float32 on the policy's device; ``state_indices`` [B] int64
        there. Nothing of this is checked, but that what comes out is finite (`UsageError`)."""
        with own_surroundings():
            if state_indices is None:
                state_indices = torch.arange(len(states), device=states.device)
            return self._run(self._job(states, seed, state_indices, False))

    def _job(self, states: torch.Tensor, seed: int, indices: torch.Tensor, everything: bool) -> SamplingJob:
        if self._code is not None:
            states = torch.cat([states, self._code.expand(len(states), -1)], dim=1)
        return SamplingJob(states, indices, seed, self.plan, self.chunk, everything)

    def _run(self, job: SamplingJob) -> Samples:
        return check_samples(self.backend.run(job), job, self.model,
                             f"{self.backend.name} {self.backend.dtype}")
