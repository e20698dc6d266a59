"""The small part of ``mujoco_py`` that gym 0.23 and D4RL use, over today's ``mujoco``.

``mujoco_py`` no longer installs on current systems. `install` puts this module in its place, and
only where the real one cannot be imported.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes.util
import importlib
import os
import sys
import types
from collections import namedtuple
from typing import Any

# MuJoCo draws through a window unless told otherwise, and reads this when it is imported.
if sys.platform == "linux" and not os.environ.get("DISPLAY") and "MUJOCO_GL" not in os.environ:
    for _library, _name in (("EGL", "egl"), ("OSMesa", "osmesa")):
        if ctypes.util.find_library(_library):
            os.environ["MUJOCO_GL"] = _name
            break

# Mesa's software renderer and Triton each bring an LLVM. Triton's library crashes when it is loaded
# after Mesa's, not before; torch loads it on its own account (its optimisers do).
if os.environ.get("MUJOCO_GL") in ("egl", "osmesa"):
    with contextlib.suppress(ImportError):
        import triton  # noqa: F401

import mujoco
import numpy as np

MjSimState = namedtuple("MjSimState", "time qpos qvel act udd_state")


class _Model:
    """A ``mujoco.MjModel`` with mujoco_py's camera look-up."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self.__dict__["real"] = model
        names = (model.camera(i).name for i in range(model.ncam))
        self.__dict__["_camera_name2id"] = {name: i for i, name in enumerate(names)}

    def camera_name2id(self, name: str) -> int:
        return self._camera_name2id[name]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["real"], name)


class _Data:
    """A ``mujoco.MjData`` with mujoco_py's look-up of a body's position."""

    def __init__(self, data: mujoco.MjData) -> None:
        self.__dict__["real"] = data

    def get_body_xpos(self, name: str) -> np.ndarray:
        return self.real.body(name).xpos

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["real"], name)


class MjSim:
    """A model and its data, stepped."""

    def __init__(self, model: _Model) -> None:
        self.model = model
        self.data = _Data(mujoco.MjData(model.real))

    def reset(self) -> None:
        mujoco.mj_resetData(self.model.real, self.data.real)

    def forward(self) -> None:
        mujoco.mj_forward(self.model.real, self.data.real)

    def step(self) -> None:
        mujoco.mj_step(self.model.real, self.data.real)

    def get_state(self) -> MjSimState:
        data = self.data.real
        return MjSimState(data.time, data.qpos.copy(), data.qvel.copy(), data.act.copy(), {})

    def set_state(self, state: MjSimState) -> None:
        data = self.data.real
        data.time = state.time
        data.qpos[:] = state.qpos
        data.qvel[:] = state.qvel
        if state.act is not None and len(state.act):
            data.act[:] = state.act


class MjRenderContextOffscreen:
    """Rendering to an array through ``mujoco.Renderer``; rows come bottom first, as they used to."""

    def __init__(self, sim: MjSim, device_id: int = -1) -> None:
        self.sim = sim
        self.cam = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(sim.model.real, self.cam)
        self._renderer: mujoco.Renderer | None = None
        self._image: np.ndarray | None = None

    def render(self, width: int, height: int, camera_id: int | None = None) -> None:
        renderer = self._renderer
        if renderer is None or (renderer.width, renderer.height) != (width, height):
            if renderer is not None:
                renderer.close()
            visual = self.sim.model.real.vis.global_
            visual.offwidth = max(visual.offwidth, width)
            visual.offheight = max(visual.offheight, height)
            self._renderer = renderer = mujoco.Renderer(self.sim.model.real, height, width)
            atexit.register(renderer.close)  # while the modules that closing needs are still there
        renderer.update_scene(self.sim.data.real, self.cam if camera_id is None else camera_id)
        self._image = renderer.render()

    def read_pixels(self, width: int, height: int, depth: bool = False) -> Any:
        image = self._image[::-1]
        if not depth:
            return image
        self._renderer.enable_depth_rendering()
        values = self._renderer.render()[::-1]
        self._renderer.disable_depth_rendering()
        return image, values


def load_model_from_path(path: str) -> _Model:
    return _Model(mujoco.MjModel.from_xml_path(path))


def load_model_from_xml(text: str) -> _Model:
    return _Model(mujoco.MjModel.from_xml_string(text))


def get_version() -> str:
    return mujoco.__version__


def install() -> str:
    """Makes ``import mujoco_py`` work and says by what: 'mujoco_py' or 'adapter'."""
    present = sys.modules.get("mujoco_py")
    if present is not None:
        return "adapter" if getattr(present, "is_swg_fast_adapter", False) else "mujoco_py"
    try:
        importlib.import_module("mujoco_py")
        return "mujoco_py"
    except Exception:  # it raises bare Exceptions, compiler errors among them
        for name in [n for n in sys.modules if n.split(".")[0] == "mujoco_py"]:
            del sys.modules[name]
    module = types.ModuleType("mujoco_py", __doc__)
    module.is_swg_fast_adapter = True
    module.builder = types.SimpleNamespace(MujocoException=mujoco.FatalError)
    for item in (MjSim, MjSimState, MjRenderContextOffscreen, load_model_from_path,
                 load_model_from_xml, get_version):
        setattr(module, item.__name__, item)
    sys.modules["mujoco_py"] = module
    return "adapter"
