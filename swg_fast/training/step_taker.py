"""How a trainer's steps are taken: many in one call of compiled code, a replayed graph, or one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from swg_fast.training.captured_step import Step, captured_step

STRETCH = 8  # steps between two checks for an interruption, where a step may take 0.1 s

Steps = Callable[[torch.Tensor, torch.Tensor, dict[str, torch.Tensor], int], torch.Tensor]


def step_taker(trainer: Any, graph: bool = True) -> Steps:
    """A function (data, rows [count, batch], draws [count, ...], the first step's number) that takes
    ``count`` steps and returns their losses, [count, 2].

    On a CPU it is the trainer's compiled ``steps`` where there are any; on CUDA ``trainer.step`` is
    captured at the first call, unless ``graph`` is false.
    """
    if trainer.loops is not None:
        return trainer.steps
    graph = graph and trainer.device.type == "cuda"
    take: Step | None = None

    def steps(data: torch.Tensor, rows: torch.Tensor, draws: dict[str, torch.Tensor],
              first: int) -> torch.Tensor:
        nonlocal take
        draws = draws | trainer.masks(first, len(rows))
        losses = []
        for index, batch in enumerate(data[rows]):
            one = {name: tensor[index] for name, tensor in draws.items()}
            trainer.before_step(first + index)
            take = take or (captured_step(trainer, batch, one) if graph else trainer.step)
            losses.append(take(batch, one))
        return torch.stack(losses)

    return steps
