"""`inspect_run` measures, draws and writes everything into one folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from swg_fast.common.atomic_files import finite, write_json
from swg_fast.common.errors import UsageError
from swg_fast.common.provenance import provenance
from swg_fast.data import Transitions
from swg_fast.envs.tasks import preset_for
from swg_fast.evaluation.inspect import draw, measure, places, scorer, student
from swg_fast.evaluation.inspect.learnt import Judge, Load, load_learnt, saved_critics
from swg_fast.method.sampler_names import STUDENT
from swg_fast.policy.model_card import FITTED
from swg_fast.policy.policy import Policy
from swg_fast.training.history import read_history
from swg_fast.training.rewards import transform_rewards
from swg_fast.training.settings import TrainSettings
from swg_fast.training.source import Source


def inspect_run(source: Source, read: Load, out: Path, draws: measure.Draws, *,
                every_state: bool = False, judge: str | None = None, trust: Sequence[str] = ()
                ) -> dict[str, Any]:
    """Measures what ``source`` has learnt and writes ``out/inspect.json`` and its pictures.

    ``read`` reads the transitions, and is called only where they are needed. Candidates are drawn unguided
    and guided, by a student with the guidance that it has learnt. Their states are of held-out
    episodes where ``source`` was trained on the data. A student is set beside its teacher: on the held-out
    pairs that its run has kept, or on pairs drawn here where the policy holds both. With ``every_state`` the
    critic's saved states are measured too. With ``judge``, a policy of another seed, its critic says what the
    policy's ranking is worth. ``trust`` is as in `make_env`. Returns the figures of the JSON.

    Raises `UsageError` where there is nothing to look at, no saved state, for a guidance scale that a student
    has not learnt, and for a judge without a critic, of other sizes, or with the policy's own critic.
    """
    data = cache(read)
    learnt = load_learnt(source, data)
    policy, figures = learnt.policy, {"source": source.name, "progress": learnt.progress, "task": source.task}
    scales = _scales(policy, draws.guidance_scale) if policy is not None else []
    if judge is not None:  # before the long work, since a judge may be refused
        figures["scorer"] = _scorer(source, policy, judge, data(), draws, out)
    ends = _ends(source, policy, data, draws) if policy is not None else None
    if every_state:
        figures["critics"] = _critics(source, data())
    if learnt.judge is not None:
        settings = source.settings or _preset(source.task)
        if policy is not None:
            source.check_sizes(policy.state_dim, policy.action_dim, data())
        figures |= _judged(source, learnt.judge, data(), settings, out, trust)
        if policy is not None:
            figures["weights"] = _weights(source, policy, learnt.judge, data(), settings, scales, draws, out)
    if ends is not None:
        figures["student"] = student.student_figures(ends, out / "student.png")
    elif policy is not None and policy.model.walk is not None:
        figures["student"] = student.card_figures(policy.card)
    if policy is not None and policy.card.get(FITTED):
        figures[FITTED] = policy.card[FITTED]
    history = read_history(source.history) if source.history is not None else {}
    if history:
        draw.losses(history, out / "losses.png")
        figures["losses"] = {phase: lines[-1] for phase, lines in history.items()}
    used = data().fingerprint() if data.cache_info().currsize else None
    write_json(out / "inspect.json", finite(figures) | {"provenance": provenance(data_hash=used)})
    return figures


def _scales(policy: Policy, asked: float | None) -> list[float]:
    """The guidance scales to look at: 0 beside ``asked`` or the policy's own. Of a student only those that it
    has learnt; `UsageError` where ``asked`` is none of them."""
    config, walk = policy.config, policy.model.walk
    guided = config.guidance_scale if asked is None else float(asked)
    if config.sampler != STUDENT or walk is None:
        return sorted({0.0, guided})
    walk.code(guided)
    low, high = walk.guidance_scale
    return sorted({0.0, guided} if low <= 0 <= high else {guided})


def _ends(source: Source, policy: Policy, data: Load, draws: measure.Draws) -> student.Ends | None:
    """Where a student and its teacher end; None without a student, or where there is no teacher beside it."""
    walk = policy.model.walk
    if walk is None:
        return None
    kept = student.recorded_pairs(source)
    if kept is not None:
        return student.read_ends(kept, policy.action_dim + 1)
    if policy.model.student is None:
        return None
    found = data()
    source.check_sizes(policy.state_dim, policy.action_dim, found)
    return student.draw_ends(policy, walk, measure.some(found.observations, draws), draws)


def _judged(source: Source, judge: Judge, data: Transitions, settings: TrainSettings, out: Path,
            trust: Sequence[str]) -> dict[str, Any]:
    """The figures and pictures of the critic and V."""
    value = measure.values(judge.value, data)
    advantage = measure.advantages(judge.critic, value, data)
    rewards = transform_rewards(data, settings.reward_transform)
    returns = measure.returns_to_go(data, rewards, settings.discount)
    figures: dict[str, Any] = {
        "transitions": len(data), "discount": settings.discount,
        "value": measure.value_figures(value, returns), "advantages": measure.advantage_figures(advantage)}
    draw.values(value, returns, out / "value.png")
    draw.advantages(advantage, figures["advantages"]["positive"], out / "advantages.png")
    if _has_maze(source):
        figures["maze"] = _maze(source.task, data, value, advantage, settings, out, trust)
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


def _weights(source: Source, policy: Policy, judge: Judge, data: Transitions, settings: TrainSettings,
             scales: Sequence[float], draws: measure.Draws, out: Path) -> dict[str, Any]:
    states, held_out = _unseen(source, data, settings, draws)
    drawn = {rho: measure.sampled_weights(policy, judge, states, rho, draws) for rho in scales}
    draw.weights(drawn, out / "weights.png")
    return {"states": "held out" if held_out else "of the dataset", "n_states": len(states),
            "n_candidates": draws.n_candidates,
            **{f"guidance {rho:g}": measure.weight_figures(*found) for rho, found in drawn.items()}}


def _unseen(source: Source, data: Transitions, settings: TrainSettings, draws: measure.Draws
            ) -> tuple[np.ndarray, bool]:
    """States to draw candidates of, and whether they are held out: where ``source`` was trained on the
    data."""
    held_out = data.observations[:0]
    if source.trained_on(data):
        held_out = data.split(settings.held_out, settings.seed)[1].observations
    return measure.some(held_out if len(held_out) else data.observations, draws), len(held_out) > 0


def _scorer(source: Source, policy: Policy | None, judge: str, data: Transitions, draws: measure.Draws,
            out: Path) -> dict[str, Any]:
    """What the policy's ranking is worth by the critic of ``judge``."""
    if policy is None:
        raise UsageError(f"--judge {judge}: {source.name} has no policy yet whose ranking could be judged; "
                         "wait for the first saved state of the actor")
    critic, described = scorer.load_judge(judge, policy)
    source.check_sizes(policy.state_dim, policy.action_dim, data)
    states, _ = _unseen(source, data, source.settings or _preset(source.task), draws)
    figures = scorer.judged(policy, critic, described, states, draws)
    draw.scorer(figures, out / "scorer.png")
    return figures
