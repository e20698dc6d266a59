"""The loops of `native.c`: element-wise work of a tile, compiled for this machine."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from swg_fast.kernels.shared.c_compiler import compiled

SOURCE, SCALAR = (Path(__file__).with_name(name) for name in ("native.c", "scalar.h"))
SUFFIX = {torch.float32: "float", torch.bfloat16: "bf16"}
MAX_HIDDEN, MAX_LATENT = 4096, 64  # native.c's buffers on the stack
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
