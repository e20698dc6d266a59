"""The ids that Gymnasium has registered on this machine, and the names of tasks that are known."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util

from swg_fast.common.errors import UsageError
from swg_fast.common.quiet import quiet, standing_in
from swg_fast.envs.tasks import MINARI, OGBENCH, presets


def known_gymnasium_ids() -> list[str]:
    """The ids that Gymnasium has registered here, Gymnasium-Robotics' included where installed."""
    import gymnasium

    with contextlib.suppress(ImportError), quiet(), standing_in({"mujoco_py": None}):
        gymnasium.register_envs(importlib.import_module("gymnasium_robotics"))
        from swg_fast.envs import robotics

        robotics.adapt()
    return sorted(gymnasium.registry)


def is_known(task: str) -> bool:
    """Whether training knows the name ``task``: a preset's, Minari's, OGBench's or a registered Gymnasium
    id's. ``MODULE:ID`` is left to Gymnasium, which imports the module."""
    import gymnasium

    return bool(task in presets() or task.startswith(MINARI) or OGBENCH.fullmatch(task) or ":" in task
                or task in gymnasium.registry or task in known_gymnasium_ids())


def check_task(task: str) -> None:
    """`UsageError`, with the nearest names, where ``task`` is not `is_known`."""
    if is_known(task):
        return
    near = difflib.get_close_matches(task, presets(), n=3) \
        or difflib.get_close_matches(task, known_gymnasium_ids(), n=3) or list(presets())[:3]
    raise UsageError(f"unknown environment {task!r}; did you mean {', '.join(near)}? For a name of your own, "
                     "which no environment here has, 'swg-fast train' takes --new-task")
