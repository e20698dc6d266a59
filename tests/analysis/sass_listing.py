"""Reads a compiled kernel's machine code: the work of its innermost loops over matrix products."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

# The matrix product instructions of each generation.
MATRIX_INSTRUCTIONS = ("HGMMA", "HMMA", "UTCHMMA", "UTCQMMA", "QGMMA")
LINE = re.compile(
    r"/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+)?\s*([A-Z][A-Za-z0-9_.]*)([^;]*);"
    r"(?:\s*/\* 0x[0-9a-f]{16} \*/\s+/\* 0x([0-9a-f]{16}) \*/)?"
)


@dataclass(frozen=True)
class Instruction:
    address: int
    name: str  # with its modifiers: HGMMA.64x32x16.F32.BF16
    operands: str
    predicate: str = ""
    control: int = 0  # the upper half of its code, which holds its waits

    @property
    def stall(self) -> int:
        """Cycles before the warp's next instruction."""
        return self.control >> 41 & 15

    @property
    def write_barrier(self) -> int:
        """The scoreboard that its result releases; 7 for none."""
        return self.control >> 46 & 7 if self.control else 7

    @property
    def read_barrier(self) -> int:
        """The scoreboard that reading its operands releases; 7 for none."""
        return self.control >> 49 & 7 if self.control else 7

    @property
    def waits(self) -> int:
        """The scoreboards that it waits for, one bit each."""
        return self.control >> 52 & 63

    @property
    def kind(self) -> str:
        return self.name.split(".")[0]

    def flop(self, warps: int) -> int | None:
        """Operations over all ``warps`` that run it; None if a descriptor hides them (on sm_100)."""
        if self.kind == "HGMMA":
            m, n, k = map(int, re.search(r"(\d+)x(\d+)x(\d+)", self.name).groups())
            return 2 * m * n * k * warps // 4
        shape = re.search(r"HMMA\.(1688|16816)", self.name)
        return 2 * 16 * 8 * int(shape[1][3:]) * warps if shape else None


def instructions(sass: str) -> list[Instruction]:
    """The instructions of a listing by `cuobjdump -sass`."""
    return [
        Instruction(int(address, 16), name, operands.strip(), predicate, int(control or "0", 16))
        for address, predicate, name, operands, control in LINE.findall(sass)
    ]


def backward_branches(listing: list[Instruction]) -> set[tuple[int, int]]:
    """(first, last) of each loop: the instructions from a branch's earlier target to the branch. An
    unconditional branch back over the program's end is no loop: it returns from code moved behind the end."""
    position = {one.address: index for index, one in enumerate(listing)}
    ends = [index for index, one in enumerate(listing) if one.kind == "EXIT" and not one.predicate]
    found = set()
    for index, one in enumerate(listing):
        target = re.search(r"0x([0-9a-f]+)$", one.operands) if one.kind == "BRA" else None
        first = position.get(int(target[1], 16), index) if target else index
        conditional = bool(one.predicate) or "UP" in one.operands
        if first < index and (conditional or not any(first < end < index for end in ends)):
            found.add((first, index))
    return found


def innermost_loops(listing: list[Instruction]) -> list[list[Instruction]]:
    """The loops between a backward branch and its target that contain no other loop."""
    loops = backward_branches(listing)
    inner = [a for a in loops if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    return [listing[first : last + 1] for first, last in sorted(inner)]


def matrix_loops(sass: str, tile: int, chunk: int, hidden: int, warps: int) -> list[dict[str, Any]]:
    """For each innermost loop that multiplies matrices, a trip's instructions by kind.

    ``products``: its multiply-adds in products of [tile, hidden] with [hidden, chunk]. A forward loop needs 2
    and a backward loop 3; more means that warps repeat each other's work. ``special_per_element``:
    special-function instructions a thread runs for an entry of the wide layer. Both are None for a loop over
    anything but chunks, and ``products`` also where the code does not show sizes.
    """
    found = []
    for loop in innermost_loops(instructions(sass)):
        kinds = Counter(one.kind for one in loop)
        matrix = {kind: kinds[kind] for kind in MATRIX_INSTRUCTIONS if kinds[kind]}
        if not matrix:
            continue
        flop = [one.flop(warps) for one in loop if one.kind in matrix]
        special = kinds["MUFU"] * 32 * warps / (tile * chunk)
        known = special and None not in flop
        found.append(
            {
                "instructions": len(loop),
                "matrix_instructions": matrix,
                "products": round(sum(flop) / (2 * tile * chunk * hidden), 3) if known else None,
                "waits_for_products": sum(one.name.startswith("WARPGROUP.DEPBAR") for one in loop),
                "waits_for_copies": sum(one.name.startswith(("DEPBAR", "SYNCS")) for one in loop),
                "barriers": kinds["BAR"],
                "special_per_element": round(special, 3) or None,
                "stack_accesses": kinds["LDL"] + kinds["STL"],
            }
        )
    return found
