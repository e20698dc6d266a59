"""``mujoco``, imported so that it can draw without a window. Import it from here, not by itself."""

from __future__ import annotations

import contextlib
import ctypes.util
import os
import sys

from swg_fast.common.errors import UsageError, reason

# MuJoCo draws through a window unless told otherwise, and reads this when it is imported.
if sys.platform == "linux" and not os.environ.get("DISPLAY") and "MUJOCO_GL" not in os.environ:
    for _library, _name in (("EGL", "egl"), ("OSMesa", "osmesa")):
        if ctypes.util.find_library(_library):
            os.environ["MUJOCO_GL"] = _name
            break

# Mesa's software renderer and Triton each bring an LLVM. Triton's library crashes when it is loaded
# after Mesa's, not before; torch's optimisers load it.
if os.environ.get("MUJOCO_GL") in ("egl", "osmesa"):
    with contextlib.suppress(ImportError):
        import triton  # noqa: F401

try:
    import mujoco
except RuntimeError as error:  # it does not know the value of MUJOCO_GL
    raise UsageError(f"{reason(error)}; set MUJOCO_GL to egl, osmesa or glfw, or unset it") from error

__all__ = ["check", "mujoco"]


def check() -> None:
    """RuntimeError where MuJoCo would open a window and there is no display: the process would end."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        from mujoco import gl_context

        if "glfw" in getattr(getattr(gl_context, "GLContext", None), "__module__", ""):
            raise RuntimeError("MuJoCo was imported before MUJOCO_GL was set, or found no EGL")
