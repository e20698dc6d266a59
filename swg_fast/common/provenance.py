"""Where a result comes from: the code, the command, the device and the data of a JSON of results."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import TypedDict  # pydantic cannot read that of Python 3.11

from swg_fast import __version__
from swg_fast.common.hardware import device_name

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).parents[2]  # of the checkout, where there is one
PROGRAM = "swg-fast"


class Provenance(TypedDict):
    """The entry ``provenance`` of a JSON of results.

    commit: of the git checkout, with "-dirty" where files differ from it; None outside one. version: of
    swg-fast. command: what wrote the file. device: the GPU's name, or the processor's with its instruction
    set. data_hash: of the data that were read, by `Transitions.fingerprint` or a file's SHA-256; None
    without data. versions: of the packages that decide a result.
    """

    commit: str | None
    version: str
    command: str
    device: str
    data_hash: str | None
    versions: dict[str, str]


def provenance(device: torch.device | str = "cpu", data_hash: str | None = None, command: str | None = None
               ) -> Provenance:
    """Where a result comes from that was computed on ``device`` from the data of ``data_hash``. ``command``
    is this process's command line unless another process was asked."""
    import torch

    found = versions()
    return {"commit": commit(), "version": found[PROGRAM], "command": command or command_line(),
            "device": device_name(torch.device(device)), "data_hash": data_hash, "versions": found}


def versions() -> dict[str, str]:
    """Versions of what decides a result, by package."""
    # This program's own is in its code: what pip noted may be that of an older checkout.
    found = {"python": platform.python_version(), PROGRAM: __version__}
    for name in ("torch", "triton", "numpy", "d4rl", "gym", "gymnasium", "mujoco"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


@cache
def commit() -> str | None:
    """The commit of the checkout that this package lies in; None where it was installed otherwise."""
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top) != ROOT.resolve():
        return None  # no git, no checkout, or another project's around an installed package
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(*arguments: str) -> str | None:
    try:
        out = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except OSError:  # no git
        return None
    return out.stdout.strip() if out.returncode == 0 else None


def command_line() -> str:
    """This process's command as it is typed: ``swg-fast evaluate ...``, ``python -m benchmarks.shards``."""
    program = Path(sys.argv[0])
    program = program.parent if program.name == "__main__.py" else program
    if program.name in (PROGRAM, "swg_fast"):
        words = [PROGRAM]
    elif program.absolute().is_relative_to(ROOT):
        words = ["python", "-m", ".".join(program.absolute().relative_to(ROOT).with_suffix("").parts)]
    else:
        words = [program.name]
    return shlex.join([*words, *sys.argv[1:]])
