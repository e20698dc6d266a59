"""Dropout as a pure function of (seed, step, block, row, column), in plain PyTorch.

`dropout.h` and, on CUDA, `dropout_masks.py` of kernels/training compute the same; so a resumed run, a
captured graph and any number of threads drop the same entries.
"""

from __future__ import annotations

import torch
from torch import nn

from swg_fast.kernels.shared.devices import runs_triton
from swg_fast.reference.philox import words

LANES = 16  # neighbouring columns that share the place of a 16-bit half in their counters' words
GROUP = 8 * LANES  # columns that one row of counters serves


def keep_masks(seed: int, first: int, steps: int, blocks: int, rows: int, columns: int, rate: float,
               device: torch.device) -> torch.Tensor:
    """Which entries of a block's input are kept, [steps, blocks, rows, columns] (bool), for steps ``first``
    and on: those whose 16-bit half is at least 65536 ``rate``."""
    if runs_triton(device):  # 200 launches of integer operators take longer
        from swg_fast.kernels.training import dropout_masks

        return dropout_masks.keep_masks(seed, first, steps, blocks, rows, columns, rate, LANES, device)

    def axis(length: int, place: int) -> torch.Tensor:
        return torch.arange(length, device=device).view([-1 if i == place else 1 for i in range(4)])

    groups = -(-columns // GROUP)
    four = words(seed, axis(rows, 2), axis(LANES * groups, 3), first + axis(steps, 0), axis(blocks, 1))
    halves = torch.stack([half for word in four for half in (word & 0xFFFF, word >> 16)], dim=-1)
    halves = halves.unflatten(3, (groups, LANES)).transpose(-1, -2).flatten(3)
    return halves[..., :columns] >= round(65536 * rate)


class GivenDropout(nn.Module):
    """Dropout whose mask, ``keep`` [M, H], is set before each pass in training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.keep: torch.Tensor | None = None

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return h
        assert self.keep is not None
        return h * (self.keep.to(h.dtype) / (1 - self.rate))
