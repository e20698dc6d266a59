"""A program for the machine, and the shared parts of its translators."""

from __future__ import annotations

from dataclasses import dataclass, field

ROW = 20  # integers an instruction, as in machine.h
SHARED_BASE = 1024
# In the order of begin_warp in machine.c.
SPECIALS = {
    name: i
    for i, names in enumerate(
        (
            ["%tid.x"],
            ["%tid.y"],
            ["%tid.z"],
            ["%ntid.x"],
            ["%ntid.y"],
            ["%ntid.z"],
            ["%ctaid.x"],
            ["%ctaid.y"],
            ["%ctaid.z"],
            ["%nctaid.x"],
            ["%nctaid.y"],
            ["%nctaid.z"],
            ["%laneid"],
            ["%warpid"],
            ["%cluster_ctarank", "%cluster_ctaid.x"],
            ["%cluster_nctarank"],
        )
    )
    for name in names
}
SIZES = {
    "pred": 4,
    "b8": 1,
    "u8": 1,
    "s8": 1,
    "b16": 2,
    "u16": 2,
    "s16": 2,
    "f16": 2,
    "bf16": 2,
    "b32": 4,
    "u32": 4,
    "s32": 4,
    "f32": 4,
    "f16x2": 4,
    "bf16x2": 4,
    "b64": 8,
    "u64": 8,
    "s64": 8,
    "f64": 8,
}


class Unsupported(Exception):
    """PTX that the machine does not model, with its text."""


@dataclass
class Program:
    """The machine's program. ``text`` and ``source`` give each instruction's origin."""

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
