"""One guided step by `sample_kernel`: a walk over one row of a sampler's table, from a known draw."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from conftest import make_network, relative_error

from swg_fast import NoiseSchedule, reference
from swg_fast.kernels.fused import launch
from swg_fast.kernels.fused.configurations import Config
from swg_fast.kernels.shared.sampler_table import COLUMNS, SamplerTable
from swg_fast.method.networks import ScoreNetwork
from swg_fast.reference import philox

MUCH = 1024.0  # times the gradient is added to eps, so that rounding of the sum hardly affects it


@dataclass(frozen=True)
class Start:
    """N candidates of each of B states before the step ``t`` of ``T``, M = B N rows in all. Their z is
    ``scale`` times their initial draw. Noise words are those of candidates from ``first`` on and of ``words``
    [B]; without ``words`` state b has the word b."""

    states: torch.Tensor  # [B, S]
    N: int
    D: int
    t: int
    T: int = 15
    scale: float = 1.0
    seed: int = 9
    first: int = 0
    words: torch.Tensor | None = None

    @property
    def state_words(self) -> torch.Tensor:
        """[B]"""
        words = torch.arange(len(self.states)) if self.words is None else self.words
        return words.to(self.states.device)

    @property
    def owners(self) -> torch.Tensor:
        """Each row's state, [M]."""
        return torch.arange(len(self.states), device=self.states.device).repeat_interleave(self.N)

    def _draw(self, step: int) -> torch.Tensor:
        candidates = torch.arange(self.first, self.first + self.N, device=self.states.device)
        return philox.normals(self.seed, candidates, self.state_words[:, None], step, self.D).flatten(0, 1)

    @property
    def z(self) -> torch.Tensor:
        """[M, D]"""
        return self.scale * self._draw(self.T)

    @property
    def noise(self) -> torch.Tensor:
        """[M, D]"""
        return self._draw(self.t)

    def expected(self, network: ScoreNetwork, schedule: NoiseSchedule, **keywords: Any) -> reference.Step:
        """The reference's step."""
        return reference.guided_step(network, schedule, self.states[self.owners], self.z, self.t, self.noise,
                                     **keywords)


def centred(network: ScoreNetwork, schedule: NoiseSchedule, start: Start) -> ScoreNetwork:
    """``network`` with predicted weights around the middle of the clip, so that guidance acts."""
    z = start.z
    with torch.no_grad():
        eps_w = network(z, start.states[start.owners], torch.tensor(start.t, device=z.device))[:, -1]
        bias = network.output.bias if network.weight_head == "joint" else network.weight_output.bias
        bias[-1] += ((z[:, -1] - 0.1) / float(schedule.sigmas[start.t]) - eps_w).median()
    return network


def step_problem(hidden: int, head: str, N: int) -> tuple[NoiseSchedule, ScoreNetwork, Start]:
    """A step at t = 6 of 15 of one state, 8 actions."""
    states = torch.randn(1, 5, generator=torch.Generator().manual_seed(1))
    schedule, start = NoiseSchedule.vp(15), Start(states, N, 9, 6)
    return schedule, centred(make_network(5, 8, hidden, 3, head), schedule, start), start


def row(table: SamplerTable, j: int, start: Start) -> SamplerTable:
    """Row ``j`` alone."""
    return replace(table, coefficients=table.coefficients[j:j + 1], steps=table.steps[j:j + 1],
                   initial=start.scale)


def probe(table: SamplerTable, guidance: float) -> SamplerTable:
    """Rows whose new z is eps - ``guidance`` times the gradient, unclipped."""
    columns = {"epsilon": 1.0, "guidance": guidance}
    coefficients = torch.zeros_like(table.coefficients)
    for at, name in enumerate(COLUMNS):
        kept = name in ("sigma", "readout")
        coefficients[:, at] = table.coefficients[:, at] if kept else columns.get(name, 0.0)
    return replace(table, coefficients=coefficients, clip_state=False, clip_clean=False)


def walk(fused: launch.KernelNetwork, table: SamplerTable, start: Start, config: Config | None
         ) -> tuple[torch.Tensor, torch.Tensor]:
    """(z [M, D], the unclipped weight [M]) at the end of the table's walk."""
    drawn = launch.sample(
        fused, table, start.states, start.state_words,
        launch.Asked(start.N, start.seed, start.first, return_candidates=True, config=config))
    return drawn.z.flatten(0, 1), drawn.candidate_weights.flatten()


def eps_of(fused: launch.KernelNetwork, table: SamplerTable, start: Start, config: Config | None
           ) -> torch.Tensor:
    """eps [M, D] of a table of one row."""
    return walk(fused, probe(table, 0.0), start, config)[0]


def with_gradient(fused: launch.KernelNetwork, table: SamplerTable, start: Start, config: Config | None
                  ) -> torch.Tensor:
    """eps + MUCH gradient, [M, D]; equals eps to the bit where the gradient is 0."""
    return walk(fused, probe(table, -MUCH), start, config)[0]


def gradient_of(eps: torch.Tensor, sum_of_both: torch.Tensor) -> torch.Tensor:
    """The gradient [M, D] of the logarithm of the clipped weight, from the results of `eps_of` and
    `with_gradient`."""
    return (sum_of_both - eps) / MUCH


def check_gradient(eps: torch.Tensor, gradient: torch.Tensor, expected: reference.Step, z: torch.Tensor,
                   sigma: float, bound: float) -> None:
    """Compares the gradient with the reference's. A weight within rounding of a clip may fall on either side
    of it; up to two such rows are skipped. In the others the gradient is multiplied by the clean weight that
    divides it, so that only the gradient's own error shows."""
    theirs = expected.grad_log_weight
    both = (gradient.abs().sum(1) > 0) == (theirs.abs().sum(1) > 0)
    assert int(theirs.abs().sum(1).count_nonzero()) > len(z) // 8 and int((~both).sum()) <= 2
    mine, theirs = ((g * (z - sigma * e)[:, -1:])[both] for g, e in ((gradient, eps), (theirs, expected.eps)))
    assert relative_error(mine, theirs) < bound
