"""How many cores there are: by affinity where the system has it, and by the control group's quota."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from swg_fast import UsageError
from swg_fast.common import hardware
from swg_fast.evaluation.bench import worker

ROOT = Path(__file__).parents[2]


class Machine(NamedTuple):
    """What a system says: the cores of the affinity (None: it has none), all cores, and cpu.max."""

    affinity: Sequence[int] | None
    count: int | None
    quota: str | None
    right: int


CORES = {
    "all": Machine(range(8), 8, None, right=8),
    "pinned to two": Machine((3, 5), 8, None, right=2),
    "no affinity, as on macOS": Machine(None, 10, None, right=10),
    "unknown": Machine(None, None, None, right=1),
    "no quota": Machine(range(8), 8, "max 100000\n", right=8),
    "a quota of two": Machine(range(8), 8, "200000 100000\n", right=2),
    "a quota of one and a half": Machine(range(8), 8, "150000 100000\n", right=2),
    "a quota of a tenth": Machine(range(8), 8, "10000 100000\n", right=1),
    "a quota above the affinity": Machine((0, 1), 8, "400000 100000\n", right=2),
    "a quota that is no number": Machine(range(4), 4, "half of it\n", right=4),
}


@pytest.mark.parametrize("name", CORES)
def test_cores(name, tmp_path, monkeypatch):
    case = CORES[name]
    monkeypatch.setattr(hardware, "GROUP", tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: case.count)
    if case.affinity is None:
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    else:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(case.affinity), raising=False)
    if case.quota is not None:
        (tmp_path / "cpu.max").write_text(case.quota)
    assert hardware.cores() == case.right


def test_without_affinity_nothing_is_kept_to_cores(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert hardware.core_numbers() == [0, 1, 2]
    with pytest.raises(UsageError, match="keeps no process to chosen cores; measure on Linux"):
        hardware.keep_to_cores([0])


def test_one_place_asks_for_affinity():
    """Elsewhere the call would end a program on macOS."""
    named = {path.relative_to(ROOT).as_posix() for folder in ("swg_fast", "kernels", "benchmarks", "examples")
             for path in (ROOT / folder).rglob("*.py") if "affinity(" in path.read_text()}
    assert named == {"swg_fast/common/hardware.py"}


def test_the_processor_has_a_name_without_proc(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "PROCESSORS", tmp_path / "none")
    monkeypatch.setattr(hardware.platform, "processor", lambda: "arm")
    assert hardware.processor_lines() == ["model name: arm"]
    assert hardware.device_name(hardware.resolve_device("cpu")).startswith("arm, ")


@pytest.mark.parametrize(("system", "unit"), [("darwin", 1), ("freebsd", 1024)])
def test_peak_memory_without_proc_is_in_bytes(system, unit, monkeypatch):
    monkeypatch.setattr(worker, "Path", lambda name: SimpleNamespace(exists=lambda: False))
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=5))
    assert worker._status("VmHWM") == 5 * unit
