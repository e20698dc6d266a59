"""Environments: D4RL's on today's MuJoCo, Gymnasium's, OGBench's and Minari's, alone or in workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swg_fast.envs.base import TaskEnv
from swg_fast.envs.registry import make_env

if TYPE_CHECKING:
    from swg_fast.envs.gymnasium_task import make

__all__ = ["TaskEnv", "make", "make_env"]


def __getattr__(name: str) -> Any:
    if name == "make":  # the one that needs gymnasium to be imported
        from swg_fast.envs import gymnasium_task

        return gymnasium_task.make
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
