"""Dropout's masks on a GPU: the function of `swg_fast.training.dropout`, in one launch for many steps."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from swg_fast.kernels.shared.devices import current
from swg_fast.kernels.shared.philox import philox

ROWS = 16  # rows a program
MASK = 0xFFFFFFFF


@triton.jit(do_not_specialize=["first", "k0", "k1"])
def keep_kernel(out, first, k0, k1, rows, columns, threshold, LANES: tl.constexpr, COUNTERS: tl.constexpr,
                BM: tl.constexpr):
    """A tile of rows of one step and block: every counter's eight 16-bit halves decide eight entries."""
    tile, block, step = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row = tile * BM + tl.arange(0, BM)[:, None]
    counter = tl.arange(0, COUNTERS)[None, :]
    zero = (row ^ row).to(tl.uint32) | (counter ^ counter).to(tl.uint32)
    words = philox(row.to(tl.uint32) + zero, counter.to(tl.uint32) + zero,
                   (first + step).to(tl.uint32) + zero, block.to(tl.uint32) + zero,
                   k0.to(tl.uint32), k1.to(tl.uint32))
    column = counter // LANES * (8 * LANES) + counter % LANES
    line = (step * tl.num_programs(1) + block).to(tl.int64) * rows + row
    for half in tl.static_range(8):
        word = words[half // 2]
        kept = ((word >> 16) if half % 2 else (word & 0xFFFF)) >= threshold
        here = column + half * LANES
        tl.store(out + line * columns + here, kept.to(tl.uint8), mask=(row < rows) & (here < columns))


def keep_masks(seed: int, first: int, steps: int, blocks: int, rows: int, columns: int, rate: float,
               lanes: int, device: torch.device) -> torch.Tensor:
    """Which entries are kept, [steps, blocks, rows, columns] (bool). ``lanes`` neighbouring columns use the
    same half of their counters' words."""
    out = torch.empty(steps, blocks, rows, columns, dtype=torch.uint8, device=device)
    counters = triton.next_power_of_2(lanes * -(-columns // (8 * lanes)))
    with current(device):
        keep_kernel[-(-rows // ROWS), blocks, steps](
            out, first, seed & MASK, seed >> 32 & MASK, rows, columns, round(65536 * rate), LANES=lanes,
            COUNTERS=counters, BM=ROWS, num_warps=4)
    return out.view(torch.bool)
