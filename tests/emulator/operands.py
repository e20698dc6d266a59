"""Translates PTX operands to slots of the machine's registers, and instructions to rows."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from emulator.library import operations
from emulator.program import ROW, SHARED_BASE, SIZES, SPECIALS, Program, Unsupported


class Operands:
    """Registers by scope, constants, addresses, and the growing program."""

    def __init__(self) -> None:
        self.program = Program("", 0)
        self.constants: dict[tuple[int, int], int] = {}
        self.special: dict[str, int] = {}
        self.next_slot = 0
        self.scopes: list[dict[str, tuple[int, str]]] = [{}]
        self.labels: list[dict[str, int]] = [{}]
        self.jumps: list[tuple[Callable[[int], None], str, list[dict[str, int]]]] = []
        self.source = ("?", 0)
        self.text = ""
        self.predicate = (-1, 0)

    def refuse(self) -> None:
        raise Unsupported(f"{self.text!r} at {self.source[0]}:{self.source[1]}")

    def slot(self, width: int) -> int:
        self.next_slot, at = self.next_slot + (256 if width == 8 else 128), self.next_slot
        return at

    def _declared(self, name: str) -> tuple[int, str]:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        raise Unsupported(f"register {name} in {self.text!r}")

    def register(self, name: str) -> int:
        return self._declared(name)[0]

    def kind(self, name: str) -> str:
        return self._declared(name)[1]

    def src(self, text: str, width: int) -> int:
        """Slot of an operand read at ``width`` bytes (16-bit values and predicates live in 32-bit slots)."""
        text = text.strip()
        if text in SPECIALS:
            if text not in self.special:
                self.special[text] = self.slot(4)
            return self.special[text]
        if text.startswith("%") or any(text in scope for scope in self.scopes):
            if (SIZES[self.kind(text)] == 8) != (width == 8):
                raise Unsupported(f"{text} read as {width} bytes in {self.text!r}")
            return self.register(text)
        width = 8 if width == 8 else 4
        key = (self.immediate(text) & (2 ** (8 * width) - 1), width)
        if key not in self.constants:
            self.constants[key] = self.slot(width)
        return self.constants[key]

    def immediate(self, text: str) -> int:
        if re.match(r"0[fF][0-9A-Fa-f]{8}$", text):
            return int(text[2:], 16)
        if re.match(r"-?(0[xX][0-9A-Fa-f]+|\d+)U?$", text):
            return int(text.rstrip("U"), 0)
        if m := re.match(r"global_smem(?:\s*\+\s*(\d+))?$", text):
            return SHARED_BASE + int(m[1] or 0)
        for name, _, offset, _ in self.program.parameters:
            if name == text:
                return offset
        if re.match(r"-?\d+\.\d+$", text):
            return struct.unpack("I", struct.pack("f", float(text)))[0]
        raise Unsupported(f"operand {text!r} in {self.text!r}")

    def dst(self, text: str, width: int) -> int:
        text = text.strip()
        if text == "_":
            return self.slot(width)
        if (SIZES[self.kind(text)] == 8) != (width == 8):
            raise Unsupported(f"{text} written as {width} bytes in {self.text!r}")
        return self.register(text)

    def address(self, text: str) -> tuple[str, int]:
        m = re.match(r"\[\s*([%\w$.]+)\s*(?:\+\s*(-?\w+))?\s*\]$", text.strip())
        if not m:
            raise Unsupported(f"address {text!r} in {self.text!r}")
        return m[1], int(m[2] or "0", 0)

    @staticmethod
    def split(text: str) -> list[str]:
        """Splits operands at the commas outside brackets."""
        parts, depth = [""], 0
        for c in text:
            depth += (c in "{[") - (c in "}]")
            if c == "," and depth == 0:
                parts.append("")
            else:
                parts[-1] += c
        return [part.strip() for part in parts if part.strip()]

    @staticmethod
    def group(text: str) -> list[str]:
        text = text.strip()
        return [x.strip() for x in text[1:-1].split(",")] if text.startswith("{") else [text]

    def put(self, op: str, *operands: int, dests: int = 0, wide: int = 0) -> None:
        """Appends an instruction. ``dests``: how many of the first operands it writes; ``wide``: bit i is set
        if destination i has 64 bits."""
        if op not in operations():
            self.refuse()
        row = [operations()[op], dests | wide << 3, *self.predicate, *operands]
        self.program.code.append(row + [0] * (ROW - len(row)))
        self.program.text.append(self.text)
        self.program.source.append(self.source)

    def pooled(self, values: list[int]) -> int:
        at = len(self.program.pool)
        self.program.pool += values
        return at

    def jump(self, write: Callable[[int], None], label: str) -> None:
        """Calls ``write`` with the label's place once all labels are known."""
        self.jumps.append((write, label, list(self.labels)))
