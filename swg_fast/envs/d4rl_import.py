"""Importing gym and D4RL without their notices, and with ``mujoco_py`` in place."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

from swg_fast.errors import UsageError

# Which module registers a family's environments.
FAMILY_MODULES = {
    "antmaze": "locomotion",
    "locomotion": "gym_mujoco",
    "kitchen": "kitchen",
    "adroit": "hand_manipulation_suite",
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Python-level prints, warnings and log lines of the block from the user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()),
              warnings.catch_warnings()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def _silent_descriptors() -> Iterator[None]:
    """Sends file descriptors 1 and 2 to nowhere: compiled modules print past Python."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        for target, descriptor in zip((1, 2), saved, strict=True):
            os.dup2(descriptor, target)
            os.close(descriptor)
        os.close(nowhere)


def import_d4rl(name: str) -> ModuleType:
    """The module ``d4rl.<name>``. Raises `UsageError` where it cannot be imported here."""
    os.environ.setdefault("D4RL_SUPPRESS_IMPORT_ERROR", "1")
    try:
        with quiet(), _silent_descriptors():
            from swg_fast.envs import mujoco_adapter

            mujoco_adapter.install()
            import gym

            gym.logger.set_level(gym.logger.ERROR)
            importlib.import_module("d4rl")
            return importlib.import_module(f"d4rl.{name}")
    except Exception as error:  # a third-party import may raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"d4rl.{name} cannot be imported here ({reason}); "
                         "'swg-fast info' says which D4RL families work") from error


def family_status(family: str) -> str:
    """'works', or in a few words why a D4RL family does not work here."""
    from swg_fast.presets import presets

    task = next(name for name, preset in presets().items() if preset.family == family)
    try:
        import_d4rl(FAMILY_MODULES[family])
        import gym

        with quiet():
            gym.make(task).reset()
        return "works"
    except Exception as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
