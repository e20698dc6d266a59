"""Instructions of a whole warp: branches, barriers, shuffles, matrix products."""

from __future__ import annotations

import re
from collections.abc import Callable

from emulator.reader import Reader

REDUCTIONS = {
    ("add", "s32"): 0,
    ("add", "u32"): 0,
    ("min", "s32"): 1,
    ("max", "s32"): 2,
    ("min", "u32"): 3,
    ("max", "u32"): 4,
    ("and", "b32"): 5,
    ("or", "b32"): 6,
    ("xor", "b32"): 7,
}
OPERANDS = {"bf16": 0, "tf32": 1, "f16": 2}


class Warps(Reader):
    def _unconditional(self) -> None:
        if self.predicate[0] >= 0:
            self.refuse()

    def i_bra(self, m: list[str], o: list[str]) -> None:
        self.put("bra")
        row = self.program.code[-1]
        self.jump(lambda target: row.__setitem__(4, target), o[0])

    def i_brx(self, m: list[str], o: list[str]) -> None:
        targets, pool = self.tables[o[1]], self.program.pool
        at = self.pooled([0] * len(targets))
        for i, label in enumerate(targets):
            self.jump(lambda target, i=at + i: pool.__setitem__(i, target), label)
        self.put("brx", self.src(o[0], 4), 0, at, 0, len(targets))

    def i_ret(self, m: list[str], o: list[str]) -> None:
        self.put("ret")

    i_exit = i_ret

    def i_trap(self, m: list[str], o: list[str]) -> None:
        self.put("trap")

    def i_setmaxnreg(self, m: list[str], o: list[str]) -> None:
        self.put("setmaxnreg")

    def i_bar(self, m: list[str], o: list[str]) -> None:
        if m == ["warp", "sync"]:
            return self.put("bar_warp")
        if m[-1] not in ("sync", "arrive"):
            self.refuse()
        self._unconditional()
        self.put(f"bar_{m[-1]}", self.src(o[0], 4), self.src(o[1], 4) if len(o) > 1 else -1)

    def i_barrier(self, m: list[str], o: list[str]) -> None:
        self.i_bar([x for x in m if x not in ("cta", "aligned")], o)

    def i_shfl(self, m: list[str], o: list[str]) -> None:
        if m[0] != "sync" or m[2] != "b32" or o[4] not in ("-1", "0xffffffff", "0xFFFFFFFF"):
            self.refuse()
        to, _, inside = o[0].partition("|")
        self.put(
            f"shfl_{m[1]}",
            self.dst(to, 4),
            *(self.src(x, 4) for x in o[1:4]),
            self.dst(inside, 4) if inside else -1,
            dests=1,
        )

    def i_redux(self, m: list[str], o: list[str]) -> None:
        self._unconditional()
        self.put("redux", self.dst(o[0], 4), self.src(o[1], 4), 0, REDUCTIONS[m[1], m[2]], dests=1)

    def i_vote(self, m: list[str], o: list[str]) -> None:
        if m[0] != "sync" or o[1].startswith("!"):
            self.refuse()
        self.put(f"vote_{m[1]}", self.dst(o[0], 4), self.src(o[1], 4), dests=1)

    def i_elect(self, m: list[str], o: list[str]) -> None:
        to, _, chosen = o[0].partition("|")
        self.put("elect", -1 if to == "_" else self.dst(to, 4), self.dst(chosen, 4))

    # ---- matrices -----------------------------------------------------------------------------
    def _matrices(
        self, op: str, m: list[str], address: str, registers: str, slot: Callable[[str, int], int]
    ) -> None:
        if "m8n8" not in m or m[-1] != "b16":
            self.refuse()
        self._unconditional()
        base, shift = self.address(address)
        count = int(next(x for x in m if re.match(r"x[124]$", x))[1:])
        at = self.pooled([slot(r, 4) for r in self.group(registers)])
        self.put(op, self.src(base, 4), shift, at, 0, count, int("trans" in m))

    def i_ldmatrix(self, m: list[str], o: list[str]) -> None:
        self._matrices("ldmatrix", m, o[1], o[0], self.dst)

    def i_stmatrix(self, m: list[str], o: list[str]) -> None:
        self._matrices("stmatrix", m, o[0], o[1], self.src)

    def i_mma(self, m: list[str], o: list[str]) -> None:
        self._unconditional()
        shape, types = m[2], m[5:]
        depth, kind = int(shape.split("k")[1]), types[1]
        fits = depth in ((4, 8) if kind == "tf32" else (8, 16)) and kind in OPERANDS
        if (
            m[:2] != ["sync", "aligned"]
            or not shape.startswith("m16n8k")
            or m[3:5] != ["row", "col"]
            or types[0] != "f32"
            or types[3] != "f32"
            or not fits
        ):
            self.refuse()

        def padded(text: str, count: int, slot: Callable[[str, int], int]) -> list[int]:
            slots = [slot(r, 4) for r in self.group(text)]
            return slots + [0] * (count - len(slots))

        entry = [
            *padded(o[0], 4, self.dst),
            *padded(o[1], 4, self.src),
            *padded(o[2], 2, self.src),
            *padded(o[3], 4, self.src),
            depth,
        ]
        self.put(f"mma_{kind}", 0, 0, self.pooled(entry))

    def i_wgmma(self, m: list[str], o: list[str]) -> None:
        self._unconditional()
        if m[0] == "fence":
            return self.put("wg_fence")
        if m[0] == "commit_group":
            return self.put("wg_commit")
        if m[0] == "wait_group":
            return self.put("wg_wait", int(o[0]))
        if m[0] != "mma_async" or m[4] != "f32" or m[5] != m[6]:
            self.refuse()
        shape, kind = re.match(r"m64n(\d+)k(\d+)$", m[3]), OPERANDS[m[5]]
        columns, in_registers = int(shape[1]), o[1].startswith("{")
        if int(shape[2]) != (8 if kind == 1 else 16):
            self.refuse()
        to = [self.dst(r, 4) for r in self.group(o[0])]
        a = [self.src(r, 4) for r in self.group(o[1])] if in_registers else []
        negated = [int(int(x) < 0) for x in o[4:6]]
        majors = [int(x) for x in o[6:]] if kind != 1 else [0, 0]
        if in_registers and kind != 1:
            majors = [0, *majors]
        if len(to) != columns // 2 or len(majors) != 2 or (kind == 1 and len(o) > 6):
            self.refuse()
        entry = [columns, kind, *majors, *negated, int(in_registers), *(a + [0] * 5)[:5], *to]
        keeps = (self.src(o[3], 4), 0) if o[3].startswith("%") else (-1, int(o[3]))
        self.put(
            "wg_mma", -1 if in_registers else self.src(o[1], 8), self.src(o[2], 8), self.pooled(entry), *keeps
        )
