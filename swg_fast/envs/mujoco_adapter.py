"""The small part of ``mujoco_py`` that gym 0.23 and D4RL use, over today's ``mujoco``.

`swg_fast.envs.simulator` installs it in place of the real one.
"""

from __future__ import annotations

import contextlib
import types
import weakref
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np

from swg_fast.envs import contacts, model_files, opengl
from swg_fast.envs.opengl import mujoco

MjSimState = namedtuple("MjSimState", "time qpos qvel act udd_state")


class _Model:
    """A ``mujoco.MjModel`` with mujoco_py's look-ups by name, and its contacts mended."""

    def __init__(self, model: mujoco.MjModel) -> None:
        contacts.mend(model)
        self.__dict__["real"] = model
        names = (model.camera(i).name for i in range(model.ncam))
        self.__dict__["_camera_name2id"] = {name: i for i, name in enumerate(names)}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["real"], name)


def _look_up(kind: str) -> Any:
    def name2id(self: _Model, name: str) -> int:
        index = mujoco.mj_name2id(self.real, getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}"), name)
        if index < 0:
            raise ValueError(f"the model has no {kind} {name!r}")
        return index

    return name2id


for _kind in ("actuator", "body", "camera", "geom", "joint", "sensor", "site"):
    setattr(_Model, f"{_kind}_name2id", _look_up(_kind))


class _Data:
    """A ``mujoco.MjData`` with mujoco_py's names for bodies' positions and orientations."""

    def __init__(self, data: mujoco.MjData) -> None:
        self.__dict__["real"] = data

    def get_body_xpos(self, name: str) -> np.ndarray:
        return self.real.body(name).xpos

    @property
    def body_xpos(self) -> np.ndarray:
        return self.real.xpos

    @property
    def body_xquat(self) -> np.ndarray:
        return self.real.xquat

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["real"], name)


class MjSim:
    """A model and its data, stepped."""

    def __init__(self, model: _Model) -> None:
        self.model = model
        self.data = _Data(mujoco.MjData(model.real))
        self.render_contexts: list[MjRenderContextOffscreen] = []

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


def _close(renderer: mujoco.Renderer) -> None:
    with contextlib.suppress(Exception):  # other drawing code may have closed the display
        renderer.close()


class MjRenderContextOffscreen:
    """Rendering to an array through ``mujoco.Renderer``; the bottom row comes first, as in mujoco_py."""

    def __init__(self, sim: MjSim, device_id: int = -1) -> None:
        self.sim = sim
        sim.render_contexts.append(self)
        self.cam = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(sim.model.real, self.cam)
        self._markers: list[dict[str, Any]] = []
        self._renderer: mujoco.Renderer | None = None
        self._finalizer: weakref.finalize | None = None
        self._image: np.ndarray | None = None

    def render(self, width: int, height: int, camera_id: int | None = None) -> None:
        renderer = self._renderer
        if renderer is None or (renderer.width, renderer.height) != (width, height):
            self.close()
            opengl.check()
            visual = self.sim.model.real.vis.global_
            visual.offwidth = max(visual.offwidth, width)
            visual.offheight = max(visual.offheight, height)
            self._renderer = renderer = mujoco.Renderer(self.sim.model.real, height, width)
            # A renderer holds hundreds of megabytes. It closes with this object, or at exit while the modules
            # that closing needs are still loaded.
            self._finalizer = weakref.finalize(self, _close, renderer)
        renderer.update_scene(self.sim.data.real, self.cam if camera_id is None else camera_id)
        for marker in self._markers:
            _put(renderer.scene, **marker)
        self._image = renderer.render()

    def close(self) -> None:
        """Frees OpenGL's buffers; the next picture allocates new ones."""
        if self._finalizer is not None:
            self._finalizer()
        self._renderer = self._finalizer = None

    def add_marker(self, **marker: Any) -> None:
        """A shape in every picture from now on: pos and size (3), rgba (4), type (``cylinder``, ...)."""
        self._markers.append(marker)

    def read_pixels(self, width: int, height: int, depth: bool = False) -> Any:
        image = self._image[::-1]
        if not depth:
            return image
        self._renderer.enable_depth_rendering()
        values = self._renderer.render()[::-1]
        self._renderer.disable_depth_rendering()
        return image, values


def _put(scene: Any, pos: Any, size: Any, rgba: Any, type: str) -> None:
    if scene.ngeom >= scene.maxgeom:
        raise RuntimeError(f"the scene is full: it has {scene.maxgeom} shapes")
    kind = getattr(mujoco.mjtGeom, f"mjGEOM_{type.upper()}")
    mujoco.mjv_initGeom(scene.geoms[scene.ngeom], kind, np.asarray(size, float), np.asarray(pos, float),
                        np.eye(3).ravel(), np.asarray(rgba, np.float32))
    scene.geoms[scene.ngeom].size[:] = size  # mjv_initGeom takes other entries for a cylinder
    scene.ngeom += 1


class MjViewer:
    """Imported by Adroit and Kitchen, never opened: pictures are drawn off screen."""

    def __init__(self, sim: MjSim) -> None:
        raise NotImplementedError("swg-fast opens no window; render to an array instead")


def load_model_from_path(path: str) -> _Model:
    return _Model(model_files.load(Path(path)))


def load_model_from_xml(text: str) -> _Model:
    return _Model(mujoco.MjModel.from_xml_string(text))


def get_version() -> str:
    return mujoco.__version__


def modules() -> dict[str, types.ModuleType]:
    """``mujoco_py`` and ``mujoco_py.builder``, ready for ``sys.modules``."""
    package, builder = types.ModuleType("mujoco_py", __doc__), types.ModuleType("mujoco_py.builder")
    vars(package).update(is_swg_fast_adapter=True, builder=builder)
    vars(builder).update(MujocoException=mujoco.FatalError,
                         cymj=types.SimpleNamespace(set_warning_callback=lambda callback: None))
    for item in (MjSim, MjSimState, MjRenderContextOffscreen, MjViewer, load_model_from_path,
                 load_model_from_xml, get_version):
        setattr(package, item.__name__, item)
    return {"mujoco_py": package, "mujoco_py.builder": builder}
