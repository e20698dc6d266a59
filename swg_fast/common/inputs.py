"""Arrays from a caller: of any library, byte order and stride, or one clear line."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from swg_fast.common.checks import WORD
from swg_fast.common.errors import UsageError

# Types whose numbers torch reads one by one; not every release has all of them.
REAL = {getattr(torch, name, None) for name in (
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "bfloat16",
    "float32", "float64", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")}


def real_tensor(name: str, value: Any) -> torch.Tensor:
    """``value`` (numbers of any real type, in an array, a tensor or a list) as a plain tensor.

    Raises `UsageError` for text, objects, complex numbers, masked entries and ragged lists.
    """
    if torch.is_tensor(value):
        return _plain(name, value)
    if np.ma.is_masked(value):
        raise UsageError(f"{name} has masked entries; fill them in first (array.filled(value))")
    try:
        array = np.asarray(value)
    except Exception as error:  # ragged lists, and whatever other libraries' arrays raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{name} cannot be made an array ({reason}); give an array of numbers") from error
    if array.dtype.kind not in "buif":
        raise UsageError(f"{name} has dtype {array.dtype} ({type(value).__name__}); "
                         "give an array of real numbers")
    kind = np.int64 if array.dtype.kind in "bui" else np.float32 if array.dtype.itemsize <= 4 else np.float64
    if array.dtype == np.uint64 and array.size and array.max() >= 2**63:
        kind = np.float64
    # A copy where torch could not share it: other byte order, negative strides, read-only memory.
    array = np.require(array, kind, ["C", "W"])
    return _plain(name, torch.from_numpy(array))


def _plain(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` without gradient and class, its numbers in memory as they are; or one clear line."""
    # Fake tensors, those inside torch.vmap, and whatever else stands for numbers that are not there.
    stands_for = (type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
                  or torch._is_functional_tensor(tensor)
                  or torch._C._functorch.is_functorch_wrapped_tensor(tensor))
    if stands_for or tensor.layout is not torch.strided or tensor.is_nested or tensor.dtype not in REAL \
            or tensor.device.type == "meta":
        kind = "nested" if tensor.is_nested else f"{tensor.dtype}, {tensor.layout}"
        if stands_for and not tensor.is_nested:
            kind = "it only stands for numbers, as in torch.vmap or torch.export,"
        raise UsageError(f"{name}: a {type(tensor).__name__} ({kind} on {tensor.device}) was given; give a "
                         "dense tensor of real numbers")
    tensor = tensor.detach().as_subclass(torch.Tensor).resolve_neg()
    return tensor.clone() if tensor._is_zerotensor() else tensor


def state_rows(states: Any, state_dim: int, device: torch.device) -> torch.Tensor:
    """States [B, S], or one [S], as float32 [B, S] on ``device``.

    Raises `UsageError` for another shape or type, NaN, infinity, and values beyond float32's range.
    """
    given = real_tensor("states", states)
    tensor = given.to(torch.float32)  # looked at where it is: to ask a GPU costs a wait
    tensor = tensor[None] if tensor.ndim == 1 else tensor
    if tensor.ndim != 2 or tensor.shape[1] != state_dim or len(tensor) < 1:
        raise UsageError(f"states have shape {list(given.shape)}, this policy takes "
                         f"[B, {state_dim}] or [{state_dim}]")
    if not bool(torch.isfinite(tensor).all()):
        if given.is_floating_point() and not bool(torch.isfinite(given).all()):
            raise UsageError("states have NaN or infinity; check the environment's observations")
        raise UsageError("states are beyond float32's range (3.4e38); scale the observations as in training")
    return tensor.to(device)


def index_row(indices: Any, count: int, device: torch.device) -> torch.Tensor:
    """State indices [B] int64 in 0..2**32-1 on ``device``."""
    given = real_tensor("state_indices", indices)
    if given.shape != (count,):
        raise UsageError(f"state_indices has shape {list(given.shape)}, expected [{count}]: "
                         "one index a state")
    exact = given.double() if given.is_floating_point() else given  # torch computes little in narrow types
    whole = not exact.is_floating_point() or bool((exact == exact.trunc()).all())  # NaN equals nothing
    if not whole or bool(((exact < 0) | (exact >= WORD)).any()):
        raise UsageError("state_indices must be whole numbers in 0..2**32-1")
    return exact.to(device, torch.int64)
