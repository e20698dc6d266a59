"""Compiling C for this machine, once.

No compiler comes with this package. Where the machine has one (`cc`, or $CC), sources are compiled at their
first use, in about a second, and kept in the cache folder. Where it has none, ATen's operators do the same
work. Which of the two happens depends on the machine alone.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from swg_fast.common.errors import note
from swg_fast.common.hardware import processor_lines
from swg_fast.kernels.shared.binary_cache import cache_folder, keep, private_folder, trusted

Loaded = TypeVar("Loaded")
ANSWERING, BUILDING = 20.0, 300.0  # seconds for the version and for a library, on a busy machine
_hung: set[str] = set()  # compilers that took longer
# Sums may be reordered into vectors; NaN and infinity keep their meaning. No fast-math beyond that.
FLAGS = ["-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math",
         "-fno-signed-zeros", "-fassociative-math", "-shared", "-fPIC"]


def compiler() -> str | None:
    """The C compiler's path; None where there is none that answers, or where $SWG_FAST_NATIVE is 0. One in
    the current folder is not taken, unless $CC has its path."""
    if os.environ.get("SWG_FAST_NATIVE") == "0":
        return None
    own = os.environ.get("CC")
    return next((found for name in (own, "cc", "gcc", "clang") if name and (found := shutil.which(name))
                 and (os.path.isabs(found) or os.sep in name) and found not in _hung), None)


def compiled(source: Path, included: tuple[Path, ...], load: Callable[[Path], Loaded]) -> Loaded | None:
    """``load`` of the shared library made from ``source``, which includes the files ``included``; None
    where there is no compiler, and, with a warning, where it fails."""
    command = compiler()
    if command is None:
        return None
    flags = [*FLAGS, *(["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else [])]
    text = "".join(file.read_text() for file in (source, *included))
    build = [command, *flags, str(source), "-lm", "-lpthread"]
    try:
        name = f"{source.stem}-{_fingerprint(command, flags, text)}.so"
        try:
            return _load_or_build(cache_folder() / name, build, load)
        except OSError:  # a full disk, or one whose files may not be run
            return _load_or_build(private_folder() / name, build, load)
    except (OSError, subprocess.SubprocessError) as error:
        if isinstance(error, subprocess.TimeoutExpired):
            _hung.add(command)
            said = [f"no end after {error.timeout:.0f} s"]
        else:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        note(f"{command} could not compile {source.name} ({said[0] if said else error}); "
             "going on without it, slower")
        return None


def _load_or_build(path: Path, build: list[str], load: Callable[[Path], Loaded]) -> Loaded:
    """``load`` of the library at ``path``; built where there is none, or not the one that was kept."""
    if not trusted(path):
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            built = Path(folder) / path.name
            _run([*build, "-o", str(built)], BUILDING).check_returncode()
            keep(built, path)
    return load(path)


def _run(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """The finished ``command``. Raises `subprocess.TimeoutExpired` after so many seconds, when it and all
    that it has started have been killed."""
    with subprocess.Popen(command, text=True, start_new_session=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            out, error = process.communicate(timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, error)


def _fingerprint(command: str, flags: list[str], source: str) -> str:
    """Changes with the source, the compiler and the processor."""
    version = _run([command, "--version"], ANSWERING).stdout
    features = sorted({line for line in processor_lines()
                       if line.startswith(("flags", "Features", "model name"))})
    text = "\n".join([source, version, *flags, platform.machine(), *features])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
