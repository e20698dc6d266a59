"""The machine's functions; the C compiler builds it at first use."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "machine"
FLAGS = (
    "-O2",
    "-ftree-vectorize",
    "-march=native",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fPIC",
    "-shared",
)


class Report(ctypes.Structure):
    """The machine's report of two unordered accesses, as in machine.h."""

    _fields_ = [
        *(
            (name, ctypes.c_int)
            for name in ("kind", "first_at", "second_at", "first_warp", "second_warp", "space")
        ),
        ("address", ctypes.c_uint64),
        ("count", ctypes.c_uint64),
    ]


def _build() -> Path:
    files = sorted(SOURCES.glob("*.[ch]"))
    content = b"".join(path.read_bytes() for path in files)
    folder = Path(
        os.environ.get("SWG_FAST_EMULATOR", Path(tempfile.gettempdir()) / f"swg-fast-emulator-{os.getuid()}")
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"machine-{hashlib.sha256(content).hexdigest()[:16]}.so"
    if not path.exists():
        unfinished = path.with_suffix(f".{os.getpid()}.tmp")
        subprocess.run(
            [os.environ.get("CC", "cc"), *FLAGS, str(SOURCES / "machine.c"), "-o", str(unfinished), "-lm"],
            check=True,
        )
        unfinished.rename(path)
    return path


@functools.cache
def library() -> ctypes.CDLL:
    """The machine's functions, declared."""
    machine = ctypes.CDLL(str(_build()))
    pointer, integer, word, wide = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_uint64
    signatures = {
        "new": (pointer, [pointer, integer, pointer, integer, integer, word, integer, integer]),
        "free": (None, [pointer]),
        "buffer": (None, [pointer, pointer, wide, integer]),
        "run": (
            integer,
            [
                pointer,
                pointer,
                integer,
                pointer,
                integer,
                pointer,
                integer,
                pointer,
                pointer,
                wide,
                integer,
                wide,
            ],
        ),
        "error": (ctypes.c_char_p, [pointer]),
        "error_at": (integer, [pointer]),
        "error_warp": (integer, [pointer]),
        "report_count": (integer, [pointer]),
        "report": (ctypes.POINTER(Report), [pointer, integer]),
        "layout": (wide, [pointer, integer]),
        "sectors": (wide, [pointer, integer]),
        "executed": (wide, [pointer]),
        "executed_by": (wide, [pointer, integer]),
        "op_name": (ctypes.c_char_p, [integer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(machine, f"machine_{name}")
        function.restype, function.argtypes = result, arguments
    return machine


@functools.cache
def operations() -> dict[str, int]:
    """The machine's operations by name."""
    names: dict[str, int] = {}
    while name := library().machine_op_name(len(names)):
        names[name.decode()] = len(names)
    return names
