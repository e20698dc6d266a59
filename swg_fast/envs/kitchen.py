"""What D4RL's Franka Kitchen needs to run on today's NumPy and MuJoCo, without ``dm_control``."""

from __future__ import annotations

import collections.abc
from types import ModuleType
from typing import Any

import numpy as np

from swg_fast.envs.camera import Camera, drawing

# The view of D4RL's own drawing, which its tasks switch off.
CAMERA = Camera(distance=2.2, azimuth=70.0, elevation=-35.0, lookat=(-0.2, 0.5, 2.0))


def dm_control_modules() -> dict[str, ModuleType]:
    """Stand-ins for the modules of ``dm_control`` that D4RL imports to draw, which its tasks never do.

    The real package takes seconds to import and does not support MuJoCo 4.
    """
    modules = {name: ModuleType(name) for name in
               ("dm_control", "dm_control.mujoco", "dm_control.mujoco.engine")}
    vars(modules["dm_control"])["mujoco"] = modules["dm_control.mujoco"]
    vars(modules["dm_control.mujoco"])["engine"] = modules["dm_control.mujoco.engine"]
    return modules


def adapt() -> None:
    """Mends the imported ``d4rl.kitchen``; a second call changes nothing."""
    from d4rl.kitchen.adept_envs import mujoco_env
    from d4rl.kitchen.adept_envs.franka.robot import franka_robot

    mujoco_env.USE_DM_CONTROL = False  # its second back end, mujoco_py, runs on the adapter
    mujoco_env.collections = collections.abc  # where Mapping has lived since Python 3.10
    read = franka_robot.read_config_from_node
    if not getattr(read, "gives_scalars", False):
        franka_robot.read_config_from_node = _scalars(read)


def _scalars(read: Any) -> Any:
    """``read`` that returns a single number as a scalar: NumPy no longer converts an array of one element."""

    def scalar_or_array(*arguments: Any, **options: Any) -> Any:
        value = np.asarray(read(*arguments, **options))
        return value[0] if value.shape == (1,) else value

    vars(scalar_or_array)["gives_scalars"] = True
    return scalar_or_array


def draw(core: Any, width: int, height: int) -> np.ndarray:
    """A picture [height, width, 3] uint8 of the kitchen ``core``."""
    context = getattr(core, "_swg_fast_drawing", None)
    if context is None:
        context = core._swg_fast_drawing = drawing(core.sim, CAMERA)
    context.render(width, height)
    return context.read_pixels(width, height, depth=False)[::-1]
