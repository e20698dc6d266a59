"""What a run says before it trains: its data, what in them contradicts itself, and how long it will take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from swg_fast.common.console import print_table
from swg_fast.common.progress import Spare, say
from swg_fast.data import Transitions
from swg_fast.training.critic import CriticTrainer
from swg_fast.training.critics import CriticsTrainer
from swg_fast.training.diffusion import DiffusionTrainer
from swg_fast.training.loop import BLOCK
from swg_fast.training.preflight import check_run
from swg_fast.training.prepare import PreparedRun
from swg_fast.training.settings import TrainSettings
from swg_fast.training.step_taker import STRETCH, step_taker

SECONDS = 0.5  # how long the steps of a phase are timed
WORTH_TIMING = 2000  # steps; a shorter run is over as soon
LONG = 3600.0  # seconds; from here on the small preset is suggested


@dataclass(frozen=True)
class Expected:
    """The seconds that the phases of a training will take on this machine. critics: of an ensemble's."""

    critic: float
    actor: float
    critics: float = 0.0

    @property
    def total(self) -> float:
        return self.critic + self.actor + self.critics

    def __str__(self) -> str:
        ensemble = f", the ensemble's critics {_duration(self.critics)}" if self.critics else ""
        return (f"about {_duration(self.total)}: critic {_duration(self.critic)}, diffusion "
                f"{_duration(self.actor)}{ensemble}")


def show_opening(run: PreparedRun) -> None:
    """Prints the data of ``run``, their findings and the expected time on standard output. `UsageError` as
    `check_run` raises, since the timing builds the networks."""
    data, settings = run.data, run.settings
    check_run(data, settings, torch.device(run.options.device))
    rows = [("transitions", f"{len(data):,} in {len(np.unique(data.episodes)):,} episodes; {data.dropped}"),
            ("states", f"{data.observations.shape[1]} numbers"),
            ("actions", f"{data.actions.shape[1]} numbers; {data.units}"),
            ("rewards", f"{data.rewards.min():g} to {data.rewards.max():g}; transform "
                        f"{settings.reward_transform}")]
    if data.observation_keys is not None:
        rows.insert(2, ("observations", ", ".join(data.observation_keys)))
    print_table(run.task, rows, file=Spare("stdout"))
    if run.findings:
        print_table("the data contradict themselves (--strict refuses them)",
                    [(str(i), f"{found.what}: {found.done}") for i, found in enumerate(run.findings, 1)],
                    file=Spare("stdout"))
    if settings.critic_steps + settings.actor_steps >= WORTH_TIMING:
        expected = expected_time(data, settings, torch.device(run.options.device))
        small = "; '--preset small' ends in minutes" if expected.total > LONG else ""
        say(f"expected time: {expected}{small}")


def expected_time(data: Transitions, settings: TrainSettings, device: torch.device) -> Expected:
    """How long training on ``data`` will take, from a few steps of trainers that are then thrown away. The
    ranker and evaluations are not counted."""
    few = data.subset(np.arange(len(data)) < 4096)
    S, A = few.observations.shape[1], few.actions.shape[1]
    critic = CriticTrainer(S, A, settings, device)
    actor = DiffusionTrainer.of(settings, S, A, device)
    if actor.family is not None:
        actor.family = actor.family.fitted(torch.linspace(-1, 1, len(few)))
    rows = critic.pack(few, few.rewards)
    critics = 0.0
    if settings.critics:
        critics = settings.critic_steps * _step_seconds(CriticsTrainer(S, A, settings, device), rows)
    return Expected(settings.critic_steps * _step_seconds(critic, rows),
                    settings.actor_steps * _step_seconds(actor, actor.pack(few, np.ones_like(few.rewards))),
                    critics)


def _step_seconds(trainer: Any, rows: torch.Tensor) -> float:
    """Seconds of a step, after a first call that compiles what there is to compile."""
    draws = trainer.draw(torch.Generator().manual_seed(0), BLOCK, len(rows))
    draws = {name: tensor[:STRETCH].to(trainer.device) for name, tensor in draws.items()}
    chosen, take = draws.pop("rows"), step_taker(trainer)
    first = {name: tensor[:1] for name, tensor in draws.items()}
    take(rows, chosen[:1], first, 0)[-1].tolist()
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        take(rows, chosen, draws, steps + 1)[-1].tolist()  # waits for the device
        steps += STRETCH
    return (time.perf_counter() - started) / steps


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
