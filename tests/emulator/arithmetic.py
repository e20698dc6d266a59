"""Computing instructions: integers, floating point, comparisons, conversions, moves."""

from __future__ import annotations

from emulator.program import SIZES
from emulator.reader import Reader


def _is_integer(kind: str) -> bool:
    return kind[0] in "usb" and kind[1:].isdigit()


# cvt between integers, by bytes of the result and of the operand, for signed operands and others.
INTEGER_CVT = {
    (8, 4): ("cvt_64_s32", "cvt_64_u32"),
    (4, 8): ("cvt_32_64",) * 2,
    (4, 2): ("cvt_s32_s16", "cvt_u32_u16"),
    (2, 4): ("cvt_16_32",) * 2,
    (4, 1): ("cvt_s32_s8", "cvt_u32_u8"),
    (8, 2): ("cvt_s64_s16", "cvt_u64_u16"),
    (2, 2): ("mov16",) * 2,
    (4, 4): ("mov32",) * 2,
    (8, 8): ("mov64",) * 2,
}


class Arithmetic(Reader):
    def simple(self, op: str, o: list[str], width: int, widths: list[int] | None = None) -> None:
        """One destination, then the operands, of ``width`` bytes unless ``widths`` gives others."""
        widths = widths or [width] * (len(o) - 1)
        operands = [self.src(x, w) for x, w in zip(o[1:], widths, strict=True)]
        self.put(op, self.dst(o[0], width), *operands, dests=1, wide=int(width == 8))

    def _arithmetic(self, head: str, m: list[str], o: list[str]) -> None:
        kind, extra = m[-1], m[:-1]
        if kind == "f32":
            if {"sat", "rm", "rp", "rz"} & set(extra):
                self.refuse()
            if head in ("min", "max"):
                return self.simple(f"{head}{'_nan' if 'NaN' in extra else ''}_f32", o, 4)
            return self.simple(f"{head}{'_ftz' if 'ftz' in extra else ''}_f32", o, 4)
        if kind == "bf16x2":
            if set(extra) - {"rn"}:
                self.refuse()
            return self.simple(f"{head}_bf16x2", o, 4)
        if not _is_integer(kind) or {"sat", "cc"} & set(extra):
            self.refuse()
        width = SIZES[kind]
        self.simple(f"{head}_{kind if head in ('min', 'max') else f'b{8 * width}'}", o, width)

    def i_add(self, m: list[str], o: list[str]) -> None:
        self._arithmetic("add", m, o)

    def i_sub(self, m: list[str], o: list[str]) -> None:
        self._arithmetic("sub", m, o)

    def i_min(self, m: list[str], o: list[str]) -> None:
        self._arithmetic("min", m, o)

    def i_max(self, m: list[str], o: list[str]) -> None:
        self._arithmetic("max", m, o)

    def i_mul(self, m: list[str], o: list[str]) -> None:
        if m[-1] in ("f32", "bf16x2"):
            return self._arithmetic("mul", m, o)
        mode, kind = m
        size = SIZES[kind]
        if mode == "wide":
            return self.simple(f"mul_wide_{kind}", o, 2 * size, [size] * 2)
        self.simple(f"mul_lo_b{8 * size}" if mode == "lo" else f"mul_{mode}_{kind}", o, size)

    def i_mad(self, m: list[str], o: list[str]) -> None:
        mode, kind = m
        if mode == "wide":
            return self.simple(f"mad_wide_{kind}", o, 8, [4, 4, 8])
        self.simple(f"mad_{mode}_b{8 * SIZES[kind]}", o, SIZES[kind])

    def i_fma(self, m: list[str], o: list[str]) -> None:
        if m[0] != "rn" or "sat" in m:
            self.refuse()
        self.simple(f"fma{'_ftz' if 'ftz' in m else ''}_{m[-1]}", o, 4)

    def i_div(self, m: list[str], o: list[str]) -> None:
        self.simple(f"div_{m[-1]}", o, SIZES[m[-1]])

    def i_rem(self, m: list[str], o: list[str]) -> None:
        self.simple(f"rem_{m[-1]}", o, SIZES[m[-1]])

    def _logic(self, head: str, m: list[str], o: list[str]) -> None:
        self.simple(f"{head}_{m[0]}", o, SIZES[m[0]])

    def i_and(self, m: list[str], o: list[str]) -> None:
        self._logic("and", m, o)

    def i_or(self, m: list[str], o: list[str]) -> None:
        self._logic("or", m, o)

    def i_xor(self, m: list[str], o: list[str]) -> None:
        self._logic("xor", m, o)

    def i_not(self, m: list[str], o: list[str]) -> None:
        self._logic("not", m, o)

    def _function(self, head: str, m: list[str], o: list[str]) -> None:
        """A function of float32; the machine computes approximate ones exactly, except tanh."""
        ftz = "_ftz" if "ftz" in m and head in ("sqrt", "rsqrt", "ex2", "lg2") else ""
        self.simple(f"{head}{ftz}_{m[-1]}", o, 4)

    def i_sqrt(self, m: list[str], o: list[str]) -> None:
        self._function("sqrt", m, o)

    def i_rsqrt(self, m: list[str], o: list[str]) -> None:
        self._function("rsqrt", m, o)

    def i_rcp(self, m: list[str], o: list[str]) -> None:
        self._function("rcp", m, o)

    def i_ex2(self, m: list[str], o: list[str]) -> None:
        self._function("ex2", m, o)

    def i_lg2(self, m: list[str], o: list[str]) -> None:
        self._function("lg2", m, o)

    def i_sin(self, m: list[str], o: list[str]) -> None:
        self._function("sin", m, o)

    def i_cos(self, m: list[str], o: list[str]) -> None:
        self._function("cos", m, o)

    def i_tanh(self, m: list[str], o: list[str]) -> None:
        self._function("tanh", m, o)

    def i_copysign(self, m: list[str], o: list[str]) -> None:
        self._function("copysign", m, o)

    def i_neg(self, m: list[str], o: list[str]) -> None:
        self.simple(f"neg_{m[-1]}", o, SIZES[m[-1]])

    def i_abs(self, m: list[str], o: list[str]) -> None:
        self.simple(f"abs_{m[-1]}", o, SIZES[m[-1]])

    def i_shl(self, m: list[str], o: list[str]) -> None:
        width = SIZES[m[-1]]
        self.simple(f"shl_b{8 * width}", o, width, [width, 4])

    def i_shr(self, m: list[str], o: list[str]) -> None:
        width = SIZES[m[-1]]
        self.simple(f"shr_{'s' if m[-1][0] == 's' else 'u'}{8 * width}", o, width, [width, 4])

    def i_lop3(self, m: list[str], o: list[str]) -> None:
        self.simple("lop3_b32", o, 4)

    def i_prmt(self, m: list[str], o: list[str]) -> None:
        self.simple(f"prmt_{'_'.join(m)}", o, 4)

    def i_bfe(self, m: list[str], o: list[str]) -> None:
        self.simple(f"bfe_{m[0]}", o, SIZES[m[0]], [SIZES[m[0]], 4, 4])

    def i_bfi(self, m: list[str], o: list[str]) -> None:
        self.simple(f"bfi_{m[0]}", o, 4)

    def i_popc(self, m: list[str], o: list[str]) -> None:
        self.simple(f"popc_{m[0]}", o, 4)

    def i_clz(self, m: list[str], o: list[str]) -> None:
        self.simple(f"clz_{m[0]}", o, 4)

    def i_brev(self, m: list[str], o: list[str]) -> None:
        self.simple(f"brev_{m[0]}", o, 4)

    def i_shf(self, m: list[str], o: list[str]) -> None:
        self.simple(f"shf_{'_'.join(m)}", o, 4)

    def i_mov(self, m: list[str], o: list[str]) -> None:
        kind, to, of = m[-1], self.group(o[0]), self.group(o[1])
        if kind == "pred":
            return self.put("mov_pred", self.dst(to[0], 4), self.src(of[0], 4), dests=1)
        width = SIZES[kind]
        if len(to) == len(of) == 1:
            op, wide = {2: "mov16", 4: "mov32", 8: "mov64"}[width], int(width == 8)
            return self.put(op, self.dst(to[0], width), self.src(of[0], width), dests=1, wide=wide)
        parts = max(len(to), len(of))
        part = width // parts
        if len(of) == 1:
            slots = [self.dst(x, part) for x in to]
            return self.put(f"unpack{parts}x{8 * part}", *slots, self.src(of[0], width), dests=parts)
        slots = [self.src(x, part) for x in of]
        self.put(f"pack{parts}x{8 * part}", self.dst(to[0], width), *slots, dests=1, wide=int(width == 8))

    def i_setp(self, m: list[str], o: list[str]) -> None:
        m = [x for x in m if x != "ftz"]
        if len(m) != 2 or "|" in o[0]:
            self.refuse()
        compare, kind = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}.get(m[0], m[0]), m[1]
        if kind[0] in "us" and compare in ("eq", "ne"):
            kind = "b" + kind[1:]
        width = SIZES[kind]
        self.put(
            f"setp_{compare}_{kind}", self.dst(o[0], 4), self.src(o[1], width), self.src(o[2], width), dests=1
        )

    def i_selp(self, m: list[str], o: list[str]) -> None:
        width = SIZES[m[0]]
        self.simple("selp64" if width == 8 else "selp32", o, width, [width, width, 4])

    def i_cvt(self, m: list[str], o: list[str]) -> None:
        if {"sat", "relu"} & set(m):
            self.refuse()
        m = [x for x in m if x not in ("ftz", "satfinite")]
        mode, to, of = m[0] if len(m) == 3 else "", m[-2], m[-1]
        to_bytes, of_bytes = SIZES.get(to, 4), SIZES.get(of, 4)
        if _is_integer(to) and _is_integer(of):
            op = INTEGER_CVT[to_bytes, of_bytes][of[0] != "s"]
        elif to == "f32" and (_is_integer(of) or of in ("bf16", "f16")):
            if _is_integer(of) and mode != "rn":
                self.refuse()
            op = f"cvt_f32_{of}"
        elif to in ("bf16", "f16", "bf16x2", "f16x2") and mode == "rn":
            op = f"cvt_{to}_{of}"
        else:
            op = f"cvt_{mode}_{to}_{of}"
        operands = [self.src(x, of_bytes) for x in o[1:]]
        self.put(op, self.dst(o[0], to_bytes), *operands, dests=1, wide=int(to_bytes == 8))
