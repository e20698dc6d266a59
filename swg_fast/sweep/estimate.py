"""How long a sweep will take: the work of its parts in units, and the seconds that a unit takes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from swg_fast.policy.sampling import SamplingConfig
from swg_fast.sweep.cell_checks import counts_of, sampling_of
from swg_fast.sweep.cells import Cell, Training
from swg_fast.sweep.settings import RunSettings
from swg_fast.training.distillation.run import MOST_WALKED, ON_CPU

STEPS = 96  # a timed training's steps of each phase
SECONDS = 1.0  # how long environments are stepped for a timing


def training_work(training: Training, critic: bool = True) -> float:
    """A training's multiplications in 1e9, up to a factor: batches x layers x width squared. ``critic`` is
    false where another training trains the critic. A student's are those of its own steps, and of the walks
    that it learns from as on a CPU, where a guided step takes what a row of training does."""
    s, d = training.settings, training.distill
    if d:
        walked = (d["sampler_steps"] or min(s["num_steps"], MOST_WALKED)) * (d.get("of_best") or 1)
        pairs = d["pairs"] or min(ON_CPU, d["steps"] * d["batch"])
        own = d["steps"] * d["batch"] * (1 + 8 * (d["num_blocks"] or s["num_blocks"])) * d["hidden_dim"] ** 2
        return (own + pairs * walked * (1 + 8 * s["num_blocks"]) * s["hidden_dim"] ** 2) * 1e-9
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
    if cell.training and cell.training.distill:
        passes = cell.training.distill["calls"]
    else:
        steps = s.get("sampler_steps") or (cell.training.settings["num_steps"] if cell.training else 15)
        passes = steps * (1 if s.get("guidance_scale") == 0 else 3)
    # A call takes the same time for 1 to about 64 candidates.
    drawn = max(64, _candidates(cell))
    return _env_steps(cell) * drawn * passes * 1e-6


def _candidates(cell: Cell) -> int:
    """Those of a decision; a number that is only known later counts as the default."""
    n = cell.settings.get("n_candidates")
    return n if isinstance(n, int) else SamplingConfig.n_candidates


def _env_steps(cell: Cell) -> int:
    """The most steps that all episodes can take."""
    from swg_fast.envs.tasks import preset_for

    counts = counts_of(cell.settings)
    return counts.episodes * len(counts.seed) * (preset_for(cell.task).max_episode_steps or 1000)


@dataclass
class Work:
    """Work of one kind: items and units that are left, units that were timed, and the seconds of those.
    Rounding may leave a little of ``left`` when no item is."""

    items: int = 0
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
            self.kind(item).items += 1

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
        kind.items -= 1
        if seconds is not None:
            kind.done += work
            kind.spent += seconds

    def assume(self, seconds: dict[str, float]) -> None:
        """Takes ``seconds`` of a unit of work, by kind, for timed ones."""
        for kind, spent in seconds.items():
            self.kinds[kind].done, self.kinds[kind].spent = 1.0, spent

    def seconds(self) -> float | None:
        """None while work of a kind is left of which nothing was timed."""
        kinds = [kind for kind in self.kinds.values() if kind.items]
        if any(kind.done == 0 for kind in kinds):
            return None
        return sum(kind.left * kind.spent / kind.done for kind in kinds) / self.slots


class Timing(NamedTuple):
    """Seconds of a unit of work by kind, the share of these for which a CPU worked (above 1 on several), and
    the labels of the cells that were timed."""

    seconds: dict[str, float]
    shares: dict[str, float]
    cells: str


@dataclass(frozen=True)
class Cost:
    """What the rest of a sweep costs, by the rates of ``timed`` cells on ``device``. hours: by kind, of the
    ``unit``: time that a CPU works for the sweep, whatever else it does meanwhile, or time on a GPU. seconds:
    until all is done with ``at_once`` cells at a time. load: of each core by other work before the timing;
    above 1 it lengthens the ``seconds``."""

    trainings: int
    cells: int
    device: str
    unit: str
    hours: dict[str, float]
    at_once: int
    seconds: float
    timed: str
    load: float | None


def cost(trainings: list[Training], cells: list[Cell], run: RunSettings, at_once: int) -> Cost:
    """Times one cell of each kind for a moment and works out the rest. ``trainings`` and ``cells`` are those
    that are left."""
    import torch

    from swg_fast.common.hardware import device_name, load

    others = load()
    timing = time_one(cells, run)
    clock = TimeLeft(trainings, cells, at_once)
    clock.assume(timing.seconds)
    hours = {name: kind.left * kind.spent / kind.done * (run.gpus or timing.shares[name]) / 3600
             for name, kind in clock.kinds.items() if kind.items}
    return Cost(len(trainings), len(cells), device_name(torch.device(run.device)), run.device.upper(), hours,
                at_once, clock.seconds() or 0.0, timing.cells, others)


def time_one(cells: list[Cell], run: RunSettings) -> Timing:
    """Times one cell of each kind, cut short, in this process: the cell with the most work, whose overheads
    weigh least, and of equals the one with the most candidates."""
    import torch

    torch.set_num_threads(run.threads)
    rates: dict[str, float] = {}
    shares: dict[str, float] = {}
    labels = []
    for kind in sorted({cell.kind for cell in cells}):
        cell = max((c for c in cells if c.kind == kind),
                   key=lambda c: (training_work(c.training) if c.training else 0.0, cell_work(c),
                                  _candidates(c)))
        labels.append(cell.label)
        if cell.training:  # a student is not timed; its teacher's cell is cut short as any other
            cell = replace(cell, training=cell.training.teacher)
        with tempfile.TemporaryDirectory() as folder:
            policy = cell.policy
            if cell.training:
                with _worked(shares, "train"):
                    rates["train"] = _time_training(cell.training, Path(folder), run)
                policy = f"{folder}/policy"
            if kind == "toy":
                with _worked(shares, kind):
                    rates[kind] = _time_toy(cell)
            else:
                rates[kind] = _time_evaluation(cell, str(policy), run, shares)
    return Timing(rates, shares, "; ".join(labels))


@contextmanager
def _worked(shares: dict[str, float], kind: str) -> Iterator[None]:
    """Puts the share of the block's time for which a CPU worked for this process into ``shares``."""
    started, worked = time.perf_counter(), time.process_time()
    yield
    shares[kind] = (time.process_time() - worked) / (time.perf_counter() - started)


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


def _time_evaluation(cell: Cell, policy_name: str, run: RunSettings, shares: dict[str, float]) -> float:
    """Seconds of a unit. The share is that of the sampling: the environments step in other processes."""
    from swg_fast.envs.settings import EnvSettings
    from swg_fast.evaluation.episodes import free_running_rate
    from swg_fast.policy.policy import load_policy

    policy = load_policy(policy_name, run.device)
    sampling = sampling_of(cell.settings)
    counts = counts_of(cell.settings)
    envs = min(counts.episodes, counts.envs or 64)
    states = np.random.default_rng(0).standard_normal((-(-envs // 2), policy.state_dim)).astype(np.float32)
    policy.sample(states[:1], **sampling)
    started, calls = time.perf_counter(), 0
    with _worked(shares, cell.kind):
        while not calls or time.perf_counter() - started < SECONDS:
            policy.sample(states, **sampling)
            calls += 1
    sampling_seconds = (time.perf_counter() - started) / len(states) / calls
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
