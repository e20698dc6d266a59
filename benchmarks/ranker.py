"""Trains a ranker for a checkpoint without one, on the dataset of its critic.

    python -m benchmarks.ranker hopper-medium-v2 --data FILE --out runs/hopper-ranker

Advantages need a value network, which a bundled policy lacks: it is fitted again by the critic's own loss,
with a fixed Q. The checkpoint goes to OUT/policy. 'swg-fast train --ranker-steps' trains both at once.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click
import torch

from swg_fast.cli.ending import run
from swg_fast.common.errors import UsageError
from swg_fast.common.seeds import stream_seed
from swg_fast.data import Transitions
from swg_fast.data.load import load_for
from swg_fast.method.networks import TwinQ, ValueNetwork
from swg_fast.method.weight_functions import compute_weights
from swg_fast.policy.checkpoint import load_checkpoint, save_checkpoint
from swg_fast.policy.model import Model
from swg_fast.training.critic import expectile_loss
from swg_fast.training.loop import LoopOptions
from swg_fast.training.run import train_ranker
from swg_fast.training.settings import TrainSettings

BATCH = 512
PART = 65536  # rows evaluated at once


@torch.no_grad()
def in_parts(function: Any, *tensors: torch.Tensor) -> torch.Tensor:
    return torch.cat([function(*part) for part in zip(*(t.split(PART) for t in tensors), strict=True)])


def fit_value(critic: TwinQ, states: torch.Tensor, actions: torch.Tensor, expectile: float, steps: int,
              seed: int) -> ValueNetwork:
    """Fits V to a fixed critic."""
    q = in_parts(critic.minimum, states, actions)
    mean, spread = q.mean(), q.std()
    torch.manual_seed(stream_seed(seed, "value", "initialise"))
    value = ValueNetwork(states.shape[1])
    optimizer = torch.optim.Adam(value.parameters(), lr=1e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(stream_seed(seed, "value", "rows"))
    for _ in range(steps):
        rows = torch.randint(len(states), (BATCH,), generator=generator)
        loss = expectile_loss((q[rows] - mean) / spread - value(states[rows]), expectile).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    with torch.no_grad():
        value.layers[-1].weight.mul_(spread)
        value.layers[-1].bias.mul_(spread).add_(mean)
    return value


def find_advantages(policy: Model, data: Transitions, settings: TrainSettings, steps: int
                    ) -> torch.Tensor:
    """min Q - V [N] of every transition; V is fitted here if ``policy`` has none."""
    states, actions = torch.from_numpy(data.observations), torch.from_numpy(data.actions)
    if policy.critic is None:
        raise UsageError("the checkpoint has no critic, whose advantages a ranker learns")
    critic, value = policy.critic, policy.value
    if value is None:
        value = fit_value(critic, states, actions, settings.expectile, steps, settings.seed)
    return in_parts(lambda s, a: critic.minimum(s, a) - value(s), states, actions)


@click.command()
@click.argument("checkpoint")
@click.option("--data", required=True, help="D4RL file or name.")
@click.option("--task", help="[default: the card's]")
@click.option("--out", type=Path, required=True)
@click.option("--value-steps", default=5000, help="Steps that fit V again.")
@click.option("--steps", default=10_000, help="Steps of the ranker.")
@click.option("--hidden-dim", default=128)
@click.option("--others", default=0.0, help="Weight in the loss of actions outside the data.")
def main(checkpoint: str, data: str, task: str | None, out: Path, value_steps: int, steps: int,
         hidden_dim: int, others: float) -> None:
    policy = load_checkpoint(checkpoint)
    own = policy.card["training"]["settings"]
    known = {field.name for field in fields(TrainSettings)}
    settings = replace(TrainSettings(**{k: v for k, v in own.items() if k in known}), ranker_steps=steps,
                       ranker_hidden_dim=hidden_dim, ranker_others=others)
    loaded = load_for(task or policy.card["task"], data)
    advantages = find_advantages(policy, loaded, settings, value_steps)
    weights = compute_weights(advantages, settings.weight_function, settings.parameter_of_weights(),
                              rescale=settings.rescale_weights).numpy()
    (out / "states").mkdir(parents=True, exist_ok=True)
    options = LoopOptions(out / "states", log_every=1000, save_every=steps, history=out / "history.jsonl")
    ranker, _ = train_ranker(loaded, weights, settings, torch.device("cpu"), options)
    record = {"steps": steps, "hidden_dim": hidden_dim, "others": others, "value_steps": value_steps,
              "weights_mean": float(weights.mean())}
    policy = replace(policy.with_card(ranker_training=record), ranker=ranker)
    click.echo(save_checkpoint(out / "policy", policy))


if __name__ == "__main__":
    run(main)
