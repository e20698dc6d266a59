"""PTX text to a program for the machine: statements, registers, labels, constants."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from emulator.library import operations

ROW = 20  # integers an instruction, as in machine.h
SHARED_BASE = 1024
# In the order of begin_warp in machine.c.
SPECIALS = {name: i for i, names in enumerate((
    ["%tid.x"], ["%tid.y"], ["%tid.z"], ["%ntid.x"], ["%ntid.y"], ["%ntid.z"], ["%ctaid.x"], ["%ctaid.y"],
    ["%ctaid.z"], ["%nctaid.x"], ["%nctaid.y"], ["%nctaid.z"], ["%laneid"], ["%warpid"],
    ["%cluster_ctarank", "%cluster_ctaid.x"], ["%cluster_nctarank"])) for name in names}
SIZES = {"pred": 4, "b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "f16": 2, "bf16": 2, "b32": 4,
         "u32": 4, "s32": 4, "f32": 4, "f16x2": 4, "bf16x2": 4, "b64": 8, "u64": 8, "s64": 8, "f64": 8}


class Unsupported(Exception):
    """PTX that the machine has no model of, with its text."""


@dataclass
class Program:
    """What the machine runs. ``text`` and ``source`` say for each instruction where it came from."""

    name: str
    threads: int
    code: list[list[int]] = field(default_factory=list)
    pool: list[int] = field(default_factory=list)
    constants: list[tuple[int, int, int, int]] = field(default_factory=list)  # slot, low, high, 64 bits wide
    specials: list[tuple[int, int]] = field(default_factory=list)
    parameters: list[tuple[str, str, int, int]] = field(default_factory=list)  # name, type, offset, bytes
    parameter_bytes: int = 0
    register_bytes: int = 0
    text: list[str] = field(default_factory=list)
    source: list[tuple[str, int]] = field(default_factory=list)


class Reader:
    """Reads one entry of a PTX module. Subclasses add a method ``i_NAME`` for each instruction."""

    def __init__(self, ptx: str, entry: str | None = None) -> None:
        body = self._entry(ptx, entry)
        self.files = {int(n): Path(p).name for n, p in re.findall(r'\.file\s+(\d+)\s+"([^"]+)"', ptx)}
        self.constants: dict[tuple[int, int], int] = {}
        self.special: dict[str, int] = {}
        self.next_slot = 0
        self.scopes: list[dict[str, tuple[int, str]]] = [{}]
        self.labels: list[dict[str, int]] = [{}]
        self.tables: dict[str, list[str]] = {}
        self.jumps: list[tuple[Callable[[int], None], str, list[dict[str, int]]]] = []
        self.source = ("?", 0)
        self.text = ""
        self.predicate = (-1, 0)
        self._body(body)
        for write, label, scopes in self.jumps:
            target = next((scope[label] for scope in reversed(scopes) if label in scope), None)
            if target is None:
                raise Unsupported(f"label {label}")
            write(target)
        program = self.program
        program.constants = [(slot, value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF, int(width == 8))
                             for (value, width), slot in self.constants.items()]
        program.specials = [(slot, SPECIALS[name]) for name, slot in self.special.items()]
        program.register_bytes = (self.next_slot + 63) // 64 * 64

    # ---- text ---------------------------------------------------------------------------------
    def _entry(self, ptx: str, entry: str | None) -> str:
        names = re.findall(r"\.entry\s+([\w$]+)", ptx)
        if entry is None:
            if len(names) != 1:
                raise Unsupported(f"entries {names}: name one")
            entry = names[0]
        if re.search(r"^\s*(\.visible\s+)?\.func", ptx, re.M):
            raise Unsupported(".func: device functions that are called")
        start = ptx.index(f".entry {entry}")
        head = re.match(r"\.entry\s+[\w$]+\s*\((.*?)\)(.*?)\{", ptx[start:], re.S)
        threads = re.search(r"\.(?:reqntid|maxntid)\s+(\d+)", head[2])
        self.program = Program(entry, int(threads[1]) if threads else 0)
        offset = 0
        for item in filter(None, (x.strip() for x in head[1].split(","))):
            m = re.match(r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+(.*?)([\w$]+)(?:\[(\d+)\])?$", item, re.S)
            if not m:
                raise Unsupported(item)
            size = SIZES[m[2]] * int(m[5] or 1)
            align = int(m[1] or SIZES[m[2]])
            offset = (offset + align - 1) // align * align
            self.program.parameters.append((m[4], m[2] if not m[5] else "bytes", offset, size))
            offset += size
        self.program.parameter_bytes = offset
        return ptx[start + head.end() - 1:]

    def _body(self, body: str) -> None:
        depth, pending, last_label = 0, "", ""
        for raw in body.split("\n"):
            line = raw.split("//")[0].strip()
            if not line:
                continue
            if line.startswith((".loc", ".file", ".section", ".pragma")) and not pending:
                m = re.match(r"\.loc\s+(\d+)\s+(\d+)", line)
                if m:
                    self.source = (self.files.get(int(m[1]), m[1]), int(m[2]))
                continue
            pending += " " + line
            while pending := pending.lstrip():
                m = re.match(r"([\w$]+):(?!:)", pending)
                end = pending.find(";")
                if m:
                    last_label, pending = m[1], pending[m.end():]
                    self.labels[-1][last_label] = len(self.program.code)
                elif pending[0] == "{":
                    depth, pending = depth + 1, pending[1:]
                    self.scopes.append({})
                    self.labels.append({})
                elif pending[0] == "}":
                    depth, pending = depth - 1, pending[1:]
                    self.scopes.pop()
                    self.labels.pop()
                    if depth == 0:
                        return
                elif end < 0:
                    break
                else:
                    statement, pending = re.sub(r"\s+", " ", pending[:end].strip()), pending[end + 1:]
                    if statement.startswith(".branchtargets"):
                        self.tables[last_label] = [x.strip() for x in statement.split(" ", 1)[1].split(",")]
                    elif statement:
                        self._statement(statement)

    def _statement(self, s: str) -> None:
        self.text = s
        if s.startswith(".reg"):
            m = re.match(r"\.reg \.(\w+) (.*)", s)
            for name in (x.strip() for x in m[2].split(",")):
                many = re.match(r"([%\w$]+)<(\d+)>$", name)
                for register in [f"{many[1]}{i}" for i in range(int(many[2]))] if many else [name]:
                    self.scopes[-1][register] = (self.slot(8 if SIZES[m[1]] == 8 else 4), m[1])
        elif s.startswith("."):
            if not s.startswith((".pragma", ".loc")):
                raise Unsupported(s)
        else:
            try:
                self._instruction(s)
            except (ValueError, KeyError, IndexError, TypeError, AttributeError, StopIteration) as error:
                raise Unsupported(f"{s!r} at {self.source}: {type(error).__name__} {error}") from error

    def _instruction(self, s: str) -> None:
        self.predicate = (-1, 0)
        m = re.match(r"@(!?)([%\w$]+) (.*)", s)
        if m:
            self.predicate, s = (self.register(m[2]), int(m[1] == "!")), m[3]
        name, _, rest = s.partition(" ")
        head, *modifiers = name.split(".")
        handler = getattr(self, f"i_{head}", None) or self.refuse()
        handler(modifiers, self.split(rest))

    def refuse(self) -> None:
        raise Unsupported(f"{self.text!r} at {self.source[0]}:{self.source[1]}")

    # ---- operands -----------------------------------------------------------------------------
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
        """Operands, at the commas outside brackets."""
        return [x.strip() for x in re.split(r",(?![^{\[]*[}\]])", text) if x.strip()]

    @staticmethod
    def group(text: str) -> list[str]:
        text = text.strip()
        return [x.strip() for x in text[1:-1].split(",")] if text.startswith("{") else [text]

    # ---- code ---------------------------------------------------------------------------------
    def put(self, op: str, *operands: int, dests: int = 0, wide: int = 0) -> None:
        """Appends an instruction. ``dests``: how many of the first operands it writes; ``wide``: bit i
        where destination i has 64 bits."""
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
        """``write`` gets the label's place once all labels are known."""
        self.jumps.append((write, label, list(self.labels)))
