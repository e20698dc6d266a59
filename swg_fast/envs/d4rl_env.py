"""One D4RL environment: seeded episodes, its score, and what a picture of it needs."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import numpy as np

from swg_fast.common.errors import UsageError
from swg_fast.common.quiet import explain, quiet
from swg_fast.envs import simulator
from swg_fast.envs.base import Maze, Step, TaskEnv
from swg_fast.envs.camera import NO_OPENGL, close_drawings
from swg_fast.envs.d4rl_import import FAMILY_MODULES, import_d4rl
from swg_fast.envs.tasks import Preset, find_preset


class D4RLEnv(TaskEnv):
    """A D4RL environment, made by gym 0.23."""

    score_name = "D4RL normalized score"

    def __init__(self, env: Any, preset: Preset) -> None:
        self.env = env
        self.preset = preset
        self.task = preset.task
        self.succeeds_or_fails = preset.family == "antmaze"
        self.max_episode_steps = env.spec.max_episode_steps
        self.state_dim = int(np.prod(env.observation_space.shape))
        self.action_dim = int(np.prod(env.action_space.shape))
        self.core = env.unwrapped
        while hasattr(self.core, "_wrapped_env"):
            self.core = self.core._wrapped_env

    def reset(self, seed: int) -> np.ndarray:
        self.truncated = False
        with quiet(), self.own_random(seed):  # D4RL draws goals from numpy's global generator
            self.core.seed(seed)
            if self.preset.family == "antmaze" and self.preset.newer is not None:
                self.core.set_target()  # for each episode, as -v2 does; -v0 draws one when it is made
            return np.asarray(self.env.reset(), np.float32)

    def step(self, action: np.ndarray) -> Step:
        with self.own_random():
            observation, reward, done, info = self.env.step(np.asarray(action, np.float64))
        self.truncated = bool(info.get("TimeLimit.truncated", False))
        return Step(np.asarray(observation, np.float32), float(reward), bool(done))

    def position(self) -> np.ndarray | None:
        return np.array(self.core.get_xy()) if self.preset.family == "antmaze" else None

    def goal(self) -> np.ndarray | None:
        return np.array(self.core.target_goal) if self.preset.family == "antmaze" else None

    def maze(self) -> Maze | None:
        if self.preset.family != "antmaze":
            return None
        core = self.core
        scale = core._maze_size_scaling
        walls = [(column * scale - core._init_torso_x, row * scale - core._init_torso_y)
                 for row, cells in enumerate(core._maze_map)
                 for column, cell in enumerate(cells) if cell == 1]
        return Maze(np.array(walls), float(scale))

    def normalized_score(self, mean_return: float) -> float:
        """D4RL's score in per cent: 0 is a random policy, 100 an expert."""
        return float(self.core.get_normalized_score(mean_return)) * 100.0

    def score(self, total_reward: float, success: bool | None) -> float:
        return self.normalized_score(total_reward)

    def simulator(self) -> dict[str, str]:
        return simulator.describe() | {"environment": f"d4rl {metadata.version('d4rl')}"}

    def render(self, width: int = 480, height: int = 480) -> np.ndarray:
        try:
            with quiet():
                if self.preset.family == "kitchen":
                    from swg_fast.envs import kitchen

                    image = kitchen.draw(self.core, width, height)
                elif self.preset.family == "antmaze":
                    from swg_fast.envs import antmaze_drawing

                    image = antmaze_drawing.draw(self.core, width, height)
                else:
                    image = self.core.render(mode="rgb_array", width=width, height=height)
        except Exception as error:
            raise UsageError(NO_OPENGL) from error
        return np.ascontiguousarray(image)

    def close(self) -> None:
        close_drawings(self.core.sim)


def make_d4rl(task: str) -> D4RLEnv:
    """D4RL's own environment of ``task``, such as ``antmaze-umaze-v2``.

    Raises `UsageError` for an unknown task and for a family that does not work on this machine.
    """
    preset = find_preset(task)
    import_d4rl(FAMILY_MODULES[preset.family])
    import gym

    try:
        with quiet():
            return D4RLEnv(gym.make(task), preset)
    except Exception as error:
        raise UsageError(f"{task} cannot be made here ({explain(error)}); 'swg-fast info' says which D4RL "
                         "families work") from error
