"""One D4RL environment: seeded episodes, its score, and what a picture of it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from swg_fast.envs.d4rl_import import FAMILY_MODULES, explain, import_d4rl, quiet
from swg_fast.errors import UsageError
from swg_fast.presets import Preset, find_preset


@dataclass(frozen=True)
class Maze:
    """Walls of an Ant Maze: centres [W, 2] and side length, in metres as the ant's position."""

    walls: np.ndarray
    size: float


class D4RLEnv:
    """A D4RL environment behind gym 0.23's interface, seeded episode by episode.

    The episode's seed sets start, goal and every other draw, whatever was run before.
    """

    def __init__(self, env: Any, preset: Preset) -> None:
        self.env = env
        self.preset = preset
        self.core = env.unwrapped
        while hasattr(self.core, "_wrapped_env"):
            self.core = self.core._wrapped_env

    @property
    def state_dim(self) -> int:
        return int(np.prod(self.env.observation_space.shape))

    @property
    def action_dim(self) -> int:
        return int(np.prod(self.env.action_space.shape))

    def reset(self, seed: int) -> np.ndarray:
        """The first observation [S] float32 of the episode that ``seed`` (32 bits) stands for."""
        with quiet():
            np.random.seed(seed)  # D4RL draws goals from numpy's global generator
            self.core.seed(seed)
            return np.asarray(self.env.reset(), np.float32)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """(observation [S], reward, done) after ``action`` [A] in [-1, 1]."""
        observation, reward, done, _ = self.env.step(np.asarray(action, np.float64))
        return np.asarray(observation, np.float32), float(reward), bool(done)

    def position(self) -> np.ndarray | None:
        """Where the agent is, [2] in metres; None outside Ant Maze."""
        return np.array(self.core.get_xy()) if self.preset.family == "antmaze" else None

    def goal(self) -> np.ndarray | None:
        """Where it should go, [2] in metres; None outside Ant Maze."""
        return np.array(self.core.target_goal) if self.preset.family == "antmaze" else None

    def maze(self) -> Maze | None:
        """The walls; None outside Ant Maze."""
        if self.preset.family != "antmaze":
            return None
        core = self.core
        scale = core._maze_size_scaling
        walls = [(column * scale - core._init_torso_x, row * scale - core._init_torso_y)
                 for row, cells in enumerate(core._maze_map)
                 for column, cell in enumerate(cells) if cell == 1]
        return Maze(np.array(walls), float(scale))

    @property
    def succeeds_or_fails(self) -> bool:
        """Whether an episode's score is 0 or 100, nothing between."""
        return self.preset.family == "antmaze"

    def normalized_score(self, mean_return: float) -> float:
        """D4RL's score in per cent: 0 is a random policy, 100 an expert."""
        return float(self.core.get_normalized_score(mean_return)) * 100.0

    def render(self, width: int = 480, height: int = 480) -> np.ndarray:
        """A picture [height, width, 3] uint8 from MuJoCo's renderer.

        Raises `UsageError` where this machine has no OpenGL to draw with.
        """
        try:
            with quiet():
                if self.preset.family == "kitchen":
                    from swg_fast.envs import kitchen

                    image = kitchen.draw(self.core, width, height)
                elif self.preset.family == "antmaze":
                    from swg_fast.envs import antmaze

                    image = antmaze.draw(self.core, width, height)
                else:
                    image = self.core.render(mode="rgb_array", width=width, height=height)
        except Exception as error:
            raise UsageError(
                "rendering needs OpenGL and MuJoCo found none here; install EGL or OSMesa "
                "(Debian: libegl1 or libosmesa6) and set MUJOCO_GL=egl or osmesa"
            ) from error
        return np.ascontiguousarray(image)


def make_env(task: str) -> D4RLEnv:
    """The D4RL environment of ``task``, such as ``antmaze-umaze-v2``.

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
