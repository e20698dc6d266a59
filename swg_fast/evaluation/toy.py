"""The toy check (SWG, figures 2 and 3): do guided samples follow p(x) w(x) / Z?

2D data with a known weight w(x) = exp(-energy(x)); a small score network without a state learns
[x, w] jointly, and its guided samples are compared with the data resampled by w.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from swg_fast.common.checks import choice, whole
from swg_fast.common.figures import new_figure, save_figure
from swg_fast.common.seeds import stream_seed
from swg_fast.common.settings_fields import check_fields, check_named, like, setting
from swg_fast.method.networks import ScoreNetwork
from swg_fast.method.samplers import sampler_table
from swg_fast.method.schedule import MAX_STEPS, NoiseSchedule
from swg_fast.policy.policy import Policy
from swg_fast.policy.sampling import Execution, SamplingConfig
from swg_fast.training.diffusion import DiffusionTrainer
from swg_fast.training.loop import BLOCK
from swg_fast.training.settings import TrainSettings
from swg_fast.training.step_taker import STRETCH, step_taker

Points = np.ndarray  # [N, 2] float32 within [-1, 1]
PART = 1000  # samples drawn at once
MOST_SAMPLES = 10**6  # minutes each time they are drawn
NOISE = 0.02  # spread of the curves' points
# Of every toy training.
SETTINGS: dict[str, Any] = {"actor_lr": 1e-3, "ema_rate": 0.005, "dropout": 0.0}
# Sampling's, as they are.
WALK = ("temperature", "weight_readout", "clip_denoised", "sampler", "guidance_interval", "backend")


def _curve(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> Points:
    return np.stack([x, y], axis=1) + NOISE * rng.standard_normal((len(x), 2))


def spiral(rng: np.random.Generator, n: int) -> Points:
    turn = np.sqrt(rng.uniform(0.02, 1, n))
    angle = turn * 3 * np.pi
    return _curve(rng, 0.9 * turn * np.cos(angle), 0.9 * turn * np.sin(angle))


def gaussians8(rng: np.random.Generator, n: int) -> Points:
    angle = rng.integers(8, size=n) * np.pi / 4
    centres = 0.8 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return centres + 0.05 * rng.standard_normal((n, 2))


def checkerboard(rng: np.random.Generator, n: int) -> Points:
    column = rng.integers(4, size=n)
    row = 2 * rng.integers(2, size=n) + column % 2
    return (np.stack([column, row], axis=1) + rng.uniform(0, 1, (n, 2))) * 0.475 - 0.95


def two_moons(rng: np.random.Generator, n: int) -> Points:
    upper = rng.integers(2, size=n).astype(bool)
    angle = rng.uniform(0, np.pi, n)
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle)) - 0.5
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle)) - 0.25
    return _curve(rng, 0.6 * x, 0.9 * y)


def rings(rng: np.random.Generator, n: int) -> Points:
    radius = 0.3 * (1 + rng.integers(3, size=n))
    angle = rng.uniform(0, 2 * np.pi, n)
    return _curve(rng, radius * np.cos(angle), radius * np.sin(angle))


def swissroll(rng: np.random.Generator, n: int) -> Points:
    angle = 1.5 * np.pi * (1 + 2 * rng.uniform(0, 1, n))
    radius = 0.9 * angle / (4.5 * np.pi)
    return _curve(rng, radius * np.cos(angle), radius * np.sin(angle))


DATASETS: dict[str, Callable[[np.random.Generator, int], Points]] = {
    "spiral": spiral, "gaussians8": gaussians8, "checkerboard": checkerboard,
    "two-moons": two_moons, "rings": rings, "swissroll": swissroll,
}


def energy(x: Points) -> np.ndarray:
    """Between 0 and 3, falling with the first coordinate."""
    return 1.5 * (1.0 - np.clip(x[:, 0], -1, 1))


def _counts(name: str, value: Any) -> tuple[int, ...] | None:
    """One number of steps, or several, in rising order; None for all."""
    if value is None:
        return None
    several = value if isinstance(value, list | tuple) else [value]
    return tuple(sorted({whole(name, count, 1, MAX_STEPS) for count in several}))


@dataclass(frozen=True)
class ToySettings:
    """A toy's training and sampling."""

    guidance_scale: float = like(SamplingConfig, "guidance_scale", 1.0)
    temperature: float = like(SamplingConfig, "temperature", 1.0)
    steps: int = like(TrainSettings, "actor_steps", 4000)
    batch: int = like(TrainSettings, "actor_batch", 512)
    hidden_dim: int = like(TrainSettings, "hidden_dim", 128)
    num_steps: int = like(TrainSettings, "num_steps", 15)
    samples: int = setting(10_000, "Samples that are compared.", min=1, top=MOST_SAMPLES)
    weight_head: str = like(TrainSettings, "weight_head", "early")
    weight_readout: str = like(SamplingConfig, "weight_readout", "exact")
    clip_denoised: bool = like(SamplingConfig, "clip_denoised", True)
    schedule: str = like(TrainSettings, "schedule", "vp")
    sampler: str = like(SamplingConfig, "sampler", "ddpm")
    sampler_steps: Any = setting(
        None, "Steps that a solver walks, one number or several: 4,6,15. Left out: all.", check=_counts)
    guidance_interval: tuple[int, int] | None = like(SamplingConfig, "guidance_interval", None)
    seed: int = like(TrainSettings, "seed", 0)
    backend: str = like(Execution, "backend", "auto")

    def __post_init__(self) -> None:
        check_fields(self)

    def counts(self) -> list[int]:
        """The numbers of steps to walk. `UsageError` for what the sampler cannot."""
        counts = list(self.sampler_steps or [self.num_steps])
        for count in counts:
            sampler_table(self.sampler, NoiseSchedule.by_name(self.schedule, self.num_steps), count,
                          guidance_scale=self.guidance_scale, temperature=self.temperature,
                          guidance_interval=self.guidance_interval)
        return counts

    def training(self) -> TrainSettings:
        """The settings of the training."""
        return TrainSettings(actor_steps=self.steps, actor_batch=self.batch, hidden_dim=self.hidden_dim,
                             weight_head=self.weight_head, schedule=self.schedule, num_steps=self.num_steps,
                             **SETTINGS)


@dataclass
class ToyResult:
    """Point sets [N, 2] and their sliced Wasserstein distances. ``by_steps`` has the distances for every
    number of sampler steps; the point sets and ``distances`` are those of the last."""

    data: Points
    weights: np.ndarray
    target: Points
    unguided: Points
    guided: Points
    distances: dict[str, float]
    by_steps: dict[int, dict[str, float]]


def sliced_wasserstein(a: Points, b: Points, projections: int = 256) -> float:
    """The mean 1-Wasserstein distance of two point sets of one size over fixed directions."""
    angle = np.pi * (np.arange(projections) + 0.5) / projections
    directions = np.stack([np.cos(angle), np.sin(angle)])
    return float(np.abs(np.sort(a @ directions, axis=0) - np.sort(b @ directions, axis=0)).mean())


def run_toy(name: str, settings: ToySettings | None = None, *, policy: Policy | None = None,
            progress: bool = True, **overrides: Any) -> ToyResult:
    """Trains on ``name``'s data and compares guided and unguided samples with the target, for each number of
    sampler steps. A ``policy`` that `train_toy` left with the same settings is not trained again.

    ``overrides`` are single fields of `ToySettings`. Raises `UsageError` for settings out of range, before
    the training."""
    choice("toy data", name, DATASETS)
    settings = replace(settings or ToySettings(), **check_named([ToySettings], overrides, "toy setting"))
    counts = settings.counts()
    if policy is None:
        policy, *_ = train_toy(name, settings, progress=progress)
    data, weights, rng = toy_data(name, settings.seed)
    share = weights / weights.sum()
    target, other = (data[rng.choice(len(data), settings.samples, p=share)] for _ in range(2))
    plain_data = data[rng.choice(len(data), settings.samples)]
    floor = sliced_wasserstein(target, other)
    by_steps: dict[int, dict[str, float]] = {}
    for count in counts:
        plain, guided = (draw_toy(policy, settings, rho, count, progress=progress)
                         for rho in (0.0, settings.guidance_scale))
        pairs = {"guided_to_target": (guided, target), "unguided_to_target": (plain, target),
                 "unguided_to_data": (plain, plain_data)}
        distances = {key: sliced_wasserstein(*pair) for key, pair in tqdm(
            pairs.items(), "distances", unit="pair", disable=not progress)}
        by_steps[count] = distances | {"floor": floor}
    return ToyResult(data[:settings.samples], weights[:settings.samples], target, plain, guided,
                     by_steps[counts[-1]], by_steps)


def toy_data(name: str, seed: int) -> tuple[Points, np.ndarray, np.random.Generator]:
    """``name``'s data [100,000, 2], their weights, and the generator that drew them."""
    rng = np.random.default_rng(stream_seed(seed, "toy", name))
    data = DATASETS[name](rng, 100_000).astype(np.float32)
    return data, np.exp(-energy(data)).astype(np.float32), rng


def train_toy(name: str, toy: ToySettings, *, progress: bool = True
              ) -> tuple[Policy, Points, np.ndarray, np.random.Generator]:
    """A policy without a state trained on ``name``'s data; the data, its weights and what drew it."""
    settings, seed = toy.training(), toy.seed
    bar = tqdm(total=settings.actor_steps, desc=f"preparing {name}", unit="step", disable=not progress)
    data, weights, rng = toy_data(name, seed)

    torch.manual_seed(stream_seed(seed, "toy", "initialise"))
    schedule = NoiseSchedule.by_name(settings.schedule, settings.num_steps)
    network = ScoreNetwork(0, 2, settings.hidden_dim, 3, settings.weight_head, dropout=0.0)
    trainer = DiffusionTrainer(network, schedule, settings, torch.device("cpu"))
    rows = torch.from_numpy(np.concatenate([data, weights[:, None]], axis=1))
    generator = torch.Generator().manual_seed(stream_seed(seed, "toy", "steps"))
    bar.set_description(f"training on {name}", refresh=False)
    bar.reset()
    take = step_taker(trainer)
    with bar:
        for step in range(0, settings.actor_steps, STRETCH):
            if step % BLOCK == 0:
                draws = trainer.draw(generator, BLOCK, len(rows))
            some = slice(step % BLOCK, step % BLOCK + min(STRETCH, settings.actor_steps - step))
            now = {key: value[some] for key, value in draws.items()}
            chosen = now.pop("rows")
            take(rows, chosen, now, step)
            bar.update(len(chosen))
    return Policy(trainer.ema, trainer.schedule), data, weights, rng


def draw_toy(policy: Policy, settings: ToySettings, guidance_scale: float, steps: int, *,
             progress: bool = False) -> Points:
    """The settings' number of samples in ``steps`` steps, a part at a time: each part has a state word of its
    own."""
    parts = np.array_split(np.arange(settings.samples), -(-settings.samples // PART))
    label = f"sampling, guidance {guidance_scale:g}, {steps} steps"
    walk = {key: getattr(settings, key) for key in WALK}
    state = np.zeros((1, 0), np.float32)
    drawn = (policy.sample(
        state, n_candidates=len(part), guidance_scale=guidance_scale, select="none", sampler_steps=steps,
        seed=settings.seed, dtype="fp32", return_candidates=True, state_indices=np.array([word]), **walk
    ).candidates for word, part in enumerate(tqdm(parts, label, unit="part", disable=not progress)))
    return np.concatenate([part[0].numpy() for part in drawn if part is not None])


def plot_toy(name: str, result: ToyResult, path: str | Path) -> None:
    """Draws the data, their weights, the target, unguided and guided samples side by side; below, for several
    numbers of steps, the distances over the number."""
    several = len(result.by_steps) > 1
    figure = new_figure(15, 7.4 if several else 3.9)
    figure.suptitle(f"{name}: sliced Wasserstein distances")
    halves: Any = figure.subfigures(2, 1) if several else (figure, None)
    above, below = halves
    if several:
        _plot_steps(below.subplots(), result)
    axes = above.subplots(1, 5, sharex=True, sharey=True)
    d = result.distances
    shown = 4000
    dots = axes[1].scatter(*result.data[:shown].T, c=result.weights[:shown], s=2, cmap="viridis")
    above.colorbar(dots, ax=axes, shrink=0.8, pad=0.01, label="weight, second panel")
    for ax, points, title in (
        (axes[0], result.data, "data\np(x)"),
        (axes[1], None, "its weight\nw(x) = exp(-energy)"),
        (axes[2], result.target, f"target p(x) w(x) / Z\nfloor {d['floor']:.3f}"),
        (axes[3], result.unguided, f"unguided samples\nto the target {d['unguided_to_target']:.3f}"),
        (axes[4], result.guided, f"guided samples\nto the target {d['guided_to_target']:.3f}"),
    ):
        if points is not None:
            ax.plot(*points[:shown].T, ".", markersize=1.5, color="#0072b2", alpha=0.6)
        ax.set_title(title, fontsize=9)
        ax.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal")
    save_figure(figure, path, dpi=110)


def _plot_steps(ax: Any, result: ToyResult) -> None:
    """The distances over the number of steps, with the floor and twice it."""
    counts, floor = list(result.by_steps), result.distances["floor"]
    for key, label, style in (("guided_to_target", "guided to the target", "o-"),
                              ("unguided_to_data", "unguided to the data", "s--")):
        ax.plot(counts, [result.by_steps[n][key] for n in counts], style, label=label)
    ax.axhline(floor, color="black", linewidth=1, label="floor: two draws of the target")
    ax.axhline(2 * floor, color="black", linewidth=1, linestyle=":", label="twice the floor")
    ax.set(xlabel="steps of the sampler", ylabel="sliced Wasserstein distance", xticks=counts)
    ax.set_ylim(bottom=0)
    ax.legend()
