"""Every task as a `gymnasium.Env`, for the evaluators and wrappers of other libraries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from swg_fast.common.checks import shown
from swg_fast.common.errors import UsageError
from swg_fast.envs.base import TaskEnv
from swg_fast.envs.registry import make_env


class Task(gymnasium.Env):
    """A task as a Gymnasium environment: observations [S] float32, actions [A] in the task's own units.

    ``reset(seed=...)`` starts the episode of that seed, as `swg_fast.evaluation.episodes.evaluate` does;
    without a seed, the next of the sequence that the last seed began. ``info`` has "goal" and "position" [2]
    in a maze, and "success" where the environment says whether it succeeded.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}

    def __init__(self, task: str, render_mode: str | None = None,
                 observation_keys: Sequence[str] | None = None, trust: Sequence[str] = ()) -> None:
        if render_mode not in (None, "rgb_array"):
            raise UsageError(f"unknown render_mode {render_mode!r}; use 'rgb_array'")
        self.task: TaskEnv = make_env(task, observation_keys, trust)
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (self.task.state_dim,), np.float32)
        self.action_space = gymnasium.spaces.Box(*self.task.bounds.inside)
        self.spec = EnvSpec(task.replace(":", "/"), entry_point=Task, kwargs={"task": task},
                            max_episode_steps=self.task.max_episode_steps) if _is_id(task) else None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None
              ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        episode = seed if seed is not None else int(self.np_random.integers(2**32))
        observation = self.task.reset(episode & 0xFFFFFFFF)
        return observation, self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        try:
            given = np.asarray(action, np.float64).reshape(self.task.action_dim)
        except (TypeError, ValueError, RuntimeError):
            given = np.array([np.nan])
        if not np.isfinite(given).all():
            raise UsageError(f"the action is {shown(action)}; give {self.task.action_dim} finite numbers")
        observation, reward, done = self.task.step(np.asarray(action).reshape(given.shape))
        truncated = self.task.truncated
        return observation, reward, done and not truncated, truncated, self._info()

    def render(self) -> np.ndarray | None:
        return self.task.render() if self.render_mode == "rgb_array" else None

    def get_normalized_score(self, total_reward: float) -> float:
        """D4RL's score of a return as its own environments give it: 0 is random, 1 an expert.

        Raises `UsageError` where the task has no reference returns.
        """
        if "normalized" not in self.task.score_name:
            raise UsageError(f"{self.task.task} has no reference returns to normalize with")
        return self.task.score(total_reward, None) / 100.0

    def close(self) -> None:
        self.task.close()

    def _info(self) -> dict[str, Any]:
        found = {"goal": self.task.goal(), "position": self.task.position(), "success": self.task.success}
        return {key: value for key, value in found.items() if value is not None}


def make(task: str, *, render_mode: str | None = None,
         observation_keys: Sequence[str] | None = None, trust: Sequence[str] = ()) -> gymnasium.Env:
    """The task of that name as a `gymnasium.Env`; names and errors are those of `make_env`."""
    return Task(task, render_mode, observation_keys, trust)


def _is_id(task: str) -> bool:
    from swg_fast.envs.tasks import GYMNASIUM

    return bool(GYMNASIUM.fullmatch(task)) and ":" not in task
