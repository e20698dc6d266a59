"""Learns a student by regression: the diffusion's own training steps, with other inputs and targets."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from swg_fast.common.seeds import stream_seed
from swg_fast.method.networks import ScoreNetwork
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.training.diffusion import DiffusionTrainer
from swg_fast.training.distillation.settings import DistillSettings

RISE = 100  # steps in which the learning rate rises to the full one


class StudentTrainer(DiffusionTrainer):
    """Steps on packed pairs (`PairMaker.packed`). With signal and noise at 1, a "noised sample" is a call's
    input and the "noise" in it what the call has to add."""

    phase = "student"
    rate_name = "learning_rate"

    def __init__(self, network: ScoreNetwork, schedule: NoiseSchedule, settings: DistillSettings,
                 device: torch.device) -> None:
        super().__init__(network, schedule, settings.as_training(), device)
        self.signal = torch.ones(schedule.num_steps, device=device)
        self.noise = torch.ones_like(self.signal)

    def learning_rate_at(self, step: int) -> float:
        """The diffusion's cosine after a rise: at the full rate the first steps would undo the weights that
        the student begins from."""
        return super().learning_rate_at(step) * min(1.0, (step + 1) / RISE)

    def draw(self, generator: torch.Generator, steps: int, rows: int) -> dict[str, torch.Tensor]:
        return {"rows": torch.randint(rows, (steps, self.settings.actor_batch), generator=generator)}

    def _losses(self, network: ScoreNetwork, batch: torch.Tensor,
                draws: dict[str, torch.Tensor]) -> torch.Tensor:
        D = network.latent_dim
        inputs = batch[:, :D + network.state_dim]
        return super()._losses(network, inputs, {"noise": batch[:, -D - 1:-1], "t": batch[:, -1].long()})

    def steps(self, data: torch.Tensor, rows: torch.Tensor, draws: dict[str, torch.Tensor],
              step: int) -> torch.Tensor:
        D = self.network.latent_dim
        batch = data[rows]
        inputs = batch[..., :D + self.network.state_dim].flatten(0, 1).contiguous()
        own = {"noise": batch[..., -D - 1:-1], "t": batch[..., -1].long()}
        return super().steps(inputs, torch.arange(rows.numel()).view(rows.shape), own, step)


def student_sizes(teacher: ScoreNetwork, width: int, settings: DistillSettings) -> dict[str, Any]:
    """`ScoreNetwork`'s arguments for a student that has ``width`` inputs more beside the state."""
    chosen = {"hidden_dim": settings.hidden_dim, "num_blocks": settings.num_blocks}
    return teacher.config() | {"state_dim": teacher.state_dim + width, "dropout": 0.0} | {
        name: value for name, value in chosen.items() if value is not None}


def new_student(teacher: ScoreNetwork, width: int, settings: DistillSettings) -> ScoreNetwork:
    """The student before learning: the teacher's weights where it has its sizes, with ``width`` inputs more
    beside the state that have no effect yet; else weights of its own."""
    torch.manual_seed(stream_seed(settings.seed, "initialise"))
    student = ScoreNetwork(**student_sizes(teacher, width, settings))
    if (student.hidden_dim, student.num_blocks) == (teacher.hidden_dim, teacher.num_blocks):
        weights = dict(teacher.state_dict())
        known = teacher.latent_dim + teacher.state_dim
        first = weights["input.weight"]
        gap = F.pad(first[:, :0], (0, width))
        weights["input.weight"] = torch.cat([first[:, :known], gap, first[:, known:]], dim=1)
        student.load_state_dict(weights)
    return student
