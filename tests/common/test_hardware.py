"""How many cores there are: by affinity where the system has it, and by the control group's quota."""

from __future__ import annotations

import os

import pytest

from swg_fast.common import hardware

# affinity (None: the system has none), all cores, cpu.max (None: no control group), what is right
CORES = {
    "all": (range(8), 8, None, 8),
    "pinned to two": ((3, 5), 8, None, 2),
    "no affinity, as on macOS": (None, 10, None, 10),
    "unknown": (None, None, None, 1),
    "no quota": (range(8), 8, "max 100000\n", 8),
    "a quota of two": (range(8), 8, "200000 100000\n", 2),
    "a quota of one and a half": (range(8), 8, "150000 100000\n", 2),
    "a quota of a tenth": (range(8), 8, "10000 100000\n", 1),
    "a quota above the affinity": ((0, 1), 8, "400000 100000\n", 2),
    "a quota that is no number": (range(4), 4, "half of it\n", 4),
}


@pytest.mark.parametrize("name", CORES)
def test_cores(name, tmp_path, monkeypatch):
    affinity, count, quota, right = CORES[name]
    monkeypatch.setattr(hardware, "GROUP", tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    if affinity is None:
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    else:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(affinity), raising=False)
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota)
    assert hardware.cores() == right
