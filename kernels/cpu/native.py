"""Compiling C for this machine, once, and calling `native.c`.

No compiler comes with this package. Where the machine has one (`cc`, or $CC) the loops are compiled at
their first use, in about a second, and kept in the cache folder; where it has none, ATen's operators
do the same work (`kernels.cpu.aten`). Which of the two it is depends on the machine alone.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from swg_fast.kernels.shared.cache import cache_folder, keep, private_folder, trusted

Loaded = TypeVar("Loaded")
SOURCE, SCALAR = (Path(__file__).with_name(name) for name in ("native.c", "scalar.h"))
# Sums may be reordered into vectors; NaN and infinity keep their meaning. No fast-math beyond that.
FLAGS = ["-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math",
         "-fno-signed-zeros", "-fassociative-math", "-shared", "-fPIC"]
SUFFIX = {torch.float32: "float", torch.bfloat16: "bf16"}
MAX_HIDDEN, MAX_LATENT = 4096, 64  # native.c's buffers on the stack


def compiler() -> str | None:
    """The C compiler's path; None where there is none, or where $SWG_FAST_NATIVE is 0."""
    if os.environ.get("SWG_FAST_NATIVE") == "0":
        return None
    return next((found for name in (os.environ.get("CC"), "cc", "gcc", "clang")
                 if name and (found := shutil.which(name))), None)


# Arguments of native.c's functions: pointers, whole numbers, floats. `_T` stands for either type.
SIGNATURES = {
    "normals": "nnppnnnp", "input_layer": "nnnpppppp", "input_vjp": "nnnppp", "update": "nnpffnnppppppp",
    "silu_T": "npp", "multiply_T": "npp", "add_normalise_T": "nnfpppp", "normalise_vjp_T": "nnppppp",
    "read_out_T": "nnnnppppppp", "add_T": "nnppp", "early_head_T": "nnnppfp", "widen_T": "npp",
}
KINDS = {"p": ctypes.c_void_p, "n": ctypes.c_long, "f": ctypes.c_float}


class Library:
    """native.c's functions, by name. Tensors are passed by address; None is a null pointer."""

    def __init__(self, path: Path) -> None:
        loaded = ctypes.CDLL(str(path))  # its calls release Python's lock
        for name, kinds in SIGNATURES.items():
            for suffix in SUFFIX.values() if name.endswith("_T") else ("",):
                whole = name.replace("_T", f"_{suffix}")
                function = getattr(loaded, whole)
                function.restype, function.argtypes = None, [KINDS[kind] for kind in kinds]
                setattr(self, whole, self._by_address(function))

    def __getattr__(self, name: str) -> Any:  # what `__init__` sets, to a type checker
        raise AttributeError(name)

    @staticmethod
    def _by_address(function: Any) -> Any:
        def call(*arguments: Any) -> None:
            function(*[a.data_ptr() if isinstance(a, torch.Tensor) else a for a in arguments])

        return call


@lru_cache
def library() -> Library | None:
    """The compiled loops; None, with a warning where a compiler exists but fails, without them."""
    return compiled(SOURCE, (SCALAR,), Library)


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
