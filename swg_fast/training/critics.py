"""An ensemble of critics, whose disagreement says how little the data tell of an action's value.

Every member is an IQL critic of its own: one Q, its V and its target, so that no member learns from another.
Targets that members share can turn a lower bound into an optimistic value (Ghasemipour et al., arXiv
2205.13703).
"""

from __future__ import annotations

import torch

from swg_fast.method.networks import EnsembleQ, EnsembleV
from swg_fast.training.critic import CriticTrainer
from swg_fast.training.rewards import UNBOUNDED
from swg_fast.training.settings import TrainSettings


class CriticsTrainer(CriticTrainer):
    """``settings.critics`` critics as one batch, on the same rows, with the critic's settings.

    Losses are the means over the members. Each member's gradient is that of its own loss, so that it learns
    what it would learn alone. Trained by PyTorch's operators, since the compiled steps are for one critic.
    """

    phase = "critics"

    def __init__(self, state_dim: int, action_dim: int, settings: TrainSettings,
                 device: torch.device, bounds: tuple[float, float] = UNBOUNDED) -> None:
        assert settings.critics is not None
        self.members = settings.critics
        super().__init__(state_dim, action_dim, settings, device, bounds)
        self.gradient = torch.tensor(float(self.members), device=device)
        self.loops = None

    def new_q(self) -> EnsembleQ:
        return EnsembleQ(self.state_dim, self.action_dim, members=self.members)

    def new_value(self) -> EnsembleV:
        return EnsembleV(self.state_dim, self.q.hidden_dim, self.members, self.settings.value_norm)

    def q_target(self, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return self.target(states, actions)
