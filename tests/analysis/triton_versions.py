"""``python -m tests.analysis.triton_versions``: compiles the kernels with each supported Triton.

Each version is installed by pip into build/triton/VERSION, which stands before the installed one on the path
of a test run of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import triton
from rich.table import Table

from swg_fast.common.console import show
from swg_fast.kernels.fused.hopper.triton_compat import VERSIONS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "triton"
TESTS = "tests/analysis/test_triton_versions.py"


class Checked(NamedTuple):
    """How a version did; ``reason`` is the end of what pip or the tests said."""

    version: str
    installed: bool
    passed: bool
    reason: str


def _python(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = os.environ | ({"PYTHONPATH": str(path)} if path is not None else {})
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=env)


def checked(version: str) -> Checked:
    """Installs a version, where it is not there, and runs the tests with it."""
    folder = None if version == triton.__version__ else FOLDER / version
    if folder is not None and not folder.exists():
        # The whole package or nothing: a broken download leaves no folder of this name.
        part = FOLDER / f"{version}.part"
        pip = _python("-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--upgrade",
                      "--target", str(part), f"triton=={version}")
        if pip.returncode:
            return Checked(version, False, False, _end(pip))
        part.rename(folder)
    used = _python("-c", "import triton; print(triton.__version__)", path=folder)
    if used.stdout.strip() != version:
        return Checked(version, True, False, f"the tests would use Triton {used.stdout.strip()}")
    tests = _python("-m", "pytest", "-q", "-m", "compiled", TESTS, path=folder)
    return Checked(version, True, tests.returncode == 0, _end(tests))


def _end(run: subprocess.CompletedProcess[str]) -> str:
    lines = (run.stderr.strip() or run.stdout.strip()).splitlines() if run.returncode else \
        run.stdout.strip().splitlines()
    return lines[-1] if lines else ""


def verdict(found: list[Checked]) -> int:
    """The exit code: 1 where a version fails, or none could be installed. What pip has not for this Python is
    left out."""
    tried = [one for one in found if one.installed]
    return int(not tried or not all(one.passed for one in tried))


def main() -> None:
    """Prints a line for each version, and exits with 1 where one fails."""
    found = [checked(version) for version in VERSIONS]
    table = Table("Triton", "result", "last line")
    for one in found:
        result = "not installed" if not one.installed else "passed" if one.passed else "failed"
        table.add_row(one.version, result, one.reason)
    show(table)
    raise SystemExit(verdict(found))


if __name__ == "__main__":
    main()
