"""A bound sampler's whole decision as a torch module that exports: from states and noise to the kept action.

The walk is unrolled, and its gradient is the analytic one, so the graph needs no autograd. A ranking that is
exported is a line in `EXPORTED`.
"""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from swg_fast.common.errors import UsageError
from swg_fast.envs.action_bounds import ActionBounds
from swg_fast.kernels.shared import analytic
from swg_fast.kernels.shared.packing import PackedNetwork, pack
from swg_fast.kernels.shared.sampler_table import Latent
from swg_fast.policy.backends.search import asked, ensemble_of, spread
from swg_fast.policy.bound_sampler import BoundSampler
from swg_fast.policy.rankings.ranked import Ranked, scores_of
from swg_fast.policy.search_plan import SearchPlan
from swg_fast.reference import philox
from swg_fast.reference.resample import keep, mean_of

EXPORTED = ("max_weight", "expected_weight", "max_q", "lcb_weight", "lcb_q", "none")
Kept = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # actions [B, A], weights [B], indices [B]


def check_exportable(plan: SearchPlan) -> None:
    """`UsageError` for a search that has no graph, by the setting's name."""
    config = plan.config
    if plan.teacher is not None:
        what, mend = f"finish={config.finish}", "leave finish out, so that the student decides alone"
        if config.finish is None:
            what, mend = f"ranking={config.ranking!r} of a student", "use ranking='ranker'"
    elif plan.tree is not None:
        what, mend = f"leaves={config.leaves}", "use leaves=1"
    elif config.keep_share < 1:
        what, mend = f"keep_share={config.keep_share:g}", "use keep_share=1"
    elif plan.ranks_by not in EXPORTED:
        what, mend = f"select={plan.ranks_by!r}", f"use select={', '.join(map(repr, EXPORTED))}"
    elif plan.expects == "draws":
        what, mend = "ranking='draws'", "use ranking='ranker' or 'read' where the policy has it"
    else:
        return
    raise UsageError(f"{what} cannot be exported; {mend}")


class Decision(nn.Module):
    """The decision of ``bound`` for B states, on the CPU in float32.

    ``bounds`` are those of the environment, in whose units actions come out; None leaves them in [-1, 1].
    `candidates` is N, or 1 where nothing is compared.

    Raises `UsageError` where the search has no graph.
    """

    beside: torch.Tensor
    ends: torch.Tensor
    inside: torch.Tensor

    def __init__(self, bound: BoundSampler, bounds: ActionBounds | None = None) -> None:
        super().__init__()
        check_exportable(bound.plan)
        self.plan, self.table = bound.plan, bound.plan.table
        config = bound.config
        self.candidates = 1 if config.select == "none" else config.n_candidates
        self.rows = range(self.table.num_steps - 1, -1, -1)
        packed = pack(bound.model.network, bound.model.schedule.num_steps)
        self._fixed: dict[str, Any] = {}
        for entry in fields(packed):
            value = getattr(packed, entry.name)
            if isinstance(value, torch.Tensor):
                self.register_buffer(f"packed_{entry.name}", value)
            else:
                self._fixed[entry.name] = value
        self.register_buffer("beside", plan_code(bound.plan))
        self.scales = bounds is not None
        bounds = bounds or ActionBounds.unit(bound.model.network.action_dim)
        self.register_buffer("ends", torch.tensor([bounds.low, bounds.high], dtype=torch.float64))
        self.register_buffer("inside", torch.from_numpy(bounds.inside.copy()))
        ensemble = ensemble_of(bound.model, self.plan.ranks_by)
        self.spreads = ensemble is not None
        judge = ensemble if ensemble is not None else {
            "expected_weight": bound.model.ranker if self.plan.expects == "ranker" else None,
            "max_q": bound.model.critic}.get(self.plan.ranks_by)
        self.judge = copy.deepcopy(judge).cpu() if judge is not None else None

    def packed(self) -> PackedNetwork:
        """The packed network, of this module's buffers."""
        placed: dict[str, Any] = {
            name.removeprefix("packed_"): buffer for name, buffer in self.named_buffers(recurse=False)
            if name.startswith("packed_")}
        return PackedNetwork(**self._fixed, **placed)

    def decide(self, states: torch.Tensor, noise: torch.Tensor, step_noise: torch.Tensor | None) -> Kept:
        """states [B, S], noise [B, N, D] of the start, step_noise [B, N, K, D] of the rows that add noise."""
        packed, n = self.packed(), self.candidates
        states = torch.cat([states, self.beside.expand(states.shape[0], -1)], dim=1)
        vectors = (states @ packed.input_s.T).repeat_interleave(n, dim=0)

        def network(z: torch.Tensor, j: int) -> tuple[torch.Tensor, torch.Tensor | None]:
            base = vectors + packed.time_table[self.table.steps[j]]
            return analytic.eps_and_weight_vjp(packed, z, base, self.table.guides(j))

        first = noise.flatten(0, 1)
        start = Latent(self.table.initial * first, None, first[:, -1])
        steps = {} if step_noise is None else dict(
            zip(self.table.noisy, step_noise.flatten(0, 1).unbind(1), strict=True))
        z, _, weight = analytic.walk(self.table, network, self.rows, start, steps)
        actions, weights = z[:, :-1].unflatten(0, (-1, n)), weight.unflatten(0, (-1, n))
        scores = self.scores(states, vectors, actions, weights)
        index = keep(torch.where(scores.isnan(), -torch.inf, scores))
        place = index[:, None]
        averaged = self.plan.config.averaged
        if averaged > 1:
            # ONNX has no stable sort; candidates that tie have one action.
            scores, order = torch.where(scores.isnan(), -torch.inf, scores).topk(averaged, dim=1)
            mean = mean_of(scores, order, torch.cat([actions, weights[..., None]], dim=2))
            return self.in_units(mean[:, :-1]), mean[:, -1], index
        action = actions.gather(1, place[..., None].expand(-1, 1, actions.shape[-1]))[:, 0]
        return self.in_units(action), weights.gather(1, place)[:, 0], index

    def scores(self, states: torch.Tensor, vectors: torch.Tensor, actions: torch.Tensor,
               weights: torch.Tensor) -> torch.Tensor:
        """What candidates' actions [B, N, A] are chosen by, [B, N]; ``vectors`` are their states'."""
        judged = ensemble = None
        if self.spreads:
            ensemble = spread(self.judge, states, actions)
        elif self.judge is not None:
            judged = asked(self.judge, states, actions)
        expected = judged
        if self.plan.expects == "read":
            clean = torch.nn.functional.pad(actions.flatten(0, 1), (0, 1))
            packed = self.packed()
            eps, _ = analytic.eps_and_weight_vjp(packed, clean, vectors + packed.read_row, guided=False)
            expected = -eps[:, -1].unflatten(0, (-1, self.candidates))
        return scores_of(self.plan.ranks_by, Ranked(self.plan.config, self.plan.selection_temperature,
                                                    weights, _no_noise, expected, judged,
                                                    ensemble=ensemble))

    def in_units(self, action: torch.Tensor) -> torch.Tensor:
        """Actions of [-1, 1] in the environment's units, as `ActionBounds.to_environment` has them."""
        if not self.scales:
            return action
        low, high = self.ends
        scaled = low + (action.double() + 1.0) * 0.5 * (high - low)
        return torch.minimum(torch.maximum(scaled.float(), self.inside[0]), self.inside[1])


class FromNoise(Decision):
    """The decision from a state [B, S] and noise [B, N, D], for a walk that adds none on its way."""

    def forward(self, state: torch.Tensor, noise: torch.Tensor) -> Kept:
        return self.decide(state, noise, None)


class FromAllNoise(Decision):
    """The decision from a state [B, S], noise [B, N, D], and step_noise [B, N, K, D] of the walk's K rows
    that add noise, in the order of the walk."""

    def forward(self, state: torch.Tensor, noise: torch.Tensor, step_noise: torch.Tensor) -> Kept:
        return self.decide(state, noise, step_noise)


class FromSeed(Decision):
    """The decision from a state [B, S] and a seed [] (int64), by the noise that `Policy.sample` draws: state
    b of the batch has the state word b."""

    def forward(self, state: torch.Tensor, seed: torch.Tensor) -> Kept:
        rows = torch.arange(state.shape[0])[:, None].expand(-1, self.candidates)
        words = torch.arange(self.candidates).expand_as(rows)
        steps = torch.tensor([self.table.trained_steps, *(self.table.steps[j] for j in self.table.noisy)])
        drawn = philox.normals(seed, words[..., None], rows[..., None], steps, self.plan.latent_dim)
        return self.decide(state, drawn[:, :, 0], drawn[:, :, 1:] if self.table.noisy else None)


def plan_code(plan: SearchPlan) -> torch.Tensor:
    """What stands beside a state, [K]; K may be 0."""
    return torch.empty(0) if plan.code is None else plan.code.detach().to("cpu", torch.float32)


def _no_noise() -> torch.Tensor:
    raise AssertionError(f"only {', '.join(EXPORTED)} are exported, and none of them draws")


def example(module: Decision) -> dict[str, Any]:
    """Inputs of two states by name, to trace the graph with."""
    width = module.packed().state_dim - len(module.beside)
    size = (2, module.candidates)
    latent = module.plan.latent_dim
    inputs: dict[str, Any] = {"state": torch.zeros(2, width)}
    if isinstance(module, FromSeed):
        return inputs | {"seed": torch.tensor(0)}
    inputs["noise"] = torch.zeros(*size, latent)
    if isinstance(module, FromAllNoise):
        inputs["step_noise"] = torch.zeros(*size, len(module.table.noisy), latent)
    return inputs
