"""The advantages that a finished policy's critic gives to a dataset's actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from swg_fast.common.errors import UsageError
from swg_fast.common.seeds import stream_seed
from swg_fast.data import Transitions
from swg_fast.method.networks import TwinQ, ValueNetwork
from swg_fast.policy.model import Model
from swg_fast.training.critic import expectile_loss
from swg_fast.training.settings import TrainSettings

BATCH, LEARNING_RATE = 512, 1e-3  # of a V that is fitted again
AT_ONCE = 65536  # rows


@torch.no_grad()
def _in_parts(function: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
    return torch.cat([function(*part) for part in zip(*(t.split(AT_ONCE) for t in tensors), strict=True)])


def find_advantages(model: Model, data: Transitions, settings: TrainSettings, value_steps: int
                    ) -> torch.Tensor:
    """min Q - V [N] of every transition's own action, on the CPU. Where ``model`` was saved without V, V is
    fitted to its Q in ``value_steps`` steps. Raises as `check_critic` does."""
    critic, value = check_critic(model), model.value
    states, actions = torch.from_numpy(data.observations), torch.from_numpy(data.actions)
    if value is None:
        value = fit_value(critic, states, actions, settings, value_steps)
    return _in_parts(lambda s, a: critic.minimum(s, a) - value(s), states, actions)


def check_critic(model: Model) -> TwinQ:
    """The critic of ``model``. `UsageError` where it has none."""
    if model.critic is None:
        raise UsageError("this policy has no critic, whose weights a ranker learns; leave out rankers, or "
                         "use a policy that was saved with its critic")
    return model.critic


def fit_value(critic: TwinQ, states: torch.Tensor, actions: torch.Tensor, settings: TrainSettings, steps: int
              ) -> ValueNetwork:
    """V by the critic's own expectile loss, with Q as it is. It learns Q standardised."""
    q = _in_parts(critic.minimum, states, actions)
    mean, spread = q.mean(), q.std()
    torch.manual_seed(stream_seed(settings.seed, "value", "initialise"))
    value = ValueNetwork(states.shape[1], norm=settings.value_norm)
    optimizer = torch.optim.Adam(value.parameters(), lr=LEARNING_RATE)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(stream_seed(settings.seed, "value", "rows"))
    for _ in range(steps):
        rows = torch.randint(len(states), (BATCH,), generator=generator)
        loss = expectile_loss((q[rows] - mean) / spread - value(states[rows]), settings.expectile).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    with torch.no_grad():
        last: Any = value.layers[-1]
        last.weight.mul_(spread)
        last.bias.mul_(spread).add_(mean)
    return value
