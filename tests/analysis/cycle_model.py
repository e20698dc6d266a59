"""The cost of a tile's step on sm_90, by a static model of its machine code (`sass_replay`).

A listing shows the loops but not how often they run; that follows from a loop's place. The figures are
predictions, a few percent below an H200's; they compare listings with one another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.analysis.l2_traffic import blocks_back
from tests.analysis.sass_listing import Instruction, backward_branches, instructions
from tests.analysis.sass_replay import FLOP_A_CYCLE, L2_A_CYCLE, Ring, cycles_a_trip, cycles_once

ROWS_A_PASS = 32  # rows of a pass in `kernels.fused.portable.stages`
COLUMNS_A_PASS = 64  # columns of its thin products
MOST_PRODUCTS = 3.5  # of a loop over chunks; a backward loop has 3
ROWS = 128  # rows that a program computes together, in the modelled entries


@dataclass
class Loop:
    """Instructions first .. last of a listing, and its inner loops."""

    first: int
    last: int
    inner: list[Loop] = field(default_factory=list)
    trips: int = 1
    what: str = ""

    def own(self, listing: list[Instruction]) -> list[Instruction]:
        """The instructions outside inner loops, without branches."""
        taken = {i for loop in self.inner for i in range(loop.first, loop.last + 1)}
        return [listing[i] for i in range(self.first, self.last + 1)
                if i not in taken and listing[i].kind != "BRA"]


@dataclass(frozen=True)
class Shape:
    """Sizes that determine the trips; ``chunk`` columns at a time, ``head`` the early head's width or 0."""

    hidden: int
    blocks: int
    latent: int
    head: int
    chunk: int
    slots: int  # of the Gluon kernel's ring; 0 for the portable kernel
    guided: bool = True

    @property
    def depth(self) -> int:
        """Blocks before the weight's head, which a cotangent passes."""
        return blocks_back(self.blocks, self.head)

    @property
    def products(self) -> int:
        """Products of [.., hidden] with [hidden, chunk] in a step."""
        chunks = 4 * self.hidden // self.chunk
        back = 3 * self.depth if self.guided else 0
        return chunks * (2 * self.blocks + back) + (2 if self.guided else 1) * self.head // self.chunk


def nest(listing: list[Instruction]) -> Loop:
    """The listing as one loop with its inner loops; a loop that only polls an mbarrier does not count."""
    root = Loop(0, len(listing) - 1)
    path = [root]
    for first, last in sorted(backward_branches(listing), key=lambda loop: (loop[0], -loop[1])):
        body = listing[first : last + 1]
        if len(body) < 8 and any(one.kind == "SYNCS" for one in body):
            continue
        while not path[-1].first <= first <= last <= path[-1].last:
            path.pop()
        path[-1].inner.append(loop := Loop(first, last))
        path.append(loop)
    return root


def step_of(listing: list[Instruction]) -> Loop:
    """The loop over a trajectory's steps: the outermost that contains several loops over matrix products (the
    first warp group's, if each has its own code), or just one over blocks with one over chunks inside."""
    loop = nest(listing)
    while True:
        with_products = [one for one in loop.inner if _count(listing, one, "HGMMA")]
        if not with_products:
            raise ValueError("the listing has no loop over matrix products inside a loop over steps")
        chunks = [one for one in with_products[0].inner if _count(listing, one, "HGMMA")]
        deepest = not any(_count(listing, one, "HGMMA") for loop in chunks for one in loop.inner)
        blocks_alone = len(with_products) == 1 and bool(chunks) and deepest
        if blocks_alone or len(with_products) > 1 and _count(listing, loop, "USETMAXREG") == 0:
            return loop
        loop = with_products[0]


def _count(listing: list[Instruction], loop: Loop, kind: str) -> int:
    return sum(one.kind == kind for one in listing[loop.first : loop.last + 1])


def name_loops(listing: list[Instruction], step: Loop, shape: Shape) -> None:
    """Sets the trips and the name of each loop in a step."""
    chunks = 4 * shape.hidden // shape.chunk
    passes = [shape.depth, *[shape.depth] * shape.guided, max(shape.blocks - shape.depth, 1)]
    chunked = [loop for loop in step.inner if _is_chunked(listing, loop, shape)]
    for loop in step.inner:
        inner = [one for one in loop.inner if _is_chunked(listing, one, shape)]
        # The blocks: forwards, back and, with the early head, the remaining ones forwards. At a small hidden
        # size the compiler may have unrolled the chunks.
        if inner or _products(listing, loop, shape) > MOST_PRODUCTS:
            loop.trips, loop.what = passes.pop(0), "blocks"
            for one in loop.inner:
                _name_part(listing, one, chunks, shape)
        elif loop in chunked:
            _name_part(listing, loop, chunks, shape)
            if shape.head and loop is chunked[0]:
                loop.trips, loop.what = shape.head // shape.chunk, "head"
        elif _count(listing, loop, "HGMMA"):
            loop.trips, loop.what = shape.hidden // COLUMNS_A_PASS, "thin product"
        else:
            loop.trips, loop.what = ROWS // ROWS_A_PASS, "rows"
            for one in loop.inner:
                one.trips, one.what = shape.latent, "entries of z"


def _products(listing: list[Instruction], loop: Loop, shape: Shape) -> float:
    """A trip's matrix work, with inner loops counted once, in products of 64 rows with a chunk."""
    flop = sum(one.flop(4) or 0 for one in listing[loop.first : loop.last + 1] if one.kind == "HGMMA")
    return flop / (2 * 64 * shape.chunk * shape.hidden)


def _is_chunked(listing: list[Instruction], loop: Loop, shape: Shape) -> bool:
    products = _products(listing, loop, shape)
    return not loop.inner and 0 < products <= MOST_PRODUCTS and _count(listing, loop, "MUFU") > 0


def _name_part(listing: list[Instruction], loop: Loop, chunks: int, shape: Shape) -> None:
    if not _is_chunked(listing, loop, shape):
        loop.trips, loop.what = ROWS // ROWS_A_PASS, "rows"
        return
    back = _products(listing, loop, shape) > 2.5
    # In Gluon the forward loop's first product stands before it and its last one after it.
    outside = shape.slots > 0 and not back
    loop.trips, loop.what = chunks - outside, "chunks back" if back else "chunks"


def predict(sass: str, shape: Shape, warps: int, l2_bytes: float) -> dict[str, Any]:
    """Thousand cycles of a step of 128 rows, by part, and the least that single pipes allow.

    ``l2_bytes`` is the number of bytes that a candidate and step move (`tests.analysis.l2_traffic`).
    """
    listing = instructions(sass)
    step = step_of(listing)
    name_loops(listing, step, shape)
    parts: dict[str, float] = {}
    pipes = {"tensor": 0.0, "special": 0.0, "issue": 0.0}

    def visit(loop: Loop, times: int) -> None:
        code = loop.own(listing)
        if loop.inner or loop is step:
            cycles = cycles_once(code, warps)
        else:
            cycles = cycles_a_trip(code, warps, _ring(loop, shape))
        parts[loop.what or "between"] = parts.get(loop.what or "between", 0.0) + cycles * times
        for one in code:
            pipes["issue"] += times * warps / 4
            pipes["special"] += times * warps * 2 * (one.kind == "MUFU")
            if one.kind == "HGMMA":
                pipes["tensor"] += times * one.flop(warps) / FLOP_A_CYCLE
        for inner in loop.inner:
            visit(inner, times * inner.trips)

    visit(step, 1)
    # This catches a loop mistaken for another: all other matrix work is small.
    needed = shape.products * 2 * ROWS * shape.chunk * shape.hidden / FLOP_A_CYCLE * warps / 8
    if not needed <= pipes["tensor"] < 1.05 * needed:
        raise ValueError(f"the loops found in the listing multiply for {pipes['tensor']:.0f} cycles a step, "
                         f"the network for {needed:.0f}")
    pipes["l2"] = l2_bytes * ROWS / L2_A_CYCLE
    return {"total": round(sum(parts.values()) / 1000, 1),
            "parts": {name: round(cycles / 1000, 1) for name, cycles in parts.items()},
            "at_least": {name: round(cycles / 1000, 1) for name, cycles in pipes.items()}}


def _ring(loop: Loop, shape: Shape) -> Ring | None:
    if not shape.slots or loop.what not in ("chunks", "chunks back", "head"):
        return None
    order = {"chunks": (0, 1), "chunks back": (1, 0), "head": (0,)}[loop.what]
    return Ring(shape.slots, 2 * shape.chunk * shape.hidden, order)
