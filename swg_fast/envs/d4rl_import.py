"""Importing gym and D4RL without their notices, and with what they lack in its place."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType

from swg_fast.common.errors import UsageError

# Which module registers a family's environments.
FAMILY_MODULES = {
    "antmaze": "locomotion",
    "locomotion": "gym_mujoco",
    "kitchen": "kitchen",
    "adroit": "hand_manipulation_suite",
}


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """Keeps the block's log lines, warnings and below, from the user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Python-level prints, warnings and log lines of the block from the user."""
    with (unlogged(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()),
          warnings.catch_warnings()):
        warnings.simplefilter("ignore")
        yield


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


@contextlib.contextmanager
def standing_in(modules: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """``modules`` importable by their names within the block, and the real ones again after it.

    None makes an import fail as that of a package that is not installed.
    """
    before = {name: sys.modules[name] for name in modules if name in sys.modules}
    sys.modules.update(modules)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def d4rl_installed() -> bool:
    """Whether gym and D4RL are installed, in whatever version."""
    return all(importlib.util.find_spec(name) for name in ("gym", "d4rl"))


def _check_packages() -> None:
    """`UsageError` where gym and D4RL are not there, or gym is another package's."""
    for name in ("d4rl", "gym"):
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            if sys.version_info >= (3, 12):
                mend = ("it needs Python 3.11, since it depends on pybullet, which has no wheel for "
                        "later ones; make the environment with python3.11")
            else:
                mend = "pip install 'd4rl==1.1' 'gym>=0.23,<0.24'"
            raise UsageError(f"{name} is not installed: {mend}") from None
        if name == "gym" and not found.startswith("0.23."):
            raise UsageError(f"gym {found} is installed and D4RL works with gym 0.23 only; another package "
                             "brought it: pip install 'gym>=0.23,<0.24', or keep that package in an "
                             "environment of its own")


def _import_family_module(name: str) -> ModuleType:
    os.environ.setdefault("D4RL_SUPPRESS_IMPORT_ERROR", "1")
    _check_packages()
    with quiet(), _silent_descriptors():
        from swg_fast.envs import simulator

        simulator.install()
        import gym

        gym.logger.set_level(gym.logger.ERROR)
        from swg_fast.envs import adroit, kitchen

        with standing_in(adroit.mjrl_modules() | kitchen.dm_control_modules()):
            importlib.import_module("d4rl")
            module = importlib.import_module(f"d4rl.{name}")
        if name == "kitchen":
            kitchen.adapt()
    return module


def explain(error: Exception) -> str:
    """All of an exception's words, on one line; where it has none, the place that raised it."""
    words = " ".join(str(error).split())
    if words:
        return words
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" in {Path(frame.filename).name}, line {frame.lineno}: {frame.line}" for frame in last)
    return type(error).__name__ + where


def import_d4rl(name: str) -> ModuleType:
    """The module ``d4rl.<name>``. Raises `UsageError` where it cannot be imported here."""
    try:
        return _import_family_module(name)
    except UsageError as error:
        raise UsageError(f"D4RL cannot be used here: {error}") from error
    except Exception as error:  # a third-party import may raise anything
        raise UsageError(f"d4rl.{name} cannot be imported here ({explain(error)}); "
                         "'swg-fast info' says which D4RL families work") from error


def family_status(family: str) -> str:
    """'works', or why a D4RL family does not work here and what mends it."""
    from swg_fast.presets import presets

    task = next(name for name, preset in presets().items() if preset.family == family)
    try:
        if family == "antmaze" and not d4rl_installed():
            from swg_fast.envs.native_antmaze import NativeAntMaze

            NativeAntMaze(task).reset(0)
            return "works, as swg-fast's own environments of the same physics (D4RL is not installed)"
        _import_family_module(FAMILY_MODULES[family])
        import gym

        with quiet():
            gym.make(task).reset()
        return "works"
    except UsageError as error:
        return str(error)
    except Exception as error:
        return f"{task} cannot be made: {type(error).__name__}: {explain(error)}"
