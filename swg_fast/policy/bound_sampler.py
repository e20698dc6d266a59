"""A policy with its sampling settings bound: what is checked once, and what a call then does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from swg_fast.common.checks import MAX_SEED, flag, whole
from swg_fast.common.errors import note
from swg_fast.common.inputs import index_row, state_rows
from swg_fast.kernels.shared.devices import counted, settle
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

    def __init__(self, model: Model, backend: Backend, plan: SearchPlan, chunk: int | None,
                 teacher: BoundSampler | None = None) -> None:
        self.model, self.backend, self.plan, self.chunk = model, backend, plan, chunk
        self.teacher = teacher  # of a student, where the plan has one
        self._code = plan.code.to(backend.device) if plan.code is not None and len(plan.code) else None
        settle(backend.device)  # any stream may read the code
        self._width = model.network.state_dim - (len(plan.code) if plan.code is not None else 0)

    @property
    def config(self) -> SamplingConfig:
        """The settings, every one with its value."""
        return self.plan.config

    @property
    def carried_out_by(self) -> str:
        """Backend, compute type and device in words, such as ``cpu fp32 on cpu``; with the teacher's where
        that is another backend."""
        own = f"{self.backend.name} {self.backend.dtype}"
        if self.teacher is not None and self.teacher.backend.name != self.backend.name:
            own += f", and its teacher by {self.teacher.backend.name} {self.teacher.backend.dtype},"
        return f"{own} on {self.backend.device}"

    def sample(self, states: Array, *, seed: int, state_indices: Array | None = None,
               return_candidates: bool = False) -> Samples:
        """As `Policy.sample`, with the settings that are bound."""
        config = self.config
        if config.temperature == 0 and config.n_candidates > 1:
            note(f"temperature 0 makes all {config.n_candidates} candidates the same; use a temperature "
                 "above 0 to resample")
        with own_surroundings():
            rows = state_rows(states, self._width, self.backend.device)
            device = self.backend.device
            indices = counted(device, len(rows)) if state_indices is None else \
                index_row(state_indices, len(rows), device)
            return self._run(rows, indices, whole("seed", seed, 0, MAX_SEED),
                             flag("return_candidates", return_candidates), roomy=False)

    def draw(self, states: torch.Tensor, seed: int, state_indices: torch.Tensor | None = None) -> Samples:
        """The kept candidates of states [B, S], float32 on the policy's device; ``state_indices`` [B] int64
        there. Nothing of this is checked, but that what comes out is finite (`UsageError`)."""
        with own_surroundings():
            if state_indices is None:
                state_indices = counted(self.backend.device, len(states))
            return self._run(states, state_indices, seed, everything=False, roomy=True)

    def _run(self, states: torch.Tensor, indices: torch.Tensor, seed: int, everything: bool, roomy: bool
             ) -> Samples:
        """Draws by the plan; whether memory holds it is checked unless it is known to be ``roomy``."""
        job = self._job(states, seed, indices, everything)
        sampler, judge = self, None
        if self.teacher is not None:
            teachers = self.teacher._job(states, seed, indices, everything)
            if self.plan.shortlist is None:
                job, judge = replace(job, teacher=teachers), self.teacher.backend
            else:
                self._check_room(replace(job, return_candidates=False), roomy)
                job = replace(teachers, chosen=self.backend.shortlist(job))
                sampler = self.teacher
        sampler._check_room(job, roomy)
        backend = sampler.backend
        return check_samples(backend.run(job, judge), job, sampler.model, f"{backend.name} {backend.dtype}")

    def _check_room(self, job: SamplingJob, roomy: bool) -> None:
        if not roomy:
            check_room(job, self.backend)

    def _job(self, states: torch.Tensor, seed: int, indices: torch.Tensor, everything: bool) -> SamplingJob:
        if self._code is not None:
            states = torch.cat([states, self._code.expand(len(states), -1)], dim=1)
        return SamplingJob(states, indices, seed, self.plan, self.chunk, everything)
