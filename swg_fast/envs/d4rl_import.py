"""Imports gym and D4RL without their notices, and with stand-ins for what they lack."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import ModuleType

from swg_fast.common.errors import UsageError
from swg_fast.common.quiet import explain, quiet, silent_descriptors, standing_in

# Which module registers a family's environments.
FAMILY_MODULES = {
    "antmaze": "locomotion",
    "locomotion": "gym_mujoco",
    "kitchen": "kitchen",
    "adroit": "hand_manipulation_suite",
}


def d4rl_installed() -> bool:
    """Whether gym and D4RL are installed, in whatever version."""
    return all(importlib.util.find_spec(name) for name in ("gym", "d4rl"))


def _check_packages() -> None:
    """`UsageError` where D4RL or gym is not installed, or gym is not the version that D4RL needs."""
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


def import_family_module(name: str) -> ModuleType:
    """The module ``d4rl.<name>``. Raises `UsageError` for missing packages, and what the import raises."""
    os.environ.setdefault("D4RL_SUPPRESS_IMPORT_ERROR", "1")
    _check_packages()
    with quiet(), silent_descriptors():
        from swg_fast.envs import simulator

        simulator.install()
        import gym

        gym.logger.set_level(gym.logger.ERROR)
        from swg_fast.envs import adroit, kitchen

        with standing_in(adroit.mjrl_modules() | kitchen.dm_control_modules()), _folder_for_data():
            importlib.import_module("d4rl")
            module = importlib.import_module(f"d4rl.{name}")
        if name == "kitchen":
            kitchen.adapt()
    return module


@contextmanager
def _folder_for_data() -> Iterator[None]:
    """D4RL makes its folder of datasets when it is imported. Where it cannot, it gets a temporary one for the
    block, since its environments need none."""
    name = "D4RL_DATASET_DIR"
    before = os.environ.get(name)
    try:
        Path(before or "~/.d4rl/datasets").expanduser().mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: no home folder is known
        with tempfile.TemporaryDirectory() as folder:
            os.environ[name] = folder
            try:
                yield
            finally:
                os.environ.pop(name)
                os.environ.update({name: before} if before else {})
    else:
        yield


def import_d4rl(name: str) -> ModuleType:
    """The module ``d4rl.<name>``. Raises `UsageError` where it cannot be imported here."""
    try:
        return import_family_module(name)
    except UsageError as error:
        raise UsageError(f"D4RL cannot be used here: {error}") from error
    except Exception as error:  # a third-party import may raise anything
        raise UsageError(f"d4rl.{name} cannot be imported here ({explain(error)}); "
                         "'swg-fast info' says which D4RL families work") from error
