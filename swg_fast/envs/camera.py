"""A free camera over a simulation of ``mujoco_py``'s kind, the adapter's or the real one's."""

from __future__ import annotations

from typing import Any

from swg_fast.envs.simulator import real_asked_for

NO_OPENGL = ("rendering needs OpenGL and MuJoCo found none here; install EGL or OSMesa (Debian: libegl1 or "
             "libosmesa6) and set MUJOCO_GL=egl or osmesa")


def drawing(sim: Any, camera: dict[str, Any]) -> Any:
    """Off-screen drawing of ``sim`` by a free camera of these settings."""
    if real_asked_for():
        import mujoco_py as library
    else:
        from swg_fast.envs import mujoco_adapter as library
    context = library.MjRenderContextOffscreen(sim, -1)
    for name, value in camera.items():
        if name == "lookat":
            context.cam.lookat[:] = value
        else:
            setattr(context.cam, name, value)
    return context


def close_drawings(sim: Any) -> None:
    """Lets go of what all drawings of ``sim`` hold; the real ``mujoco_py`` does so by itself."""
    for context in () if real_asked_for() else sim.render_contexts:
        context.close()
