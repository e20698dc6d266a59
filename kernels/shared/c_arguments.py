"""What a C function is handed: tensors of the type, size and layout that it reads, or one clear line."""

from __future__ import annotations

import torch


def address(name: str, tensor: torch.Tensor, dtype: torch.dtype, count: int) -> int:
    """Where C finds ``count`` entries of ``dtype`` one after the other in the CPU's memory.

    Raises `TypeError`, which names the argument, where ``tensor`` has another type, fewer entries, gaps
    between them, or lies elsewhere.
    """
    if tensor.dtype is dtype and tensor.numel() >= count and tensor.is_contiguous() and tensor.is_cpu:
        return tensor.data_ptr()
    gaps = "" if tensor.is_contiguous() else ", with gaps"
    raise TypeError(f"{name}: C was handed {tensor.numel()} entries of {tensor.dtype} on {tensor.device}"
                    f"{gaps}; it takes {count} or more of {dtype} on the CPU, without gaps")
