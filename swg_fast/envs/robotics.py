"""Gymnasium-Robotics on MuJoCo 4, whose joint types no longer equal plain numbers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from swg_fast.envs.opengl import mujoco


class _PlainJointTypes:
    """``mujoco`` with joint types as the numbers that models hold."""

    def __init__(self) -> None:
        types = {name: int(kind) for name, kind in mujoco.mjtJoint.__members__.items()}
        self.mjtJoint = SimpleNamespace(**types)

    def __getattr__(self, name: str) -> Any:
        return getattr(mujoco, name)


def adapt() -> None:
    """Mends the imported Gymnasium-Robotics where this MuJoCo needs it; a second call changes nothing."""
    from gymnasium_robotics.utils import mujoco_utils

    if np.int32(mujoco.mjtJoint.mjJNT_HINGE) not in (mujoco.mjtJoint.mjJNT_HINGE,):
        mujoco_utils.mujoco = _PlainJointTypes()
