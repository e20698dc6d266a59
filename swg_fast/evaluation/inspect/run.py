"""`inspect_run` measures, draws and writes everything into one folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swg_fast.common.atomic_files import finite, write_json
from swg_fast.common.errors import UsageError
from swg_fast.data import Transitions
from swg_fast.envs.tasks import preset_for
from swg_fast.evaluation.inspect import draw, measure, places
from swg_fast.evaluation.inspect.learnt import Learnt, load_learnt, saved_critics
from swg_fast.training.history import read_history
from swg_fast.training.rewards import transform_rewards
from swg_fast.training.settings import TrainSettings
from swg_fast.training.source import Source


def inspect_run(source: Source, data: Transitions, out: Path, draws: measure.Draws, *,
                every_state: bool = False, trust: Sequence[str] = ()) -> dict[str, Any]:
    """Measures what ``source`` has learnt on ``data`` and writes ``out/inspect.json`` and its pictures.

    Candidates are drawn unguided and guided; their states are of held-out episodes where ``source`` was
    trained on ``data``. With ``every_state`` the critic's saved states are measured too. ``trust`` is as in
    `make_env`. Returns the figures of the JSON.

    Raises `UsageError` where there is no critic and value to look at, or no saved state.
    """
    learnt = load_learnt(source, data)
    settings = source.settings or _preset(source.task)
    rewards = transform_rewards(data, settings.reward_transform)
    value = measure.values(learnt.value, data)
    advantage = measure.advantages(learnt.critic, value, data)
    returns = measure.returns_to_go(data, rewards, settings.discount)
    figures: dict[str, Any] = {
        "source": source.name, "progress": learnt.progress, "task": source.task, "transitions": len(data),
        "discount": settings.discount, "value": measure.value_figures(value, returns),
        "advantages": measure.advantage_figures(advantage)}
    out.mkdir(parents=True, exist_ok=True)
    draw.values(value, returns, out / "value.png")
    draw.advantages(advantage, figures["advantages"]["positive"], out / "advantages.png")
    if _has_maze(source):
        figures["maze"] = _maze(source.task, data, value, advantage, settings, out, trust)
    if learnt.policy is not None:
        figures["weights"] = _weights(source, learnt, data, settings, draws, out)
    if every_state:
        figures["critics"] = _critics(source, data)
    history = read_history(source.history) if source.history is not None else {}
    if history:
        draw.losses(history, out / "losses.png")
        figures["losses"] = {phase: lines[-1] for phase, lines in history.items()}
    write_json(out / "inspect.json", finite(figures))
    return figures


OF_THE_PAPER = ("expectile", "dropout", "reward_transform")  # what the paper sets for each task


def _preset(task: str | None) -> TrainSettings:
    """The settings assumed for a policy whose card names none: those of its task."""
    if task is None:
        raise UsageError("this policy's card names neither its task nor its settings; name the --task")
    preset = preset_for(task).training
    return TrainSettings(**{name: preset[name] for name in OF_THE_PAPER if name in preset})


def _critics(source: Source, data: Transitions) -> list[dict[str, Any]]:
    """Of each saved state of the critic: V's range, the share of positive advantages, and how V rises towards
    the goal."""
    way, grid = places.way_in(data) if _has_maze(source) else (None, None)
    every = []
    for step, critic in saved_critics(source, data):
        value = measure.values(critic.value, data)
        found: dict[str, Any] = {
            "step": step, "value": {"mean": float(value.mean()), "min": float(value.min()),
                                    "max": float(value.max())},
            "positive": float((measure.advantages(critic.target, value, data) > 0).mean())}
        if way is not None and grid is not None:
            found["maze"] = places.way_figures(way, grid.mean(value, grid.moved))
        every.append(found)
    return every


def _has_maze(source: Source) -> bool:
    return source.task is not None and preset_for(source.task, any_name=True).family == "antmaze"


def _maze(task: str, data: Transitions, value: np.ndarray, advantage: np.ndarray, settings: TrainSettings,
          out: Path, trust: Sequence[str]) -> dict[str, Any]:
    way, grid = places.way_in(data)
    walking = grid.mean(value, grid.moved)
    draw.maze(task, grid, way, grid.mean(value), walking, grid.mean(advantage > 0), settings,
              out / "maze.png", trust)
    if way is None:
        return {"rewarded_steps": 0}
    return {"bin_metres": places.BIN, "goal": way.goal.tolist(),
            "rewarded_steps": int((data.rewards > 0).sum())} | places.way_figures(way, walking)


def _weights(source: Source, learnt: Learnt, data: Transitions, settings: TrainSettings,
             draws: measure.Draws, out: Path) -> dict[str, Any]:
    unseen = data.observations[:0]
    if source.trained_on(data):
        unseen = data.split(settings.held_out, settings.seed)[1].observations
    held_out = len(unseen) > 0
    pool = unseen if held_out else data.observations
    rows = np.random.default_rng(draws.seed).choice(len(pool), min(draws.n_states, len(pool)), replace=False)
    guided = draws.guidance_scale
    if guided is None:
        guided = learnt.policy.config.guidance_scale
    drawn, figures = {}, {}
    for rho in sorted({0.0, float(guided)}):
        drawn[rho] = measure.sampled_weights(learnt, pool[rows], rho, draws)
        figures[f"guidance {rho:g}"] = measure.weight_figures(*drawn[rho])
    draw.weights(drawn, out / "weights.png")
    return {"states": "held out" if held_out else "of the dataset", "n_states": len(rows),
            "n_candidates": draws.n_candidates, **figures}
