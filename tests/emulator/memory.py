"""Instructions that access memory: loads, stores, asynchronous copies, TMA, mbarriers."""

from __future__ import annotations

import re

from emulator.program import SIZES
from emulator.reader import Reader

HINTS = {
    "L1::evict_last",
    "L1::evict_first",
    "L1::no_allocate",
    "L1::evict_normal",
    "L2::cache_hint",
    "L2::evict_last",
    "L2::evict_first",
    "ca",
    "cg",
    "cs",
    "nc",
    "wb",
    "wt",
    "weak",
    "relaxed",
    "gpu",
    "cta",
}
CP_ASYNC = {
    "async.cg.shared.global",
    "async.ca.shared.global",
    "async.cg.shared.global.L2::cache_hint",
    "async.cg.shared.global.L2::128B",
    "async.ca.shared.global.L2::128B",
}
BULK = re.compile(
    r"async\.bulk\.tensor\.(\d)d\.(shared::(?:cta|cluster)\.global\.mbarrier::complete_tx::bytes"
    r"|global\.shared::cta\.bulk_group)$"
)
# How the machine widens a loaded value, unless its number of bytes decides it.
SIGNED = {"s8": 33, "s16": 34}
INTO_64_BITS = 12


class Memory(Reader):
    def _access(self, m: list[str], o: list[str], load: bool) -> None:
        space = next(
            (x for x in m if x.split("::")[0] in ("global", "shared", "param", "const", "local")), ""
        )
        kind, count = m[-1], next((int(x[1:]) for x in m if x in ("v2", "v4", "v8")), 1)
        place, width = space.split("::")[0], SIZES[kind]
        if place not in ("global", "shared", "param") or set(m) - HINTS - {"v2", "v4", "v8", space, kind}:
            self.refuse()
        if place == "param":
            name, shift = self.address(o[1])
            offset = next(p[2] for p in self.program.parameters if p[0] == name)
            return self.put(
                "ldp", self.dst(o[0], width), offset + shift, width, dests=1, wide=int(width == 8)
            )
        if len(o) != 2 + ("L2::cache_hint" in m):
            self.refuse()
        memory, registers = (o[1], self.group(o[0])) if load else (o[0], self.group(o[1]))
        if len(registers) != count:
            self.refuse()
        base, shift = self.address(memory)
        entry = [width, count] + [0] * 16
        for i, register in enumerate(registers):
            entry[2 + i] = self._loaded(register, kind, entry, 10 + i) if load else self.src(register, width)
        op = ("ld" if load else "st") + place[0]
        self.put(op, self.src(base, 4 if place == "shared" else 8), shift, self.pooled(entry))

    def _loaded(self, register: str, kind: str, entry: list[int], at: int) -> int:
        width = SIZES[kind]
        wide = SIZES[self.kind(register)] == 8 if register != "_" else width == 8
        if wide and width == 4 and kind != "s32":
            entry[at] = INTO_64_BITS
        elif wide == (width == 8):
            entry[at] = SIGNED.get(kind, width)
        else:
            self.refuse()
        return -1 if register == "_" else self.register(register)

    def i_ld(self, m: list[str], o: list[str]) -> None:
        self._access(m, o, True)

    def i_st(self, m: list[str], o: list[str]) -> None:
        self._access(m, o, False)

    def i_cp(self, m: list[str], o: list[str]) -> None:
        name = ".".join(m)
        if name.startswith("async.bulk"):
            self._bulk(name, o)
        elif name in CP_ASYNC:
            (to, to_shift), (of, of_shift) = self.address(o[0]), self.address(o[1])
            given = self.src(o[3], 4) if len(o) > 3 and "hint" not in name else -1
            self.put("cpa", self.src(to, 4), self.src(of, 8), int(o[2], 0), given, to_shift, of_shift)
        elif name in ("async.commit_group", "async.wait_all"):
            self.put("cpa_commit" if name == "async.commit_group" else "cpa_wait_all")
        elif name == "async.wait_group":
            self.put("cpa_wait", int(o[0], 0))
        else:
            self.refuse()

    def _bulk(self, name: str, o: list[str]) -> None:
        if name == "async.bulk.commit_group":
            return self.put("bulk_commit")
        if name in ("async.bulk.wait_group", "async.bulk.wait_group.read"):
            return self.put("bulk_wait_read" if name.endswith("read") else "bulk_wait", int(o[0], 0))
        m = BULK.match(name) or self.refuse()
        load = m[2].startswith("shared")
        tensor, other = (o[1], o[0]) if load else (o[0], o[1])
        t = re.match(r"\[\s*([%\w]+)\s*,\s*\{([^}]*)\}\s*\]$", tensor)
        coordinates = t[2].split(",")
        shared, shift = self.address(other)
        mbarrier, more = self.address(o[2]) if load else ("", 0)
        if shift or more or len(coordinates) != int(m[1]) or len(o) != 2 + load:
            self.refuse()
        at = self.pooled([len(coordinates)] + [self.src(x, 4) for x in coordinates])
        self.put(
            "bulk_load" if load else "bulk_store",
            self.src(shared, 4),
            self.src(t[1], 8),
            at,
            self.src(mbarrier, 4) if load else 0,
        )

    def i_mbarrier(self, m: list[str], o: list[str]) -> None:
        name = ".".join(m).replace("shared::cta", "shared")
        if name == "init.shared.b64":
            address, shift = self.address(o[0])
            self.put("mb_init", self.src(address, 4), self.src(o[1], 4), 0, 0, shift)
        elif name == "inval.shared.b64":
            address, shift = self.address(o[0])
            self.put("mb_inval", self.src(address, 4), 0, 0, 0, shift)
        elif name == "arrive.shared.b64" and o[0] == "_":
            address, shift = self.address(o[1])
            self.put("mb_arrive", self.src(address, 4), self.src(o[2], 4) if len(o) > 2 else -1, 0, 0, shift)
        elif name == "arrive.expect_tx.shared.b64" and o[0] == "_":
            address, shift = self.address(o[1])
            self.put("mb_arrive_expect", self.src(address, 4), self.src(o[2], 4), 0, 0, shift)
        elif name == "try_wait.parity.shared.b64" and self.predicate[0] < 0:
            address, shift = self.address(o[1])
            self.put("mb_try_wait", self.dst(o[0], 4), self.src(address, 4), self.src(o[2], 4), 0, shift)
        else:
            self.refuse()

    def i_fence(self, m: list[str], o: list[str]) -> None:
        name = ".".join(m)
        if name in ("proxy.async.shared::cta", "proxy.async"):
            self.put("fence_proxy_async")
        elif name in ("acq_rel.cta", "acq_rel.gpu", "mbarrier_init.release.cluster"):
            self.put("fence_acqrel")
        else:
            self.refuse()

    def i_cvta(self, m: list[str], o: list[str]) -> None:
        op = {"param.u64": "cvta_param", "to.global.u64": "mov64", "global.u64": "mov64"}[".".join(m)]
        self.put(op, self.dst(o[0], 8), self.src(o[1], 8), dests=1, wide=1)
