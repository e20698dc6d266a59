"""The networks of a policy or of an unfinished run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from swg_fast.common.errors import UsageError
from swg_fast.data import Transitions
from swg_fast.envs.tasks import preset_for
from swg_fast.method.networks import TwinQ, ValueNetwork
from swg_fast.policy.policy import Policy, load_policy
from swg_fast.training.critic import CriticTrainer
from swg_fast.training.diffusion import DiffusionTrainer
from swg_fast.training.saved_state import load_newest_state, load_state, saved_steps
from swg_fast.training.source import Source

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Learnt:
    """The target Q, V, and the policy (None before the actor's first saved state), on the CPU."""

    critic: TwinQ
    value: ValueNetwork
    policy: Policy | None
    progress: str  # how far the training was, in words


def check_task_fits(source: Source, task: str | None) -> None:
    """`UsageError` where ``task`` is of another family than the one that ``source`` was trained for."""
    if task is None or source.task is None:
        return
    mine, asked = preset_for(source.task, any_name=True).family, preset_for(task).family
    if mine != asked:
        raise UsageError(f"{source.name} was trained for {source.task} ({mine}) and {task} is of another "
                         f"family ({asked}); leave out --task")


def load_learnt(source: Source, data: Transitions) -> Learnt:
    """The networks of ``source``.

    Raises `UsageError` where it has no critic and value (yet), or where their sizes are not ``data``'s.
    """
    if source.folder is None:
        return _under_way(source, data)
    policy = load_policy(source.folder)
    sizes = data.observations.shape[1], data.actions.shape[1]
    if sizes != (policy.state_dim, policy.action_dim):
        raise UsageError(f"{source.name} is for states of {policy.state_dim} and actions of "
                         f"{policy.action_dim}, the dataset has {sizes[0]} and {sizes[1]}; give the dataset "
                         "that it was trained on")
    if policy.model.critic is None or policy.model.value is None:
        raise UsageError(f"{source.name}: this policy has no critic and value to look at (bundled ones leave "
                         "the value out); give one that 'swg-fast train' wrote")
    return Learnt(policy.model.critic, policy.model.value, policy, "trained to the end")


def saved_critics(source: Source, data: Transitions) -> Iterator[tuple[int, CriticTrainer]]:
    """(step, critic) of each saved state, the oldest first. Raises `UsageError` where there is none."""
    steps = saved_steps(source.run / "states", CriticTrainer.phase) if source.run else []
    if not steps or source.settings is None:
        raise UsageError(f"{source.name}: no saved states of a critic here; give a run's folder")
    critic = CriticTrainer(data.observations.shape[1], data.actions.shape[1], source.settings, CPU)
    for step in steps:
        load_state(source.run / "states", critic, step)
        yield step, critic


def _under_way(source: Source, data: Transitions) -> Learnt:
    """The networks in an unfinished run's newest saved states."""
    settings, states = source.settings, source.run / "states"
    S, A = data.observations.shape[1], data.actions.shape[1]
    critic = CriticTrainer(S, A, settings, CPU)
    steps = load_newest_state(states, critic)
    if not steps:
        raise UsageError(f"{source.name}: this run has saved no state yet; try again later")
    progress = f"critic at step {steps:,} of {settings.critic_steps:,}"
    diffusion = DiffusionTrainer.of(settings, S, A, CPU)
    steps = load_newest_state(states, diffusion)
    if steps:
        progress += f", actor at step {steps:,} of {settings.actor_steps:,}"
    card = {"weight_family": diffusion.family.to_card()} if diffusion.family else {}
    policy = Policy(diffusion.ema, diffusion.schedule, critic.target, card=card) if steps else None
    return Learnt(critic.target, critic.value, policy, progress)
