"""Implicit Q-learning: twin Q, V and a Polyak-averaged target (SWG, Algorithm 3)."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from swg_fast.data import Transitions
from swg_fast.kernels.training import critic as native
from swg_fast.kernels.training.c_steps import Moments
from swg_fast.method.networks import LAYER_NORM_EPS, TwinQ, ValueNetwork
from swg_fast.training.flat_parameters import FlatParameters, adam_state, take_step
from swg_fast.training.learning_rate import cosine
from swg_fast.training.rewards import UNBOUNDED
from swg_fast.training.settings import TrainSettings


def expectile_loss(u: torch.Tensor, tau: float) -> torch.Tensor:
    """|tau - 1[u <= 0]| u**2, element by element."""
    return torch.where(u > 0, tau, 1.0 - tau) * u.square()


class CriticTrainer:
    """IQL over rows of a dataset; V first, then Q, then the target.

    ``bounds`` are the lowest and the highest possible return (`return_bounds`). The critic's targets are
    clipped to them, so that an error of one network cannot grow through the other.

    `step` is the step in plain PyTorch. On a CPU with a C compiler `steps` takes many steps in one call of
    `kernels.training.critic`; tests compare the two.
    """

    phase = "critic"
    rate_name = "critic_lr"
    loss_names = ("value_loss", "critic_loss")
    gradient: torch.Tensor | None = None  # of both losses; None is 1

    def __init__(self, state_dim: int, action_dim: int, settings: TrainSettings,
                 device: torch.device, bounds: tuple[float, float] = UNBOUNDED) -> None:
        self.settings = settings
        self.device = device
        self.bounds = bounds
        self.state_dim, self.action_dim = state_dim, action_dim
        self.q = self.new_q().to(device)
        self.value = self.new_value().to(device)
        self.target = copy.deepcopy(self.q).requires_grad_(False)
        self.q_flat = FlatParameters([self.q])
        self.value_flat = FlatParameters([self.value])
        self.target_flat = FlatParameters([self.target])
        self.learning_rate = torch.tensor(settings.critic_lr, device=device)
        self.polyak = torch.tensor(settings.polyak, dtype=torch.float32, device=device)
        adam = {"lr": self.learning_rate, "fused": True, "capturable": device.type == "cuda"}
        self.loops = native.loops() if device.type == "cpu" else None
        self.optimizers = {
            "q": torch.optim.Adam([self.q_flat.data], **adam),
            "value": torch.optim.Adam([self.value_flat.data], **adam),
        }

    def new_q(self) -> Any:
        """An untrained Q: what `Model.critic` is. A subclass trains another."""
        return TwinQ(self.state_dim, self.action_dim)

    def new_value(self) -> Any:
        """An untrained V, as `new_q`."""
        return ValueNetwork(self.state_dim, norm=self.settings.value_norm)

    def q_target(self, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """What V learns from, [B] or [members, B]."""
        return self.target.minimum(states, actions)

    def pack(self, data: Transitions, rewards: np.ndarray) -> torch.Tensor:
        """One row a transition, [s, s', a, r, 1 - terminal], so that a batch is one gather."""
        columns = [data.observations, data.next_observations, data.actions, rewards[:, None],
                   1.0 - data.terminals[:, None].astype(np.float32)]
        return torch.from_numpy(np.concatenate(columns, axis=1)).to(self.device)

    def draw(self, generator: torch.Generator, steps: int, rows: int) -> dict[str, torch.Tensor]:
        """The random numbers of ``steps`` steps."""
        shape = (steps, self.settings.critic_batch)
        draws = {"rows": torch.randint(rows, shape, generator=generator)}
        if self.settings.action_noise > 0:
            draws["noise"] = torch.randn(*shape, self.action_dim, generator=generator)
        return draws

    def _disturbed(self, batch: torch.Tensor, draws: dict[str, torch.Tensor]) -> torch.Tensor:
        """Packed rows with the drawn noise, if any, added to their actions, which stay in [-1, 1]."""
        if "noise" not in draws:
            return batch
        batch = batch.clone()
        actions = batch[:, 2 * self.state_dim:-2]
        actions.add_(draws["noise"].view_as(actions), alpha=self.settings.action_noise).clamp_(-1.0, 1.0)
        return batch

    def _losses(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The V loss, and a function for the Q loss, which uses V as it is when the function is called."""
        S = self.state_dim
        s, s_next, a = batch[:, :S], batch[:, S:2 * S], batch[:, 2 * S:-2]
        with torch.no_grad():
            q_target = self.q_target(s, a).clamp(*self.bounds)
        value_loss = expectile_loss(q_target - self.value(s), self.settings.expectile).mean()

        def critic_loss() -> torch.Tensor:
            with torch.no_grad():
                v_next = self.value(s_next).clamp(*self.bounds)
                td_target = batch[:, -2] + self.settings.discount * batch[:, -1] * v_next
            return (self.q(s, a) - td_target).square().mean()

        return value_loss, critic_loss

    def learning_rate_at(self, step: int) -> float:
        """Constant, or falling along a cosine from step 0 to zero at the last."""
        settings = self.settings
        share = cosine(step, settings.critic_steps) if settings.critic_cosine_decay else 1.0
        return settings.critic_lr * share

    def before_step(self, step: int) -> None:
        self.learning_rate.fill_(self.learning_rate_at(step))

    def masks(self, first: int, count: int) -> dict[str, torch.Tensor]:
        """What steps ``first`` and on draw as functions of their number: nothing."""
        return {}

    def step(self, batch: torch.Tensor, draws: dict[str, torch.Tensor]) -> torch.Tensor:
        """One update from packed rows [batch, ...]; returns the two losses, [2]."""
        value_loss, critic_loss = self._losses(self._disturbed(batch, draws))
        self.value_flat.zero_grad()
        value_loss.backward(self.gradient)
        take_step(self.optimizers["value"], self.value_flat)
        q_loss = critic_loss()
        self.q_flat.zero_grad()
        q_loss.backward(self.gradient)
        take_step(self.optimizers["q"], self.q_flat, self.target_flat, self.polyak)
        return torch.stack([value_loss.detach(), q_loss.detach()])

    def steps(self, data: torch.Tensor, rows: torch.Tensor, draws: dict[str, torch.Tensor],
              step: int) -> torch.Tensor:
        """Updates in C with each of ``rows`` [count, batch] of packed ``data``; the losses, [count, 2]."""
        assert self.loops is not None
        settings = self.settings
        if "noise" in draws:
            data = self._disturbed(data[rows.flatten()], draws)
            rows = torch.arange(rows.numel()).view_as(rows)
        shape = native.CriticShape(
            self.state_dim, self.action_dim, self.q.hidden_dim, settings.discount, settings.polyak,
            settings.expectile, LAYER_NORM_EPS, *self.bounds, settings.value_norm)
        rates = torch.tensor([self.learning_rate_at(step + i) for i in range(len(rows))])
        q, value = (adam_state(self.optimizers[name]) for name in ("q", "value"))
        losses = self.loops.steps(
            shape, Moments(self.q_flat.data, q), self.target_flat.data,
            Moments(self.value_flat.data, value), data, rows, rates, int(q["step"]))
        for state in (q, value):
            state["step"] += len(rows)
        return losses

    @torch.no_grad()
    def evaluate(self, batch: torch.Tensor, draws: dict[str, torch.Tensor]) -> torch.Tensor:
        """The two losses on held-out rows, [2]."""
        value_loss, critic_loss = self._losses(self._disturbed(batch, draws))
        return torch.stack([value_loss, critic_loss()])

    def flats(self) -> dict[str, FlatParameters]:
        return {"q": self.q_flat, "value": self.value_flat, "target": self.target_flat}

    @torch.no_grad()
    def advantages(self, data: Transitions, batch: int = 65536) -> torch.Tensor:
        """u = min target Q - V of every transition's own action, [N] on the CPU."""
        parts = []
        for i in range(0, len(data), batch):
            s = torch.from_numpy(data.observations[i:i + batch]).to(self.device)
            a = torch.from_numpy(data.actions[i:i + batch]).to(self.device)
            parts.append((self.target.minimum(s, a) - self.value(s)).cpu())
        return torch.cat(parts)
