"""Replays a loop of sm_90 machine code on a model of a multiprocessor, to time a trip.

The model issues each warp's instructions in order, as their control words allow (stalls, scoreboards), on
four sub-partitions whose pipes have the widths below. It keeps the queues of matrix products, shared memory,
the L2 cache, barriers and asynchronous copies. Its figures rank listings;
docs/kernel-notes.md compares them with an H200.
"""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.analysis.sass_listing import Instruction

# Cycles for which a warp's instruction occupies its pipe, by kind; any other kind uses the ALU.
PIPES = {"special": ("MUFU", "F2F", "F2I", "I2F", "FRND", "POPC", "FLO"), "float": ("FFMA", "FADD", "FMUL"),
         "packed": ("IMAD", "HFMA2", "HADD2", "HMUL2"),
         "memory": ("LDS", "STS", "LDSM", "STSM", "LDG", "STG", "LDGSTS", "SHFL", "LDL", "STL")}
CYCLES = {"special": 8, "float": 1, "packed": 2, "memory": 2, "uniform": 1, "alu": 2}
CONTROL = ("BRA", "BAR", "WARPGROUP", "DEPBAR", "LDGDEPBAR", "NOP", "EXIT", "WARPSYNC", "BSSY", "BSYNC",
           "MEMBAR", "FENCE", "ERRBAR", "CCTL", "SYNCS", "ELECT", "HGMMA", "USETMAXREG")
LATENCY = {"MUFU": 22, "LDS": 30, "LDSM": 33, "STS": 20, "STSM": 20, "SHFL": 24, "R2UR": 12, "S2R": 30}
DEFAULT_LATENCY = 6
FLOP_A_CYCLE, SHARED_A_CYCLE = 4096, 128  # bf16; of a multiprocessor
LEAST_PRODUCT = 19  # cycles of the shortest matrix instruction
L2_A_CYCLE, L2_LATENCY = 24, 300  # a multiprocessor's share of the bytes
PRODUCT_LATENCY, BARRIER = 30, 20


@dataclass(frozen=True)
class Ring:
    """The producer of a loop's weights: the number of slots, a slot's bytes, and the order in which a trip of
    the loop returns its slots."""

    slots: int
    bytes: int
    leaves: Sequence[int]


@dataclass
class _Warp:
    at: int = 0
    trip: int = 0
    scoreboards: list[float] = field(default_factory=lambda: [0.0] * 6)
    products: list[float] = field(default_factory=list)  # end times of committed groups
    issued: int = 0
    copies: list[float] = field(default_factory=list)
    copy: float = 0.0
    waits: int = 0
    left: int = 0


def pipe_of(kind: str) -> str | None:
    """The pipe of an instruction; None for control instructions."""
    if kind in CONTROL:
        return None
    if kind.startswith("U") or kind in ("R2UR", "S2UR"):
        return "uniform"
    return next((name for name, kinds in PIPES.items() if kind in kinds), "alu")


def width(name: str) -> int:
    """Bytes that a thread moves."""
    if name.startswith(("LDSM", "STSM")):
        count = re.search(r"\.([124])$", name)
        return 4 * int(count[1]) if count else 4
    sizes = ((".128", 16), (".64", 8), (".U16", 2), (".U8", 1))
    return next((size for text, size in sizes if text in name), 4)


def l2_bytes(one: Instruction) -> int:
    """Bytes of a warp's access. A load of up to 8 bytes a thread counts as a vector that rows share (a bias),
    any other access as whole lines."""
    size = width(one.name)
    return 32 if one.kind == "LDG" and size <= 8 else 32 * size


def product_cycles(one: Instruction) -> tuple[float, float]:
    """(cycles of the tensor cores, cycles of shared memory) of a warp group's matrix instruction."""
    m, n, k = map(int, re.search(r"(\d+)x(\d+)x(\d+)", one.name).groups())
    from_memory = bool(re.match(r"R\d+, gdesc", one.operands))
    shared = (n * k + m * k * from_memory) * 2 / SHARED_A_CYCLE
    return max(2 * m * n * k / FLOP_A_CYCLE, LEAST_PRODUCT), shared


class _Replay:
    def __init__(self, code: Sequence[Instruction], warps: int, trips: int, ring: Ring | None) -> None:
        self.code, self.count, self.trips, self.ring = code, warps, trips, ring
        self.warps = [_Warp() for _ in range(warps)]
        self.issue, self.pipes = [0.0] * 4, defaultdict(float)
        self.tensor = self.shared = self.l2 = 0.0
        self.groups: dict[tuple[int, int], list[float]] = defaultdict(list)  # times of products' issues
        self.barriers: dict[tuple[str, int], list[tuple[int, float]]] = defaultdict(list)
        self.filled: list[float] = []
        self.given_back: dict[int, list[float]] = defaultdict(list)
        self.heap = [(0.0, w) for w in range(warps)]
        self.parked: list[tuple[float, int]] = []

    def run(self) -> float:
        """Cycles until the last warp finishes."""
        end, done = 0.0, 0
        while self.heap:
            now, w = heapq.heappop(self.heap)
            warp = self.warps[w]
            one = self.code[warp.at]
            ready = self._ready(one, w, now)
            if ready is None:  # it waits for a slot that is not returned yet
                self.parked.append((now, w))
                continue
            if ready > now + 1e-9:
                heapq.heappush(self.heap, (ready, w))
                continue
            following = self._issue(one, w, now)
            warp.at += 1
            if warp.at == len(self.code):
                warp.at, warp.trip = 0, warp.trip + 1
                if warp.trip == self.trips:
                    end, done = max(end, following), done + 1
                    continue
            if one.kind == "BAR" and "SYNC" in one.name:
                self._meet(one, w, following)
            else:
                heapq.heappush(self.heap, (following, w))
        if done < self.count:
            raise RuntimeError("warps wait for one another for ever: the listing is not a loop's body")
        return end

    def _ready(self, one: Instruction, w: int, now: float) -> float | None:
        """The earliest known time at which an instruction can issue."""
        warp = self.warps[w]
        times = [now, self.issue[w % 4]]
        times += [end for bit, end in enumerate(warp.scoreboards) if one.waits >> bit & 1]
        pipe = pipe_of(one.kind)
        if pipe:
            times.append(self.pipes[pipe, w % 4])
        pending = re.search(r",\s*0x([0-9a-f]+)", one.operands)
        if one.name.startswith("WARPGROUP.DEPBAR"):
            times += warp.products[: len(warp.products) - int(pending[1], 16)][-1:]
        elif one.kind == "DEPBAR" and pending:
            times += warp.copies[: len(warp.copies) - int(pending[1], 16)]
        elif self.ring and one.kind == "SYNCS" and "TRYWAIT" in one.name:
            slot = self._slot(warp.trip * len(self.ring.leaves) + warp.waits % len(self.ring.leaves))
            if slot is None:
                return None
            times.append(slot)
        return max(times)

    def _slot(self, number: int) -> float | None:
        """The time at which the ring's slot arrives."""
        while len(self.filled) <= number:
            before = len(self.filled) - self.ring.slots
            free = 0.0
            if before >= 0:
                if len(self.given_back[before]) < self.count:
                    return None
                free = max(self.given_back[before])
            start = max(self.l2, free + L2_LATENCY)
            self.l2 = start + self.ring.bytes / L2_A_CYCLE
            self.shared += self.ring.bytes / SHARED_A_CYCLE
            self.filled.append(self.l2)
        return self.filled[number]

    def _issue(self, one: Instruction, w: int, now: float) -> float:
        """Occupies an instruction's resources; returns the earliest time of the warp's next one."""
        warp, kind = self.warps[w], one.kind
        self.issue[w % 4] = now + 1
        pipe = pipe_of(kind)
        if pipe:
            self.pipes[pipe, w % 4] = now + CYCLES[pipe]
        end = now + LATENCY.get(kind, DEFAULT_LATENCY)
        if kind == "HGMMA":
            self._product(one, w, now)
        elif kind in ("LDS", "STS", "LDSM", "STSM"):
            self.shared = max(self.shared, now) + 32 * width(one.name) / SHARED_A_CYCLE
            end = max(end, self.shared + LATENCY[kind])
        elif kind == "SHFL":
            self.shared = max(self.shared, now) + 1
            end = max(end, self.shared + LATENCY[kind])
        elif kind in ("LDG", "LDGSTS", "STG"):
            self.l2 = max(self.l2, now) + l2_bytes(one) / L2_A_CYCLE
            end = self.l2 + L2_LATENCY if kind != "STG" else now + BARRIER
            if kind == "LDGSTS":
                self.shared += l2_bytes(one) / SHARED_A_CYCLE
                warp.copy = max(warp.copy, end)
        elif kind == "LDGDEPBAR":
            warp.copies.append(warp.copy)
        elif kind == "SYNCS" and self.ring:
            self._ring_step(one, w, now)
        if one.write_barrier < 6:
            warp.scoreboards[one.write_barrier] = max(warp.scoreboards[one.write_barrier], end)
        if one.read_barrier < 6:
            warp.scoreboards[one.read_barrier] = max(warp.scoreboards[one.read_barrier], now + 12)
        return now + max(1, one.stall)

    def _product(self, one: Instruction, w: int, now: float) -> None:
        warp = self.warps[w]
        times = self.groups[w // 4, warp.issued]
        warp.issued += 1
        times.append(now)
        if len(times) == 4:  # a warp group's instruction begins once its four warps have issued it
            tensor, shared = product_cycles(one)
            self.tensor = max(self.tensor, now) + tensor
            self.shared = max(self.shared, now) + shared
            if "gsb0" in one.operands:
                end = max(self.tensor, self.shared) + PRODUCT_LATENCY
                for other in self.warps[w // 4 * 4 : w // 4 * 4 + 4]:
                    other.products.append(end)

    def _ring_step(self, one: Instruction, w: int, now: float) -> None:
        warp, order = self.warps[w], self.ring.leaves
        if "TRYWAIT" in one.name:
            warp.waits += 1
        elif "ARRIVE" in one.name:
            self.given_back[warp.trip * len(order) + order[warp.left % len(order)]].append(now)
            warp.left += 1
            for _, other in self.parked:
                heapq.heappush(self.heap, (now, other))
            self.parked = []

    def _meet(self, one: Instruction, w: int, now: float) -> None:
        """A barrier of all warps or, if it names that many threads, of the warp group."""
        threads = re.search(r",\s*0x([0-9a-f]+)", one.operands)
        count = min(int(threads[1], 16) // 32, self.count) if threads else self.count
        key = (one.operands.split(",")[0], w // count)
        self.barriers[key].append((w, now))
        if len(self.barriers[key]) == count:
            go = max(time for _, time in self.barriers[key]) + BARRIER
            for other, _ in self.barriers.pop(key):
                heapq.heappush(self.heap, (go, other))


def cycles_once(code: Sequence[Instruction], warps: int) -> float:
    """Cycles of straight code."""
    return _Replay(code, warps, 1, None).run() if code else 0.0


def cycles_a_trip(code: Sequence[Instruction], warps: int, ring: Ring | None = None) -> float:
    """Cycles of a loop's trip in the steady state."""
    few, many = (_Replay(code, warps, trips, ring).run() for trips in (4, 12))
    return (many - few) / 8
