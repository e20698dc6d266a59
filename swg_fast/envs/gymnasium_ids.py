"""The ids that Gymnasium has registered on this machine."""

from __future__ import annotations

import contextlib
import importlib.util

from swg_fast.common.quiet import quiet, standing_in


def known_gymnasium_ids() -> list[str]:
    """The ids that Gymnasium has registered here, Gymnasium-Robotics' included where installed."""
    import gymnasium

    with contextlib.suppress(ImportError), quiet(), standing_in({"mujoco_py": None}):
        gymnasium.register_envs(importlib.import_module("gymnasium_robotics"))
        from swg_fast.envs import robotics

        robotics.adapt()
    return sorted(gymnasium.registry)
