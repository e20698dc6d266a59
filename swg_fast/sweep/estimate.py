"""How long a sweep will take: work in units that cells can be compared by, and the seconds of one unit."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from swg_fast.sweep.cells import Cell, Training
from swg_fast.sweep.worker import OWN, device_of

STEPS = 96  # a timed training's steps of each phase
SECONDS = 1.0  # how long environments are stepped for a timing


def training_work(training: Training, critic: bool = True) -> float:
    """Multiplications of a training, in 1e9, up to a factor: batches times layers times width squared.
    Without ``critic`` where another training has it."""
    s = training.settings
    first = s["critic_steps"] * s["critic_batch"] * 3 * 256**2 if critic else 0
    actor = s["actor_steps"] * s["actor_batch"] * (1 + 8 * s["num_blocks"]) * s["hidden_dim"] ** 2
    return (first + actor) * 1e-9


def cell_work(cell: Cell) -> float:
    """Of an evaluation, candidates drawn times denoising steps (a guided step counts for three); of a toy,
    training steps."""
    if cell.kind == "toy":
        return float(cell.settings["steps"])
    s = cell.settings
    steps = s.get("sampler_steps") or (cell.training.settings["num_steps"] if cell.training else 15)
    passes = steps * (1 if s.get("guidance_scale") == 0 else 3)
    # Below about 64 candidates a call costs the same, whatever their number.
    drawn = max(64, s.get("n_candidates") or 16)
    return _env_steps(cell) * drawn * passes * 1e-6


def _env_steps(cell: Cell) -> int:
    """At most, of all episodes."""
    from swg_fast.envs.tasks import preset_for

    return cell.settings.get("episodes", 10) * (preset_for(cell.task).max_episode_steps or 1000)


class TimeLeft:
    """Seconds that the rest of a sweep will take, from what is finished."""

    def __init__(self, trainings: list[Training], cells: list[Cell], slots: int) -> None:
        self.slots = slots
        self.left = {"train": 0.0, "evaluate": 0.0, "toy": 0.0}
        self.done = dict(self.left)
        self.spent = dict(self.left)
        # Of trainings that share a critic the first trains it.
        critics = {t.critic_key: t.key for t in reversed(trainings)}
        self.with_critic = set(critics.values())
        for item in (*trainings, *cells):
            self.left[self.kind(item)] += self.work(item)

    @staticmethod
    def kind(item: Training | Cell) -> str:
        return "train" if isinstance(item, Training) else item.kind

    def work(self, item: Training | Cell) -> float:
        if isinstance(item, Training):
            return training_work(item, item.key in self.with_critic)
        return cell_work(item)

    def add(self, item: Training | Cell, seconds: float | None) -> None:
        """``item`` is over; None seconds where it failed or its time is not known."""
        kind, work = self.kind(item), self.work(item)
        self.left[kind] = max(0.0, self.left[kind] - work)
        if seconds is not None:
            self.done[kind] += work
            self.spent[kind] += seconds

    def seconds(self) -> float | None:
        """None while a kind of work is left of which nothing has been timed."""
        total = 0.0
        for kind, left in self.left.items():
            if left > 0 and self.done[kind] == 0:
                return None
            total += left * self.spent[kind] / self.done[kind] if left > 0 else 0.0
        return total / self.slots


def time_one(cells: list[Cell], run: dict[str, Any]) -> tuple[dict[str, float], str]:
    """Times one cell of each kind, cut short, in this process: the seconds of a unit of work by kind, and in
    words which cells. Of several the one with the most work, whose overheads weigh least."""
    import torch

    torch.set_num_threads(run["threads"])
    rates: dict[str, float] = {}
    labels = []
    for kind in sorted({cell.kind for cell in cells}):
        cell = max((c for c in cells if c.kind == kind),
                   key=lambda c: (training_work(c.training) if c.training else 0.0, cell_work(c)))
        labels.append(cell.label)
        with tempfile.TemporaryDirectory() as folder:
            policy = cell.policy
            if cell.training:
                rates["train"], policy = _time_training(cell.training, Path(folder), run)
            rates[kind] = _time_toy(cell) if kind == "toy" else _time_evaluation(cell, str(policy), run)
    return rates, "; ".join(labels)


def _time_training(training: Training, folder: Path, run: dict[str, Any]) -> tuple[float, Path]:
    from swg_fast.sweep.store import load
    from swg_fast.training.history import HISTORY, read_history
    from swg_fast.training.loop import LoopOptions
    from swg_fast.training.run import train
    from swg_fast.training.settings import TrainSettings

    full = TrainSettings.from_dict(training.settings)
    short = replace(full, critic_steps=min(STEPS, full.critic_steps),
                    actor_steps=min(STEPS, full.actor_steps))
    data = load(training.task, training.source)
    options = LoopOptions(folder / "states", progress=False)
    path = train(data, short, folder, device=device_of(run), options=options)
    lines = read_history(folder / "logs" / HISTORY)
    rate = {phase: lines[phase][-1][f"{phase}/steps_per_second"] for phase in ("critic", "actor")}
    seconds = full.critic_steps / rate["critic"] + full.actor_steps / rate["actor"]
    return seconds / training_work(training), path


def _time_evaluation(cell: Cell, policy_name: str, run: dict[str, Any]) -> float:
    from swg_fast.evaluation.episodes import free_running_rate
    from swg_fast.policy.policy import load_policy

    policy = load_policy(policy_name, device_of(run))
    sampling = {k: v for k, v in cell.settings.items() if k not in OWN}
    episodes = cell.settings.get("episodes", 10)
    envs = min(episodes, cell.settings.get("envs") or 64)
    states = np.random.default_rng(0).standard_normal((-(-envs // 2), policy.state_dim)).astype(np.float32)
    policy.sample(states[:1], **sampling)
    started = time.perf_counter()
    policy.sample(states, **sampling)
    sampling_seconds = (time.perf_counter() - started) / len(states)
    stepping = 1 / free_running_rate(cell.task, envs, cell.settings.get("workers") or run["threads"], SECONDS)
    return (sampling_seconds + stepping) * _env_steps(cell) / cell_work(cell)


def _time_toy(cell: Cell) -> float:
    from swg_fast.evaluation.toy import run_toy

    started = time.perf_counter()
    short = max(1, min(STEPS, cell.settings["steps"]))
    run_toy(**cell.settings | {"steps": short, "samples": 64}, progress=False)
    # The full number of samples is drawn once more, beside the training.
    return (time.perf_counter() - started) / short
