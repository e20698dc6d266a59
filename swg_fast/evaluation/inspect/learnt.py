"""The networks of a policy or of an unfinished run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from swg_fast.common.errors import UsageError
from swg_fast.data import Transitions
from swg_fast.envs.tasks import preset_for
from swg_fast.method.networks import TwinQ, ValueNetwork
from swg_fast.policy.policy import Policy, load_policy
from swg_fast.training.critic import CriticTrainer
from swg_fast.training.diffusion import DiffusionTrainer
from swg_fast.training.distillation.trainer import StudentTrainer
from swg_fast.training.history import HISTORY, read_history
from swg_fast.training.run_folder import RUN, read_record
from swg_fast.training.saved_state import load_newest_state, load_state, saved_steps
from swg_fast.training.source import Source

CPU = torch.device("cpu")


Load = Callable[[], Transitions]  # reads the data; `UsageError` where there are none


class Judge(NamedTuple):
    """The target Q, and V."""

    critic: TwinQ
    value: ValueNetwork


@dataclass(frozen=True)
class Learnt:
    """What there is to look at, on the CPU. judge: None where a student's teacher had no value, and in a
    distillation. policy: None before the actor's first saved state, and before a distillation's end."""

    judge: Judge | None
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


def load_learnt(source: Source, data: Load) -> Learnt:
    """The networks of ``source``.

    ``data`` is called for an unfinished training alone. Raises `UsageError` where there is nothing to look at
    (yet): of a policy without critic and value only a student is looked at.
    """
    if source.folder is None:
        return _under_way(source, data)
    policy = load_policy(source.folder)
    critic, value, distilled = policy.model.critic, policy.model.value, policy.model.walk is not None
    judge = Judge(critic, value) if critic is not None and value is not None else None
    if judge is None and not distilled:
        raise UsageError(f"{source.name}: this policy has no critic and value to look at (bundled ones leave "
                         "the value out); give one that 'swg-fast train' wrote")
    return Learnt(judge, policy, "distilled to the end" if distilled else "trained to the end")


def saved_critics(source: Source, data: Transitions) -> Iterator[tuple[int, CriticTrainer]]:
    """(step, critic) of each saved state, the oldest first. Raises `UsageError` where there is none."""
    steps = saved_steps(source.run / "states", CriticTrainer.phase) if source.run else []
    if not steps or source.settings is None:
        raise UsageError(f"{source.name}: no saved states of a critic here; give a run's folder")
    critic = CriticTrainer(data.observations.shape[1], data.actions.shape[1], source.settings, CPU)
    for step in steps:
        load_state(source.run / "states", critic, step)
        yield step, critic


def _under_way(source: Source, data: Load) -> Learnt:
    """The networks in an unfinished run's newest saved states; of a distillation, how far it is."""
    kind = read_record(source.run / RUN, None).kind if source.run is not None else "train"
    if kind == "rank":
        raise UsageError(f"{source.name}: its rankers or critics are not trained to the end yet; inspect the "
                         "policy that they are for, or wait")
    if source.run is not None and kind == "distill":
        steps = read_history(source.run / "logs" / HISTORY).get(StudentTrainer.phase)
        if not steps:
            raise UsageError(f"{source.name}: this distillation has logged no step yet; try again later")
        return Learnt(None, None, f"student at step {steps[-1]['step']:,}")
    settings, states, found = source.settings, source.run / "states", data()
    S, A = found.observations.shape[1], found.actions.shape[1]
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
    return Learnt(Judge(critic.target, critic.value), policy, progress)
