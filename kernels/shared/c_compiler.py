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
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from swg_fast.kernels.shared.binary_cache import cache_folder, keep, private_folder, trusted

Loaded = TypeVar("Loaded")
# Sums may be reordered into vectors; NaN and infinity keep their meaning. No fast-math beyond that.
FLAGS = ["-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math",
         "-fno-signed-zeros", "-fassociative-math", "-shared", "-fPIC"]


def compiler() -> str | None:
    """The C compiler's path; None where there is none, or where $SWG_FAST_NATIVE is 0."""
    if os.environ.get("SWG_FAST_NATIVE") == "0":
        return None
    return next((found for name in (os.environ.get("CC"), "cc", "gcc", "clang")
                 if name and (found := shutil.which(name))), None)


def compiled(source: Path, included: tuple[Path, ...], load: Callable[[Path], Loaded]) -> Loaded | None:
    """``load`` of the shared library made from ``source``, which includes the files ``included``; None
    where there is no compiler, and, with a warning, where it fails."""
    command = compiler()
    if command is None:
        return None
    flags = [*FLAGS, *(["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else [])]
    text = "".join(file.read_text() for file in (source, *included))
    name = f"{source.stem}-{_fingerprint(command, flags, text)}.so"
    build = [command, *flags, str(source), "-lm", "-lpthread"]
    try:
        try:
            return _load_or_build(cache_folder() / name, build, load)
        except OSError:  # a full disk, or one whose files may not be run
            return _load_or_build(private_folder() / name, build, load)
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        warnings.warn(f"{command} could not compile {source.name} ({said[0] if said else error}); "
                      "going on without it, slower", stacklevel=2)
        return None


def _load_or_build(path: Path, build: list[str], load: Callable[[Path], Loaded]) -> Loaded:
    """``load`` of the library at ``path``; built where there is none, or not the one that was kept."""
    if not trusted(path):
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            built = Path(folder) / path.name
            subprocess.run([*build, "-o", str(built)], check=True, capture_output=True, text=True)
            keep(built, path)
    return load(path)


def _fingerprint(command: str, flags: list[str], source: str) -> str:
    """Changes with the source, the compiler and the processor."""
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=False).stdout
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else [platform.processor()]
    features = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    text = "\n".join([source, version, *flags, platform.machine(), *features])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
