"""Pairs that a student learns from: a state and noise, and where the teacher's guided walk from them ends.

A pair is a function of (seed, its number): its noise is that of `reference.philox`, so it can be made again
anywhere. What is kept of it is what costs time, the walk's ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from swg_fast.common.errors import UsageError
from swg_fast.common.seeds import stream_seed
from swg_fast.kernels.shared.sampler_table import Latent
from swg_fast.method.student import StudentWalk
from swg_fast.policy.backends.job import SamplingJob
from swg_fast.policy.policy import Policy
from swg_fast.policy.sampling import SamplingConfig
from swg_fast.policy.search_plan import plan_search
from swg_fast.policy.surroundings import own_surroundings
from swg_fast.reference import philox
from swg_fast.training.distillation.best import best_of, paired, shared
from swg_fast.training.distillation.settings import DistillSettings

SHARD = 8192  # pairs that are drawn and kept together
GROUP = 64  # pairs that share a guidance scale, a temperature and a weight function
AT_ONCE = 4096  # walks in memory
BEYOND = 0.5  # how far a weight may end beyond its clip


class Group(NamedTuple):
    """What some pairs in a row share: the walk's guidance scale, the noise's temperature, and which weight
    function guides (None: the policy has one)."""

    guidance_scale: float
    temperature: float
    guidance: str | None


@dataclass(frozen=True)
class Drawn:
    """n pairs without their walks: which state each begins from, rows [n] of the observations, and the groups
    they are in, `GROUP` pairs each."""

    rows: torch.Tensor
    groups: tuple[Group, ...]

    def spread(self, values: list[float]) -> torch.Tensor:
        """A number a group as one a pair, [n]."""
        return torch.tensor(values, dtype=torch.float32).repeat_interleave(GROUP)[:len(self.rows)]


class PairMaker:
    """Draws pairs from ``teacher`` for the states [N, S] and packs them for learning."""

    def __init__(self, teacher: Policy, walk: StudentWalk, states: torch.Tensor, settings: DistillSettings,
                 name: str) -> None:
        self.teacher, self.walk, self.states, self.settings = teacher, walk, states, settings
        self.name = name  # of the set, which has noise of its own
        self.shared = shared(teacher.config, settings)
        self.seed = stream_seed(settings.seed, "pairs", name, "noise")
        self.backend = teacher.backend()
        if self.backend.name == "triton" and settings.calls > 1:  # it tells where a walk ends, and no more
            self.backend = teacher.backend("torch")

    @property
    def config(self) -> SamplingConfig:
        """The walk's settings, but for what a group has of its own."""
        walk = self.walk
        return SamplingConfig(
            n_candidates=1, temperature=1.0, select="none", sampler=walk.sampler,
            sampler_steps=walk.sampler_steps, weight_clip=walk.weight_clip,
            weight_readout=walk.weight_readout, clip_denoised=walk.clip_denoised)

    def drawn(self, shard: int, count: int) -> Drawn:
        """The ``count`` pairs of a shard, without their walks."""
        generator = torch.Generator().manual_seed(
            stream_seed(self.settings.seed, "pairs", self.name, "shard", shard))
        rows = torch.randint(len(self.states), (count,), generator=generator)
        rows = rows[::self.shared].repeat_interleave(self.shared)[:count]
        groups, (low, high) = -(-count // GROUP), self.walk.guidance_scale
        scales = low + (high - low) * torch.rand(groups, generator=generator, dtype=torch.float64)
        temperatures = torch.rand(groups, generator=generator, dtype=torch.float64)
        warm = torch.rand(groups, generator=generator) >= self.settings.cold_share
        temperatures[warm.sort().values] = 1.0  # the last ones: groups alike walk together
        names: list[str | None] = [None] * groups
        if self.teacher.family is not None:
            names = self.teacher.family.names(torch.rand(groups, 2, generator=generator))
        return Drawn(rows, tuple(map(Group, scales.tolist(), temperatures.tolist(), names)))

    def ends(self, shard: int, count: int) -> torch.Tensor:
        """Where the parts of these pairs' walks end, [count, calls, D] on the CPU; at the last the weight is
        as it is before the last clip, but within `BEYOND` of it: a strongly guided walk's is now and then far
        off, and a regression would follow these few alone."""
        drawn, found, first = self.drawn(shard, count), [], 0
        take = self._walk if self.settings.of_best is None else self._best
        with own_surroundings(), torch.inference_mode():
            while first < count:
                group = drawn.groups[first // GROUP]
                last = first + GROUP
                while last < count and last - first < AT_ONCE and drawn.groups[last // GROUP] == group:
                    last += GROUP  # groups alike walk together
                last = min(last, count)
                states = self.states[drawn.rows[first:last]]
                found.append(take(states, shard * SHARD + first, group))
                first = last
        ends, (low, high) = torch.cat(found).clone(), self.walk.weight_clip
        ends[:, -1, -1].clamp_(low - BEYOND, high + BEYOND)
        return ends

    def _walk(self, states: torch.Tensor, number: int, group: Group) -> torch.Tensor:
        """The ends of a group's walks from ``states`` [b, S], whose first pair has this number."""
        plan = plan_search(replace(self.config, **group._asdict()), self.teacher.model, self.teacher.family)
        device, b = self.teacher.device, len(states)
        states = states.to(device)
        if plan.code is not None:
            states = torch.cat([states, plan.code.to(device).expand(b, -1)], dim=1)
        job = SamplingJob(states, torch.arange(number, number + b, device=device), self.seed, plan,
                          return_candidates=True)
        everyone = slice(0, b)
        if self.settings.calls == 1:
            found = self.backend.candidates(job, everyone, 0, 1)
            end = torch.cat([found.z[:, 0, :-1], found.weights], dim=1)
            return end[:, None].cpu()
        vectors, words = self.backend.hoist(states), job.words(everyone, torch.zeros(1, dtype=torch.int64))
        at: Latent | None = None
        ends = []
        for rows in parts(plan.table.num_steps, self.settings.calls):
            at = self.backend.walk(job, vectors, words, rows, at)
            ends.append(at.z)
            last = torch.cat([at.z[:, :-1], at.weight[:, None]], dim=1)
        ends[-1] = last
        return torch.stack(ends, dim=1).float().cpu()

    def _best(self, states: torch.Tensor, number: int, group: Group) -> torch.Tensor:
        """What the teacher keeps in ``states`` [b, S], as `_walk` has a walk's end."""
        walk = self.walk
        kept = best_of(self.teacher, states, number, self.seed, n_candidates=walk.of_best,
                       guidance_scale=walk.default_scale, guidance=group.guidance,
                       **self.settings.of_candidates())
        if self.shared > 1:
            kept = paired(kept, group.temperature * self.noise(number, len(states)))
        return kept[:, None]

    def noise(self, number: int, count: int) -> torch.Tensor:
        """Standard normal draws [count, D] of the pairs from this number on."""
        numbers = torch.arange(count) + number
        return philox.normals(self.seed, torch.zeros_like(numbers), numbers,
                              self.teacher.model.schedule.num_steps, self.teacher.action_dim + 1).float()

    def packed(self, shard: int, ends: torch.Tensor) -> torch.Tensor:
        """Rows to learn from, [calls, n, 2 D + S + K + 1]: (2 z - z', state, code, z' - z, step), for a call
        from z to z' at that trained step. The input is written as a sum of the first and the target, as a
        noised sample is one of clean sample and noise: the diffusion's compiled steps then learn it."""
        n = len(ends)
        drawn, noise = self.drawn(shard, n), self.noise(shard * SHARD, n)
        z = drawn.spread([group.temperature for group in drawn.groups])[:, None] * noise
        beside = [self.states[drawn.rows]]
        if self.teacher.family is not None:
            family = self.teacher.family
            member = torch.stack([family.code(str(group.guidance)) for group in drawn.groups])
            beside.append(member.repeat_interleave(GROUP, dim=0)[:n])
        beside.append(self.walk.scale_code(drawn.spread([group.guidance_scale for group in drawn.groups])))
        rows = []
        for end, step in zip(ends.unbind(1), reversed(self.walk.steps), strict=True):
            rows.append(torch.cat([2 * z - end, *beside, end - z, torch.full((n, 1), float(step))], dim=1))
            z = end
        return torch.stack(rows)


def parts(steps: int, calls: int) -> list[range]:
    """The rows of a walk of ``steps`` steps in as many parts as there are calls, in the order of walking.
    `UsageError` for more calls than steps."""
    if calls > steps:
        raise UsageError(f"calls={calls} for a walk of {steps} steps: each call learns a step or more; use "
                         "fewer calls")
    cuts = [steps * k // calls for k in range(calls, -1, -1)]
    return [range(a - 1, b - 1, -1) for a, b in zip(cuts, cuts[1:], strict=False)]


def student_steps(steps: tuple[int, ...], calls: int) -> tuple[int, ...]:
    """The trained step at which each call's part of the walk over the trained ``steps`` begins, rising."""
    return tuple(sorted(steps[rows[0]] for rows in parts(len(steps), calls)))
