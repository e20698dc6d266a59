"""Splits PTX text into statements: entries, scopes, labels, register declarations."""

from __future__ import annotations

import re
from pathlib import Path

from emulator.operands import Operands
from emulator.program import SIZES, SPECIALS, Program, Unsupported


class Reader(Operands):
    """Reads one entry of a PTX module. Subclasses add a method ``i_NAME`` for each instruction."""

    def __init__(self, ptx: str, entry: str | None = None) -> None:
        super().__init__()
        body = self._entry(ptx, entry)
        self.files = {int(n): Path(p).name for n, p in re.findall(r'\.file\s+(\d+)\s+"([^"]+)"', ptx)}
        self.tables: dict[str, list[str]] = {}
        self._body(body)
        for write, label, scopes in self.jumps:
            target = next((scope[label] for scope in reversed(scopes) if label in scope), None)
            if target is None:
                raise Unsupported(f"label {label}")
            write(target)
        program = self.program
        program.constants = [
            (slot, value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF, int(width == 8))
            for (value, width), slot in self.constants.items()
        ]
        program.specials = [(slot, SPECIALS[name]) for name, slot in self.special.items()]
        program.register_bytes = (self.next_slot + 63) // 64 * 64

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
            m = re.match(
                r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+(.*?)([\w$]+)(?:\[(\d+)\])?$", item, re.S
            )
            if not m:
                raise Unsupported(item)
            size = SIZES[m[2]] * int(m[5] or 1)
            align = int(m[1] or SIZES[m[2]])
            offset = (offset + align - 1) // align * align
            self.program.parameters.append((m[4], m[2] if not m[5] else "bytes", offset, size))
            offset += size
        self.program.parameter_bytes = offset
        return ptx[start + head.end() - 1 :]

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
                    last_label, pending = m[1], pending[m.end() :]
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
                    statement, pending = re.sub(r"\s+", " ", pending[:end].strip()), pending[end + 1 :]
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
