"""How many cores there are: by affinity where the system has it, and by the control group's quota."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from swg_fast.common import hardware


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
