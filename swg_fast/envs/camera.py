"""A free camera over a ``mujoco_py`` simulation, the adapter's or the real one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from swg_fast.envs.simulator import real_asked_for

NO_OPENGL = ("rendering needs OpenGL and MuJoCo found none here; install EGL or OSMesa (Debian: libegl1 or "
             "libosmesa6) and set MUJOCO_GL=egl or osmesa")


@dataclass(frozen=True)
class Camera:
    """Where a free camera is: metres from the point ``lookat`` that it looks at, and degrees."""

    distance: float
    azimuth: float
    elevation: float
    lookat: tuple[float, float, float] | None = None  # None: it follows the agent


def drawing(sim: Any, camera: Camera) -> Any:
    """Off-screen drawing of ``sim`` as ``camera`` sees it."""
    if real_asked_for():
        import mujoco_py as library
    else:
        from swg_fast.envs import mujoco_adapter as library
    context = library.MjRenderContextOffscreen(sim, -1)
    cam = context.cam
    cam.distance, cam.azimuth, cam.elevation = camera.distance, camera.azimuth, camera.elevation
    if camera.lookat is not None:
        cam.lookat[:] = camera.lookat
    return context


def close_drawings(sim: Any) -> None:
    """Closes all drawings of ``sim``; the real ``mujoco_py`` closes its own."""
    for context in () if real_asked_for() else sim.render_contexts:
        context.close()
