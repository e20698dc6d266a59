"""Which simulator steps D4RL's environments: the adapter over ``mujoco``, unless asked otherwise."""

from __future__ import annotations

import importlib
import os
import sys

from swg_fast.common.errors import UsageError

REAL = "SWG_FAST_MUJOCO_PY"  # set to 1 to step with the real mujoco_py


def real_asked_for() -> bool:
    """Whether the environment variable asks for the real mujoco_py."""
    return os.environ.get(REAL, "0") not in ("", "0")


def install() -> None:
    """Makes ``import mujoco_py`` import the simulator that was chosen.

    Raises `UsageError` where the real mujoco_py is asked for and does not work, and where another part of
    the program has already imported it unasked: scores would then come from other physics.
    """
    present = sys.modules.get("mujoco_py")
    adapted = getattr(present, "is_swg_fast_adapter", False)
    if real_asked_for():
        if adapted:
            raise UsageError(f"{REAL}=1 was set after swg-fast's adapter had been loaded; set it "
                             "before the program starts")
        try:
            importlib.import_module("mujoco_py")
        except Exception as error:  # it raises bare Exceptions, compiler errors among them
            raise UsageError(f"{REAL}=1 asks for the real mujoco-py, which cannot be imported here "
                             f"({_first_line(error)}); unset {REAL} to step with MuJoCo") from error
    elif present is None:
        from swg_fast.envs import mujoco_adapter

        sys.modules.update(mujoco_adapter.modules())
    elif not adapted:
        raise UsageError("the real mujoco-py was imported before swg-fast's environments, which step "
                         f"with today's MuJoCo; import them first, or set {REAL}=1 to use it")


def describe() -> dict[str, str]:
    """The simulator, its version, and how contacts were mended: part of every result's JSON."""
    if real_asked_for():
        import mujoco_py

        return {"name": "mujoco-py", "version": str(mujoco_py.get_version()), "contacts": "as they are"}
    from swg_fast.envs import contacts
    from swg_fast.envs.opengl import mujoco

    return {"name": "mujoco", "version": mujoco.__version__, "contacts": contacts.describe()}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
