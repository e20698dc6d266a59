"""Special arguments of a run, and its results."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import torch

KINDS = {
    1: "read after an unordered write",
    2: "write after an unordered write",
    3: "write after an unordered read",
    4: "unordered writes of the same value",
    5: "read of what an asynchronous operation still writes",
    6: "write to what an asynchronous operation still writes or reads",
    7: "read by the asynchronous proxy without fence.proxy.async",
    8: "read of shared memory that nobody wrote",
    9: "write to what another block wrote or read",
    10: "read of what another block wrote",
    11: "global memory that one warp wrote and another read",
    12: "global memory that one warp read and another wrote",
}
EXCHANGE, REUSE = 11, 12  # reported at detect=2, not faults: barriers order them through global memory
BENIGN = (4, 8, EXCHANGE, REUSE)
SWIZZLES = {0: 0, 128: 1, 64: 2, 32: 3}


class MachineError(Exception):
    """An action of the kernel that no GPU allows: out of bounds, deadlock, divergence under a barrier."""


@dataclass(frozen=True)
class TensorMap:
    """Replaces a TMA descriptor: a tensor, a copy's box (slowest dimension first), the swizzle in bytes."""

    tensor: torch.Tensor
    box: tuple[int, ...]
    swizzle: int = 0

    def packed(self) -> bytes:
        t, size = self.tensor, self.tensor.element_size()

        def fastest_first(values: Any) -> list[int]:
            return list(values)[::-1] + [0] * (5 - len(self.box))

        return struct.pack(
            "QII5Q5Q5II",
            t.data_ptr(),
            len(self.box),
            size,
            *fastest_first(t.shape),
            *fastest_first(s * size for s in t.stride()),
            *fastest_first(self.box),
            SWIZZLES[self.swizzle],
        )


@dataclass(frozen=True)
class Race:
    """Two unordered accesses to the same memory, ``count`` times, with the place and the warp of each."""

    kind: int
    space: str
    count: int
    first: str
    second: str
    warps: tuple[int, int]

    @property
    def benign(self) -> bool:
        return self.kind in BENIGN

    def __str__(self) -> str:
        between = f"warps {self.warps[0]} and {self.warps[1]}"
        return (
            f"{KINDS[self.kind]} ({self.space}, {self.count} words, {between})\n"
            f"    first:  {self.first}\n    second: {self.second}"
        )


@dataclass(frozen=True)
class Result:
    """A run's findings beside its outputs: races, instructions run by all warps, and by operation.

    ``traffic`` has the bytes that loads, stores and copies moved of each tensor, by its address: sectors of
    32 bytes, each once an instruction of a warp.
    """

    reports: list[Race]
    instructions: int
    operations: dict[str, int]
    traffic: dict[int, int]

    @property
    def races(self) -> list[Race]:
        return [report for report in self.reports if not report.benign]
