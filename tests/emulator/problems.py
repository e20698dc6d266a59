"""Inputs of the compiled kernels in the tests."""

from __future__ import annotations

import torch

# Seeds for the order in which warps run, and when asynchronous operations take effect.
SCHEDULES = ((0, "late"), (1, "random"))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same_bits(outputs: list[tuple[torch.Tensor | bool | None, ...]]) -> bool:
    """Whether all runs gave the same bits, NaN equal to NaN."""
    return all(
        torch.equal(a.nan_to_num(nan=7e7), b.nan_to_num(nan=7e7)) if torch.is_tensor(a) else a == b
        for other in outputs[1:]
        for a, b in zip(outputs[0], other, strict=True)
    )
