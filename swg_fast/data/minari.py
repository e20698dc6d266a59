"""Minari datasets, read episode by episode into D4RL's layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from swg_fast.common.errors import UsageError
from swg_fast.common.quiet import explain, quiet
from swg_fast.common.seeds import BorrowedRandom, random_kept
from swg_fast.data.arrow import FORMATS, check_arrow
from swg_fast.data.findings import Finding
from swg_fast.data.gate import check_real
from swg_fast.data.hdf5 import DAMAGE, check_tree, unreadable
from swg_fast.data.transitions import Transitions, to_transitions
from swg_fast.envs import flatten
from swg_fast.envs.action_bounds import ActionBounds
from swg_fast.envs.minari_dataset import open_dataset, recover

GOAL = "desired_goal"


def load_minari(name: str, observation_keys: Sequence[str] | None = None, trust: Sequence[str] = (),
                bounds: ActionBounds | None = None) -> Transitions:
    """Transitions of the Minari dataset ``name``, such as ``D4RL/antmaze/umaze-v1``.

    A Minari episode of n steps has n + 1 observations, so every step gives a transition, even the last one
    before a time-out. `flatten` makes a vector of a dictionary observation; ``observation_keys`` takes only
    some of its parts. Actions are scaled by ``bounds``, or by those of the dataset's action space.

    Where there is a goal, reaching it is a terminal, as in D4RL, whether or not the episode goes on. Where
    ``observation_keys`` leaves the goal out, a policy cannot know which goal a reward was for: rewards and
    terminals are then those of the evaluation environment's one goal, as in D4RL's own Ant Maze data.

    Raises `UsageError` as `open_dataset` does, for data that a state-based policy cannot learn from,
    and where the goal is left out but the evaluation has more than one.
    """
    source = f"minari:{name}"
    dataset = open_dataset(name, trust)
    folder, form = Path(dataset.storage.data_path), dataset.storage.FORMAT
    if form in FORMATS:
        check_arrow(folder, form, source)
    else:
        check_tree(folder / "main_data.hdf5", source)
    reader = _Reader(dataset, observation_keys, source, trust)
    try:
        episodes = [reader.read(episode) for episode in dataset.iterate_episodes()]
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error
    except MemoryError as error:
        raise UsageError(f"{source} needs more memory than there is; use a larger machine") from error
    except (*DAMAGE, IndexError) as error:
        raise unreadable(source, error, form=f"{form} dataset") from error
    if not reader.steps:
        raise UsageError(f"{source} has no steps")
    raw = {key: np.concatenate([episode[key] for episode in episodes]) for key in episodes[0]}
    data = to_transitions(raw, bounds=bounds or reader.bounds, continues_after_terminal=True, as_d4rl=False,
                          source=source)
    vector = reader.keys == [flatten.VECTOR]
    return replace(data, dropped=reader.summary(), observation_keys=None if vector else tuple(reader.keys),
                   findings=(*reader.findings(), *data.findings))


class _Reader:
    """Turns the episodes of one Minari dataset into D4RL's arrays, and counts what it has read."""

    def __init__(self, dataset: Any, observation_keys: Sequence[str] | None, source: str,
                 trust: Sequence[str]) -> None:
        space = dataset.observation_space
        self.keys = flatten.choose(space, observation_keys, source)
        flatten.check_spaces(space, self.keys, source)
        self.bounds = ActionBounds.of_space(dataset.action_space, source)
        # Each goal is a vector: a dictionary of tasks has other leaves.
        self.reaching = {"achieved_goal", GOAL} <= set(flatten.leaf_names(space))
        evaluations = self.reaching and GOAL not in self.keys
        self.goal = _evaluation_goal(dataset, source, trust) if evaluations else None
        self.steps = self.reached = self.short = 0

    def read(self, episode: Any) -> dict[str, np.ndarray]:
        """The n + 1 rows of an episode of n steps, by D4RL's names.

        The extra row carries the last observation. It is marked as a time-out, so it gives no transition.
        Where an episode has only n observations, its last step is that row.
        """
        n = len(episode.rewards)
        rewards = _numbers(episode.rewards, "rewards", "fiu").astype(np.float32)
        ends = _numbers(episode.terminations, "terminations", "b")
        for key in self.keys:
            _numbers(flatten.leaf(episode.observations, key), key or "observations", "fiub")
        if self.reaching:
            if self.goal is not None:
                rewards = self.goal.rewards(episode.observations["achieved_goal"][1:])
            success = _success(episode, rewards) if self.goal is None else rewards > 0
            ends = ends | success
            self.reached += int(success.sum())
        actions = _numbers(episode.actions, "actions", "f").astype(np.float32).reshape(n, -1)
        observations = flatten.flatten_rows(episode.observations, self.keys)[: n + 1]
        rows = len(observations)
        self.short += rows == n
        self.steps += rows - 1
        return {"observations": observations, "actions": _padded(actions)[:rows],
                "rewards": _padded(rewards)[:rows], "terminals": _padded(ends)[:rows],
                "timeouts": np.arange(rows) == rows - 1}

    def findings(self) -> list[Finding]:
        """What is odd about the episodes."""
        if not self.short:
            return []
        return [Finding(f"{self.short:,} episodes have as many observations as actions, and Minari's have "
                        "one more", "the last step of each is dropped, unless it is terminal; record the "
                                    "last observation too")]

    def summary(self) -> str:
        """What became of the recorded steps, for `Transitions.dropped`."""
        said = f"{'' if self.short else 'all '}{self.steps} recorded steps give a transition"
        if self.reaching:
            said += f", {self.reached} of them reach the goal and are terminal"
        if self.goal is not None:
            said += "; the goal is not observed, so rewards are for the evaluation's"
        return said


def _success(episode: Any, rewards: np.ndarray) -> np.ndarray:
    """Whether each step [n] reached the goal: as recorded, else judged by a reward of two values."""
    for key in ("success", "is_success"):
        if key in (episode.infos or {}):
            return np.asarray(episode.infos[key]).reshape(-1)[-len(rewards):].astype(bool)
    for miss, hit in ((0, 1), (-1, 0)):
        if np.isin(rewards, (miss, hit)).all():
            return rewards == hit
    return np.zeros(len(rewards), bool)  # a dense reward does not tell


class _Goal:
    """The one place that an evaluation environment asks for, and its own sparse reward."""

    def __init__(self, env: Any, place: np.ndarray) -> None:
        self.env, self.place = env, place

    def rewards(self, achieved: np.ndarray) -> np.ndarray:
        goals = np.broadcast_to(self.place, achieved.shape)
        return np.asarray(self.env.unwrapped.compute_reward(achieved, goals, {}), np.float32)


def _evaluation_goal(dataset: Any, source: str, trust: Sequence[str]) -> _Goal:
    try:
        with quiet(), BorrowedRandom().lent(), random_kept():
            env = recover(dataset, source, trust)
        places = env.unwrapped.maze.unique_goal_locations
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"{source}: the goal is left out of the observations, and the environment that "
                         f"would say which it is cannot be made ({explain(error)}); keep {GOAL!r}") from error
    if len(places) != 1 or getattr(env.unwrapped, "reward_type", "sparse") != "sparse":
        raise UsageError(f"{source}: the goal is left out of the observations, but the evaluation has "
                         f"{len(places)} and a {env.unwrapped.reward_type} reward; D4RL's has one, and a "
                         f"sparse one; keep {GOAL!r}")
    return _Goal(env, np.asarray(places[0]))


def _numbers(values: object, name: str, kinds: str) -> np.ndarray:
    """``values`` as they are, if their type is one of ``kinds``."""
    array = np.asarray(values)
    check_real(array, name, "as recorded", kinds)
    return array


def _padded(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values, np.zeros_like(values[:1])])
