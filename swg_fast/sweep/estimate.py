"""How long a sweep will take: the work of its parts in units, and the seconds that a unit takes."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from swg_fast.sweep.cell_checks import counts_of, sampling_of
from swg_fast.sweep.cells import Cell, Training
from swg_fast.sweep.settings import RunSettings

STEPS = 96  # a timed training's steps of each phase
SECONDS = 1.0  # how long environments are stepped for a timing


def training_work(training: Training, critic: bool = True) -> float:
    """A training's multiplications in 1e9, up to a factor: batches x layers x width squared. ``critic`` is
    false where another training trains the critic."""
    s = training.settings
    networks = 3 * critic + 2 * (s["critics"] or 0)
    first = s["critic_steps"] * s["critic_batch"] * networks * 256**2
    actor = s["actor_steps"] * s["actor_batch"] * (1 + 8 * s["num_blocks"]) * s["hidden_dim"] ** 2
    return (first + actor) * 1e-9


def cell_work(cell: Cell) -> float:
    """An evaluation's candidates x denoising steps in 1e6 (a guided step counts three times), or a toy's
    training steps."""
    if cell.kind == "toy":
        return float(cell.settings["steps"])
    s = cell.settings
    steps = s.get("sampler_steps") or (cell.training.settings["num_steps"] if cell.training else 15)
    passes = steps * (1 if s.get("guidance_scale") == 0 else 3)
    # A call takes the same time for 1 to about 64 candidates.
    drawn = max(64, s.get("n_candidates") or 16)
    return _env_steps(cell) * drawn * passes * 1e-6


def _env_steps(cell: Cell) -> int:
    """The most steps that all episodes can take."""
    from swg_fast.envs.tasks import preset_for

    counts = counts_of(cell.settings)
    return counts.episodes * len(counts.seed) * (preset_for(cell.task).max_episode_steps or 1000)


@dataclass
class Work:
    """Work of one kind: units that are left, units that were timed, and the seconds that those took."""

    left: float = 0.0
    done: float = 0.0
    spent: float = 0.0


class TimeLeft:
    """Estimates the rest of a sweep's time from its finished part, ``slots`` cells at once."""

    def __init__(self, trainings: list[Training], cells: list[Cell], slots: int) -> None:
        self.slots = slots
        self.kinds = {kind: Work() for kind in ("train", "evaluate", "toy")}
        # Of trainings that share a critic the first trains it.
        critics = {t.critic_key: t.key for t in reversed(trainings)}
        self.with_critic = set(critics.values())
        for item in (*trainings, *cells):
            self.kind(item).left += self.work(item)

    def kind(self, item: Training | Cell) -> Work:
        return self.kinds["train" if isinstance(item, Training) else item.kind]

    def work(self, item: Training | Cell) -> float:
        if isinstance(item, Training):
            return training_work(item, item.key in self.with_critic)
        return cell_work(item)

    def add(self, item: Training | Cell, seconds: float | None) -> None:
        """Counts ``item`` as over; ``seconds`` is None where it failed or was not timed."""
        kind, work = self.kind(item), self.work(item)
        kind.left = max(0.0, kind.left - work)
        if seconds is not None:
            kind.done += work
            kind.spent += seconds

    def assume(self, seconds: dict[str, float]) -> None:
        """Takes ``seconds`` of a unit of work, by kind, for timed ones."""
        for kind, spent in seconds.items():
            self.kinds[kind].done, self.kinds[kind].spent = 1.0, spent

    def seconds(self) -> float | None:
        """None while work of a kind is left of which nothing was timed."""
        kinds = [kind for kind in self.kinds.values() if kind.left > 0]
        if any(kind.done == 0 for kind in kinds):
            return None
        return sum(kind.left * kind.spent / kind.done for kind in kinds) / self.slots


class Timing(NamedTuple):
    """Seconds of a unit of work by kind, and the labels of the cells that were timed."""

    seconds: dict[str, float]
    cells: str


def time_one(cells: list[Cell], run: RunSettings) -> Timing:
    """Times one cell of each kind, cut short, in this process: the cell with the most work, whose overheads
    weigh least."""
    import torch

    torch.set_num_threads(run.threads)
    rates: dict[str, float] = {}
    labels = []
    for kind in sorted({cell.kind for cell in cells}):
        cell = max((c for c in cells if c.kind == kind),
                   key=lambda c: (training_work(c.training) if c.training else 0.0, cell_work(c)))
        labels.append(cell.label)
        with tempfile.TemporaryDirectory() as folder:
            policy = cell.policy
            if cell.training:
                rates["train"] = _time_training(cell.training, Path(folder), run)
                policy = f"{folder}/policy"
            rates[kind] = _time_toy(cell) if kind == "toy" else _time_evaluation(cell, str(policy), run)
    return Timing(rates, "; ".join(labels))


def _time_training(training: Training, folder: Path, run: RunSettings) -> float:
    from swg_fast.data.load import load_for
    from swg_fast.training.history import HISTORY, read_history
    from swg_fast.training.loop import LoopOptions
    from swg_fast.training.run import train
    from swg_fast.training.settings import TrainSettings

    full = TrainSettings.from_dict(training.settings)
    short = replace(full, critic_steps=min(STEPS, full.critic_steps),
                    actor_steps=min(STEPS, full.actor_steps))
    data = load_for(training.task, training.source, trust=run.trust)
    options = LoopOptions(folder / "states", progress=False)
    train(data, short, folder, device=run.device, options=options)
    lines = read_history(folder / "logs" / HISTORY)
    rate = {phase: lines[phase][-1][f"{phase}/steps_per_second"] for phase in ("critic", "actor")}
    seconds = full.critic_steps / rate["critic"] + full.actor_steps / rate["actor"]
    return seconds / training_work(training)


def _time_evaluation(cell: Cell, policy_name: str, run: RunSettings) -> float:
    from swg_fast.envs.settings import EnvSettings
    from swg_fast.evaluation.episodes import free_running_rate
    from swg_fast.policy.policy import load_policy

    policy = load_policy(policy_name, run.device)
    sampling = sampling_of(cell.settings)
    counts = counts_of(cell.settings)
    envs = min(counts.episodes, counts.envs or 64)
    states = np.random.default_rng(0).standard_normal((-(-envs // 2), policy.state_dim)).astype(np.float32)
    policy.sample(states[:1], **sampling)
    started = time.perf_counter()
    policy.sample(states, **sampling)
    sampling_seconds = (time.perf_counter() - started) / len(states)
    stepping = 1 / free_running_rate(cell.task, envs, counts.workers or run.threads, SECONDS,
                                     EnvSettings(run.trust))
    return (sampling_seconds + stepping) * _env_steps(cell) / cell_work(cell)


def _time_toy(cell: Cell) -> float:
    from swg_fast.evaluation.toy import run_toy

    started = time.perf_counter()
    short = max(1, min(STEPS, cell.settings["steps"]))
    run_toy(**cell.settings | {"steps": short, "samples": 64}, progress=False)
    # Drawing the full number of samples is left out of the estimate.
    return (time.perf_counter() - started) / short
