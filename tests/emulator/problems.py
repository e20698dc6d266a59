"""What the compiled kernels are given to do in the tests."""

from __future__ import annotations

from typing import Any

import torch
from conftest import make_network

from swg_fast import NoiseSchedule
from swg_fast.method.networks import ScoreNetwork

# Seeds of the order in which warps run, and when what is asynchronous acts.
SCHEDULES = ((0, "late"), (1, "random"))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same_bits(outputs: list[tuple[torch.Tensor | None, ...]]) -> bool:
    """Whether all runs gave the same, NaN for NaN."""
    return all(
        torch.equal(a.nan_to_num(nan=7e7), b.nan_to_num(nan=7e7))
        for other in outputs[1:]
        for a, b in zip(outputs[0], other, strict=True)
        if a is not None
    )


def step_problem(hidden: int, head: str, M: int, A: int = 8) -> tuple[NoiseSchedule, ScoreNetwork, Any]:
    """(schedule, network, z, states, noise, owners) of a step at t = 6 of 15, with predicted weights around
    the middle of the clip, so that guidance acts."""
    schedule, network = NoiseSchedule.vp(15), make_network(5, A, hidden, 3, head)
    z, states, noise, owner = (
        random(M, A + 1),
        random(3, 5, seed=1),
        random(M, A + 1, seed=2),
        torch.arange(M) % 3,
    )
    with torch.no_grad():
        eps_w = network(z, states[owner], torch.tensor(6))[:, -1]
        bias = network.output.bias if head == "joint" else network.weight_output.bias
        bias[-1] += ((z[:, -1] - 0.1) / float(schedule.sigmas[6]) - eps_w).median()
    return schedule, network, z, states, noise, owner
