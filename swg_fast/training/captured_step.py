"""On CUDA, a whole training step as one captured graph, without Python and launch gaps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from swg_fast.kernels.shared.cuda_graph import capture
from swg_fast.kernels.shared.devices import current
from swg_fast.training.flat_parameters import adam_state
from swg_fast.training.saved_state import gather_state

Step = Callable[[torch.Tensor, dict[str, torch.Tensor]], torch.Tensor]


def captured_step(trainer: Any, batch: torch.Tensor, draws: dict[str, torch.Tensor]) -> Step:
    """``trainer.step`` as a graph replay for inputs shaped like ``batch`` and ``draws``.

    The warm-up's effect on the trainer is undone, so that a captured run and an eager one, or a
    resumed one, take the same steps.
    """
    for optimizer in trainer.optimizers.values():
        adam_state(optimizer)  # so that it can be saved and restored around the warm-up
    saved = {name: tensor.clone() for name, tensor in gather_state(trainer).items()}
    batch = batch.clone()
    draws = {name: tensor.clone() for name, tensor in draws.items()}
    losses = torch.zeros(len(trainer.loss_names), device=batch.device)

    def once() -> None:
        losses.copy_(trainer.step(batch, draws))

    with current(batch.device):
        replay = capture(once)
    for name, tensor in gather_state(trainer).items():
        tensor.copy_(saved[name])

    def step(new_batch: torch.Tensor, new_draws: dict[str, torch.Tensor]) -> torch.Tensor:
        batch.copy_(new_batch)
        for name, tensor in draws.items():
            tensor.copy_(new_draws[name])
        replay()
        return losses.clone()

    return step
