"""Environments: D4RL's on today's MuJoCo, Gymnasium's, OGBench's and Minari's, alone or in workers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swg_fast.envs.base import TaskEnv
    from swg_fast.envs.gymnasium_task import make
    from swg_fast.envs.registry import make_env

_EXPORTS = {"TaskEnv": "base", "make": "gymnasium_task", "make_env": "registry"}
__all__ = ["TaskEnv", "make", "make_env"]


def __getattr__(name: str) -> Any:
    """Loads on first use: the command line reads a default here and should not wait for NumPy."""
    if name in _EXPORTS:
        return getattr(import_module(f"swg_fast.envs.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
