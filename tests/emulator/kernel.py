"""A compiled kernel, run on the CPU."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import numpy as np
import torch

from emulator.arithmetic import Arithmetic
from emulator.library import library, operations
from emulator.memory import Memory
from emulator.program import Program
from emulator.results import MachineError, Race, Result, TensorMap
from emulator.warps import Warps

ASYNCHRONOUS = {"issue": 0, "late": 1, "random": 2}


class Translator(Arithmetic, Memory, Warps):
    """All instructions of the machine."""


class Kernel:
    """``ptx`` and the bytes of shared memory it needs (a compiled Triton kernel's `metadata.shared`)."""

    def __init__(self, ptx: str, shared: int, entry: str | None = None) -> None:
        self.program: Program = Translator(ptx, entry).program
        self.shared = max(shared, 16)
        self.warps = self.program.threads // 32
        self.code = np.array(self.program.code, np.int32)
        self.pool = np.array(self.program.pool or [0], np.int32)
        self.constants = np.array(self.program.constants or [(0,) * 4], np.int64).astype(np.uint32)
        self.specials = np.array(self.program.specials or [(0, 0)], np.int32)

    def where(self, at: int) -> str:
        """Source file, line and text of an instruction."""
        if not 0 <= at < len(self.program.code):
            return "(start)"
        file, line = self.program.source[at]
        return f"{file}:{line} {self.program.text[at][:100]}"

    def __call__(
        self,
        grid: tuple[int, ...],
        *arguments: Any,
        seed: int = 0,
        asynchronous: str = "random",
        detect: int = 1,
        readonly: tuple[torch.Tensor, ...] = (),
        round_tf32: bool = False,
    ) -> Result:
        """Runs all blocks of ``grid`` in turn. A CPU tensor is passed as a pointer; the remaining parameters,
        which belong to Triton, are null. ``seed`` 0 runs warps in order, others draw the schedule.
        ``asynchronous`` says when copies and products take effect: at "issue", as "late" as allowed, or at
        "random" between. ``detect`` 0 looks for no races, 2 also reports exchanges. The kernel must not write
        to ``readonly``."""
        machine, program, grid = library(), self.program, tuple(grid) + (1,) * (3 - len(grid))
        block, buffers = self._parameters(arguments, readonly)
        it = machine.machine_new(
            _pointer(self.code),
            len(self.code),
            _pointer(self.pool),
            self.warps,
            program.register_bytes,
            self.shared,
            int(detect),
            int(round_tf32),
        )
        try:
            for base, (size, writable) in buffers.items():
                machine.machine_buffer(it, base, size, int(writable))
            parameters = ctypes.create_string_buffer(bytes(block), len(block))
            shape = (ctypes.c_uint32 * 3)(*grid)
            for number in range(grid[0] * grid[1] * grid[2]):
                index = (ctypes.c_uint32 * 3)(
                    number % grid[0], number // grid[0] % grid[1], number // grid[0] // grid[1]
                )
                failed = machine.machine_run(
                    it,
                    _pointer(self.constants),
                    len(program.constants),
                    _pointer(self.specials),
                    len(program.specials),
                    parameters,
                    len(block),
                    index,
                    shape,
                    seed and seed * 1000003 + number,
                    ASYNCHRONOUS[asynchronous],
                    10**10,
                )
                if failed:
                    where = self.where(machine.machine_error_at(it))
                    raise MachineError(
                        f"{machine.machine_error(it).decode()} [block {number}, warp "
                        f"{machine.machine_error_warp(it)}] at {where}"
                    )
            return self._result(it, list(buffers))
        finally:
            machine.machine_free(it)

    def _parameters(
        self, arguments: tuple[Any, ...], readonly: tuple[torch.Tensor, ...]
    ) -> tuple[bytearray, dict[int, tuple[int, bool]]]:
        block, buffers = bytearray(max(self.program.parameter_bytes, 8)), {}
        for (name, kind, offset, _), value in zip(self.program.parameters, arguments, strict=False):
            if isinstance(value, TensorMap):
                data, memory = value.packed(), value.tensor
            elif isinstance(value, torch.Tensor):
                data, memory = struct.pack("Q", value.data_ptr()), value
            elif kind == "f32":
                data, memory = struct.pack("f", value), None
            elif kind in ("u32", "s32", "b32"):
                data, memory = struct.pack("I", int(value) & 0xFFFFFFFF), None
            elif kind in ("u64", "s64", "b64"):
                data, memory = struct.pack("Q", int(value or 0) & (2**64 - 1)), None
            else:
                raise TypeError(f"parameter {name} of type {kind}")
            block[offset : offset + len(data)] = data
            if memory is not None:
                writable = not any(memory is one for one in readonly)
                buffers[memory.data_ptr()] = (memory.numel() * memory.element_size(), writable)
        return block, buffers

    def _result(self, it: int, buffers: list[int]) -> Result:
        machine, reports = library(), []
        for i in range(machine.machine_report_count(it)):
            r = machine.machine_report(it, i).contents
            reports.append(
                Race(
                    r.kind,
                    "shared" if r.space == 1 else "global",
                    r.count,
                    self.where(r.first_at),
                    self.where(r.second_at),
                    (r.first_warp, r.second_warp),
                )
            )
        counts = {name: machine.machine_executed_by(it, op) for name, op in operations().items()}
        for i in range(16):  # the layout of wgmma's operands in shared memory
            swizzle, major = ("none", "128B", "64B", "32B")[i % 4], ("K", "MN")[i // 4 % 2]
            counts[f"wgmma {'AB'[i // 8]} {major}-major swizzle {swizzle}"] = machine.machine_layout(it, i)
        return Result(
            reports,
            machine.machine_executed(it),
            {name: n for name, n in counts.items() if n},
            {base: 32 * machine.machine_sectors(it, i) for i, base in enumerate(buffers)},
        )


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)
