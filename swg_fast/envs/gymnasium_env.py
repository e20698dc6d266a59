"""Any Gymnasium environment with vector observations and bounded actions, as a `TaskEnv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from swg_fast.common.checks import shown
from swg_fast.common.errors import UsageError
from swg_fast.common.quiet import explain, quiet
from swg_fast.envs import flatten
from swg_fast.envs.action_bounds import ActionBounds
from swg_fast.envs.base import Maze, Step, TaskEnv
from swg_fast.envs.mazes import maze_of

SUCCESS_KEYS = ("success", "is_success")  # in the `info` of environments that have goals
RESET = ("observation", "info")
STEP = ("observation", "reward", "terminated", "truncated", "info")


class GymnasiumEnv(TaskEnv):
    """``env`` with its observations flattened, and its actions in its own units.

    ``keys`` chooses leaves of a dictionary observation; None takes all, the goal included (see
    `flatten`). ``references`` are the returns of score 0 and 100. Without them the score is success where the
    environment has a goal and says whether it was reached, else the return.

    Raises `UsageError` for observations that are not vectors, and for actions that are not bounded
    vectors.
    """

    def __init__(self, env: Any, task: str, *, keys: Sequence[str] | None = None,
                 references: tuple[float, float] | None = None, goal_reaching: bool = False) -> None:
        self.env, self.task, self._references = env, task, references
        self.keys = flatten.choose(env.observation_space, keys, task)
        flatten.check_spaces(env.observation_space, self.keys, task)
        self.state_dim = sum(int(np.prod(flatten.leaf(env.observation_space, key).shape))
                             for key in self.keys)
        self._bounds = ActionBounds.of_space(env.action_space, task)
        self.action_dim = len(self._bounds.low)
        self._action_type, self._action_shape = env.action_space.dtype, env.action_space.shape
        limited = env.has_wrapper_attr("_max_episode_steps")  # Gymnasium's TimeLimit
        self.max_episode_steps = env.spec.max_episode_steps if env.spec else \
            env.get_wrapper_attr("_max_episode_steps") if limited else None
        self._maze = maze_of(env)
        if references is not None:
            self.score_name = "normalized score"
        elif goal_reaching or ("desired_goal" in flatten.leaf_names(env.observation_space)
                               and self._says_success()):
            self.score_name, self.succeeds_or_fails = "success rate (%)", True

    def reset(self, seed: int) -> np.ndarray:
        with quiet(), self.own_random(seed):  # OGBench draws from numpy's global generator
            self.env.action_space.seed(seed)
            given = self.env.reset(seed=seed)
        observation, info = _values(given, "reset", RESET)
        self.truncated, self.success = False, None
        self._note_success(info)
        return flatten.flatten(observation, self.keys)

    def step(self, action: np.ndarray) -> Step:
        action = np.clip(np.asarray(action, np.float64), self._bounds.low, self._bounds.high)
        with self.own_random():
            given = self.env.step(action.astype(self._action_type).reshape(self._action_shape))
        observation, reward, terminated, truncated, info = _values(given, "step", STEP)
        ended, stopped = _number("terminated", terminated) != 0, _number("truncated", truncated) != 0
        self.truncated = stopped and not ended
        self._note_success(info)
        return Step(flatten.flatten(observation, self.keys), _number("the reward", reward), ended or stopped)

    @property
    def bounds(self) -> ActionBounds:
        return self._bounds

    def score(self, total_reward: float, success: bool | None) -> float:
        if self._references is not None:
            low, high = self._references
            return 100.0 * (total_reward - low) / (high - low)
        return 100.0 * bool(success) if self.succeeds_or_fails else total_reward

    def position(self) -> np.ndarray | None:
        return self._maze.position() if self._maze else None

    def goal(self) -> np.ndarray | None:
        return self._maze.goal() if self._maze else None

    def maze(self) -> Maze | None:
        return self._maze.walls() if self._maze else None

    def render(self, width: int = 480, height: int = 480) -> np.ndarray:
        """A picture [H, W, 3] uint8, of the size that the environment was registered with."""
        try:
            image = self.env.render()
        except Exception as error:
            raise UsageError(f"{self.task} cannot be drawn here ({explain(error)}); MuJoCo's need OpenGL: "
                             "install EGL or OSMesa and set MUJOCO_GL=egl or osmesa") from error
        if image is None:
            raise UsageError(f"{self.task} draws no pictures")
        return np.ascontiguousarray(image)

    def simulator(self) -> dict[str, str]:
        package = type(self.env.unwrapped).__module__.split(".")[0]
        made = f"{package} {_version(package)}"
        model = getattr(self.env.unwrapped, "model", None) or getattr(self.env.unwrapped, "_model", None)
        if type(model).__module__.split(".")[0] == "mujoco":
            return {"name": "mujoco", "version": _version("mujoco"),
                    "contacts": "as this MuJoCo has them", "environment": made}
        return {"name": package, "version": _version(package), "contacts": "its own",
                "environment": made}

    def close(self) -> None:
        self.env.close()

    def _note_success(self, info: dict[str, Any]) -> None:
        for key in SUCCESS_KEYS:
            if info.get(key) is not None:
                self.success = bool(self.success) or any(
                    _number(key, value) for value in np.ravel(np.asarray(info[key], object)))

    def _says_success(self) -> bool:
        self.reset(0)
        self.step(np.zeros(self.action_dim))
        return self.success is not None


def _values(given: Any, method: str, names: tuple[str, ...]) -> Any:
    """What an environment's ``method`` gave, if it is what Gymnasium's API asks for."""
    if not isinstance(given, tuple | list) or len(given) != len(names):
        count = f"{len(given)} values" if isinstance(given, tuple | list) else f"a {type(given).__name__}"
        raise UsageError(f"its {method} gives {count}, and Gymnasium's gives ({', '.join(names)}); mend the "
                         "environment")
    if not isinstance(given[-1], Mapping):
        raise UsageError(f"its {method} gives the info {shown(given[-1])}, expected a dictionary; mend the "
                         "environment")
    return given


def _number(name: str, value: Any) -> float:
    """``value`` as a float, if it is one real number, perhaps in an array; only a reward may be NaN."""
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "buif" or (np.isnan(array).any() and "reward" not in name):
        raise UsageError(f"the step gives {name} {shown(value)}, expected one number; mend the environment")
    return float(array.reshape(-1)[0])


def _version(package: str) -> str:
    try:
        return metadata.version(package.replace("_", "-"))
    except metadata.PackageNotFoundError:
        return "of unknown version"
