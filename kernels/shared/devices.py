"""Which device a kernel is launched on, and whether Triton's kernels run there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch

from swg_fast.common.errors import UsageError


def multiplies_bf16(device: torch.device) -> bool:
    """Whether it is a GPU of compute capability 8.0 or later."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8


def is_amd() -> bool:
    """Whether torch was built for ROCm, whose GPUs go by the name of CUDA devices."""
    return torch.version.hip is not None


def runs_triton(device: torch.device) -> bool:
    """Whether it is an NVIDIA GPU for which Triton is installed and compiles: compute capability 8.0 or
    later. The kernels have instructions that AMD's GPUs lack."""
    return multiplies_bf16(device) and not is_amd() and find_spec("triton") is not None


def refuse_capture(device: torch.device) -> None:
    """`UsageError` while the current stream is captured as a caller's CUDA graph."""
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise UsageError("a CUDA graph is captured around this call, and a search cannot be part of one (it "
                         "replays graphs of its own); sample outside the capture")


def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that a program may have on a GPU, as the device reports them."""
    properties: Any = torch.cuda.get_device_properties(device)  # torch's types lack the field
    return properties.shared_memory_per_block_optin


def settle(device: torch.device) -> None:
    """Waits for what the current stream of ``device`` has been given."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def current(device: torch.device) -> AbstractContextManager[object]:
    """``device`` as the current one: Triton launches there, and graphs are captured there, wherever the
    tensors are."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
