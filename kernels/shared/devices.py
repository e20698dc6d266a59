"""Which device a kernel is launched on, and whether Triton's kernels run there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec

import torch


def multiplies_bf16(device: torch.device) -> bool:
    """Whether it is a GPU of compute capability 8.0 or later."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8


def runs_triton(device: torch.device) -> bool:
    """Whether it is a GPU for which Triton is installed and compiles: compute capability 8.0 or later."""
    return multiplies_bf16(device) and find_spec("triton") is not None


def current(device: torch.device) -> AbstractContextManager[object]:
    """``device`` as the current one: Triton launches there, and graphs are captured there, wherever the
    tensors are."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
