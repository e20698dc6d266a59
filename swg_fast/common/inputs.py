"""Arrays from a caller: of any library, byte order and stride, or one clear line."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from swg_fast.common.checks import WORD
from swg_fast.common.errors import UsageError


def real_tensor(name: str, value: Any) -> torch.Tensor:
    """``value`` (numbers of any real type, in an array, a tensor or a list) as a plain tensor.

    Raises `UsageError` for text, objects, complex numbers, masked entries and ragged lists.
    """
    if torch.is_tensor(value):
        tensor = value.detach()
        if tensor.layout is not torch.strided or tensor.is_complex() or tensor.is_quantized \
                or tensor.device.type == "meta":
            raise UsageError(f"{name}: a tensor of {tensor.dtype}, {tensor.layout} on {tensor.device} was "
                             "given; give a dense tensor of real numbers")
        return tensor
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
    return torch.from_numpy(array)


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
    """State indices [B] int64 in 0..2**32-1 on ``device``; 0..B-1 for None."""
    if indices is None:
        return torch.arange(count, device=device)
    given = real_tensor("state_indices", indices)
    if given.shape != (count,):
        raise UsageError(f"state_indices has shape {list(given.shape)}, expected [{count}]: "
                         "one index a state")
    tensor = given.to(device, torch.int64)
    whole = not given.is_floating_point() or bool((given == given.trunc()).all())  # NaN equals nothing
    if not whole or bool(((given < 0) | (given >= WORD)).any()):
        raise UsageError("state_indices must be whole numbers in 0..2**32-1")
    return tensor
