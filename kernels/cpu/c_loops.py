"""The loops of `native.c`: element-wise work of a tile, compiled for this machine."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from swg_fast.kernels.shared.c_arguments import address
from swg_fast.kernels.shared.c_compiler import compiled

SOURCE, SCALAR = (Path(__file__).with_name(name) for name in ("native.c", "scalar.h"))
SUFFIX = {torch.float32: "float", torch.bfloat16: "bf16"}
MAX_HIDDEN, MAX_LATENT = 4096, 64  # native.c's buffers on the stack
# The arguments of native.c's functions: `n` whole numbers, `x` floats, and arrays with their least sizes: `f`
# float32, `q` int64, `T` the type of activations. None may stand for an array with a question mark.
SIGNATURES = {
    "normals": "n M, n D, q candidates[M], q states[M], n step, n k0, n k1, f out[M*D]",
    "input_layer": "n M, n H, n D, f z[M*D], f vectors[H], q owners[M], f time[H], f weight[D*H], f h[M*H]",
    "input_vjp": "n M, n H, n D, f g[M*H], f weight[D*H], f out[M*D]",
    "update": "n M, n D, f row[9], x low, x high, n clip_state, n clip_clean, f eps[M*D], f vjp[M*D]?, "
              "f noise[M*D], f z[M*D], f weight[M], f gradient[M*D], f last[M*D]?",
    "silu_T": "n count, T a[count], T slope[count]?",
    "multiply_T": "n count, T a[count], T b[count]",
    "add_normalise_T": "n M, n H, x eps, f h[M*H], T sums[M*H]?, T x[M*H], f rstd[M]",
    "normalise_vjp_T": "n M, n H, T outer[M*H], T x[M*H], f rstd[M], f g[M*H], T g_low[M*H]",
    "read_out_T": "n M, n H, n D, n K, f h[M*H], T sums[M*H]?, T weight[K*H], f bias[K], f eps[M*D], "
                  "f g[M*H]?, T g_low[M*H]?",
    "add_T": "n M, n H, f h[M*H], T sums[M*H], T x[M*H]",
    "early_head_T": "n M, n E, n D, T a[M*E], T out[E], x bias, f eps[M*D]",
    "widen_T": "n count, T a[count], f g[count]",
}
NUMBERS = {"n": ctypes.c_long, "x": ctypes.c_float}
ARRAYS = {"f": torch.float32, "q": torch.int64}


class Array(NamedTuple):
    """An array among a function's arguments: its place there, its name in a message, and its type."""

    place: int
    name: str
    dtype: torch.dtype
    optional: bool


class Library:
    """native.c's functions, by name. They take tensors, checked by `SIGNATURES`; None is a null pointer."""

    def __init__(self, path: Path) -> None:
        loaded = ctypes.CDLL(str(path))  # its calls release Python's lock
        for name, signature in SIGNATURES.items():
            for dtype, suffix in SUFFIX.items() if name.endswith("_T") else ((None, ""),):
                whole = name.replace("_T", f"_{suffix}")
                setattr(self, whole, checked(getattr(loaded, whole), whole, signature, dtype))

    def __getattr__(self, name: str) -> Any:  # what `__init__` sets, to a type checker
        raise AttributeError(name)


def checked(function: Any, name: str, signature: str, T: torch.dtype | None) -> Callable[..., None]:
    """The C ``function`` as one that takes tensors and checks each of them; `TypeError` names a wrong one."""
    parts = [re.fullmatch(r"(\w) (\w+)(?:\[(.+)\])?(\??)", part).groups()  # type: ignore[union-attr]
             for part in signature.split(", ")]
    function.restype = None
    function.argtypes = [NUMBERS.get(kind, ctypes.c_void_p) for kind, *_ in parts]
    arrays = [Array(place, f"{name}'s {argument}", ARRAYS.get(kind, T), bool(optional))
              for place, (kind, argument, size, optional) in enumerate(parts) if size]
    # From the numbers to every array's size, such as M*D: an expression of the table above.
    sizes = eval(f"lambda {','.join(part[1] for part in parts)}: "
                 f"({','.join(part[2] for part in parts if part[2])},)")

    def call(*given: Any) -> None:
        handed = list(given)
        for array, size in zip(arrays, sizes(*given), strict=True):
            tensor = given[array.place]
            if tensor is not None or not array.optional:
                handed[array.place] = address(array.name, tensor, array.dtype, size)
        function(*handed)

    return call


@lru_cache
def library() -> Library | None:
    """The compiled loops; None, with a warning where a compiler exists but fails, without them."""
    return compiled(SOURCE, (SCALAR,), Library)
