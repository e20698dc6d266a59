"""Which device a kernel is launched on, and whether Triton's kernels run there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch

from swg_fast.common.errors import UsageError

KEPT_COUNTS, MOST_KEPT = 64, 4096  # tensors that `counted` keeps, and entries of each at most
_counts: dict[tuple[torch.device, int], torch.Tensor] = {}


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


def _captured(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def refuse_capture(device: torch.device) -> None:
    """`UsageError` while the current stream is captured as a caller's CUDA graph."""
    if _captured(device):
        raise UsageError("a CUDA graph is captured around this call, and a search cannot be part of one (it "
                         "replays graphs of its own); sample outside the capture")


def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that a program may have on a GPU, as the device reports them."""
    properties: Any = torch.cuda.get_device_properties(device)  # torch's types lack the field
    return properties.shared_memory_per_block_optin


def host_memory(device: torch.device, count: int, dtype: torch.dtype) -> torch.Tensor:
    """Zeros [count] in the host's memory, which ``device`` copies from and to without the host's help."""
    return torch.zeros(count, dtype=dtype, device="cpu", pin_memory=device.type == "cuda")


def counted(device: torch.device, count: int) -> torch.Tensor:
    """0 .. count - 1, int64 on ``device``. Where they are few it is one tensor for all callers, who do not
    write to it."""
    numbers = _counts.get((device, count))
    if numbers is None:
        with torch.inference_mode(False):  # a caller outside that mode uses it too
            numbers = torch.arange(count, dtype=torch.int64, device=device)
        # Neither what a mode of torch's puts in a tensor's place nor a captured one.
        if count <= MOST_KEPT and type(numbers) is torch.Tensor and not _captured(device):
            settle(device)  # any stream may read it
            if len(_counts) >= KEPT_COUNTS:
                _counts.clear()
            _counts[device, count] = numbers
    return numbers


def stream_of(device: torch.device) -> int:
    """The current stream of ``device``, as a number; 0 on the CPU."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


def settle(device: torch.device) -> None:
    """Waits for what the current stream of ``device`` has been given."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def current(device: torch.device) -> AbstractContextManager[object]:
    """``device`` as the current one: Triton launches there, and graphs are captured there, wherever the
    tensors are."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
