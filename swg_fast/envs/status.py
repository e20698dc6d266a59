"""Which of D4RL's families work on this machine."""

from __future__ import annotations

from swg_fast.common.errors import UsageError
from swg_fast.common.quiet import explain, quiet
from swg_fast.envs.d4rl_import import FAMILY_MODULES, d4rl_installed, import_family_module
from swg_fast.envs.tasks import presets


def family_status(family: str) -> str:
    """'works', or why a D4RL family does not work here and what mends it."""
    task = next(name for name, preset in presets().items() if preset.family == family)
    try:
        if family == "antmaze" and not d4rl_installed():
            from swg_fast.envs.native_antmaze import NativeAntMaze

            NativeAntMaze(task).reset(0)
            return "works, as swg-fast's own environments of the same physics (D4RL is not installed)"
        import_family_module(FAMILY_MODULES[family])
        import gym

        with quiet():
            gym.make(task).reset()
        return "works"
    except UsageError as error:
        return str(error)
    except Exception as error:
        return f"{task} cannot be made: {type(error).__name__}: {explain(error)}"
