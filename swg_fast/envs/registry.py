"""From a task's name to its environment: D4RL, Gymnasium, OGBench or Minari."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Sequence
from typing import Any

from swg_fast.common.checks import shown, text
from swg_fast.common.errors import UsageError
from swg_fast.common.optional_packages import need
from swg_fast.common.quiet import explain, quiet, standing_in
from swg_fast.common.seeds import BorrowedRandom, random_kept
from swg_fast.envs.base import TaskEnv
from swg_fast.envs.d4rl_import import d4rl_installed
from swg_fast.envs.gymnasium_ids import known_gymnasium_ids
from swg_fast.envs.tasks import GYMNASIUM, MINARI, OGBENCH, presets
from swg_fast.envs.trust import check_module


def make_env(task: str, observation_keys: Sequence[str] | None = None, trust: Sequence[str] = ()) -> TaskEnv:
    """The environment of ``task``: a D4RL name (``antmaze-umaze-v2``), a Gymnasium id
    (``Hopper-v5``, ``AntMaze_UMaze-v5``), an OGBench single-task name
    (``antmaze-large-navigate-singletask-v0``) or ``minari:DATASET``.

    Where D4RL is not installed, as on Python 3.12 and later, its Ant Maze tasks are swg-fast's own.
    ``observation_keys`` chooses the parts of a dictionary observation, in order; None takes them all.
    ``trust`` names modules and entry points outside the known packages whose code may run: "mine" for
    "mine:Thing-v0". The global random generators stay as they were.

    Raises `UsageError` for an unknown name, for what is not installed or trusted, and for environments that a
    state-based policy cannot act in.
    """
    text("task", task)
    for name, given in (("observation_keys", observation_keys or ()), ("trust", trust)):
        if isinstance(given, str) or not all(isinstance(each, str) for each in given):
            raise UsageError(f"{name} is {shown(given)}; give a list of names")
    with BorrowedRandom().lent(), random_kept():
        return _make(task, observation_keys, trust)


def _make(task: str, observation_keys: Sequence[str] | None, trust: Sequence[str]) -> TaskEnv:
    if task in presets():
        from swg_fast.envs.d4rl_env import make_d4rl

        if observation_keys is not None:
            raise UsageError(f"{task} is D4RL's, whose observations are one vector, so leave the keys out")
        if presets()[task].family == "antmaze" and not d4rl_installed():
            from swg_fast.envs.native_antmaze import NativeAntMaze

            return NativeAntMaze(task)
        return make_d4rl(task)
    if task.startswith(MINARI):
        return _make_minari(task, observation_keys, trust)
    name = OGBENCH.fullmatch(task)
    if name:
        return _make_ogbench(task, name, observation_keys)
    check_module(task, trust)
    return _make_gymnasium(task, observation_keys)


def _make_gymnasium(task: str, keys: Sequence[str] | None) -> TaskEnv:
    import gymnasium

    spec = gymnasium.registry.get(task)
    plain = spec is not None and not str(spec.entry_point).startswith("gymnasium_robotics")
    known = set(gymnasium.registry if plain else known_gymnasium_ids())
    if task not in known and not (":" in task and GYMNASIUM.fullmatch(task)):
        names = [*presets(), *known]
        near = difflib.get_close_matches(task, names, n=3, cutoff=0.5) or list(presets())[:3]
        raise UsageError(f"unknown environment {task!r}; did you mean {', '.join(near)}? "
                         "'swg-fast info' lists D4RL's; a Gymnasium id, an OGBench name and "
                         "minari:DATASET are valid too" + _missing_robotics())
    return _make_wrapped(task, lambda **options: gymnasium.make(task, **options), keys)


def _missing_robotics() -> str:
    if importlib.util.find_spec("gymnasium_robotics"):
        return ""
    return "; those of Gymnasium-Robotics need pip install 'swg-fast[envs]'"


def _make_wrapped(task: str, make: Any, keys: Sequence[str] | None, **options: Any) -> TaskEnv:
    from swg_fast.envs import opengl  # noqa: F401  sets how MuJoCo draws
    from swg_fast.envs.gymnasium_env import GymnasiumEnv

    try:
        # Gymnasium-Robotics tries mujoco-py first, and fails where that is broken.
        with quiet(), standing_in({"mujoco_py": None}):
            try:
                env = make(disable_env_checker=True, render_mode="rgb_array")
            except TypeError:  # one that takes no render mode
                env = make(disable_env_checker=True)
            return GymnasiumEnv(env, task, keys=keys, **options)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # a third-party constructor may raise anything
        raise UsageError(f"{task} cannot be made here ({explain(error)})") from error


def _make_ogbench(task: str, name: re.Match[str], keys: Sequence[str] | None) -> TaskEnv:
    if task.startswith(("visual-", "powderworld")):
        raise UsageError(f"{task} shows pictures; swg-fast takes states, so use OGBench's state-based "
                         "tasks, such as antmaze-large-navigate-singletask-v0")
    if not name["single"]:
        raise UsageError(f"{task} is goal-conditioned and a policy sees no goal there; use its "
                         f"single-task variant, {name['env']}-{name['data']}-singletask-v0")
    ogbench = need("ogbench", task)
    return _make_wrapped(task,
                         lambda **options: ogbench.make_env_and_datasets(task, env_only=True, **options),
                         keys, goal_reaching=True)


def _make_minari(task: str, keys: Sequence[str] | None, trust: Sequence[str]) -> TaskEnv:
    from swg_fast.envs.minari_dataset import open_dataset, recover

    dataset = open_dataset(task.removeprefix(MINARI), trust)
    metadata = dataset.storage.metadata
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    references = (float(low), float(high)) if low is not None and high is not None and high > low else None
    return _make_wrapped(task, lambda **options: recover(dataset, task, trust, **options), keys,
                         references=references)
