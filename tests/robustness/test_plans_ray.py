"""A sweep's Ray: it is this machine's alone, imports nothing of the current folder, and its end is told."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from swg_fast.common.errors import UsageError
from swg_fast.sweep import cells
from swg_fast.sweep.plan_file import read_plan
from swg_fast.sweep.ray_runner import run_all
from swg_fast.sweep.ray_start import GONE, connected
from swg_fast.sweep.settings import RunSettings
from swg_fast.sweep.store import Store, hash_data, hash_policy

pytestmark = [pytest.mark.slow, pytest.mark.waits]

pytest.importorskip("ray")

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at processes in /proc")


def family(pid):
    """``pid`` and the processes below it."""
    below = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid, *(one for path in below for child in path.read_text().split() for one in family(child))]


def listening():
    """The addresses, as /proc has them, on which this process and those below it listen."""
    inodes = set()
    for pid in family(os.getpid()):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(os.readlink(path).removeprefix("socket:[").rstrip("]"))
            except OSError:
                continue
    rows = [line.split() for name in ("tcp", "tcp6") if Path(f"/proc/net/{name}").exists()
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return [row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes]


def pid_of(name):
    return next(pid for pid in map(int, family(os.getpid()))
                if Path(f"/proc/{pid}/comm").read_text() == f"{name}\n")


@needs_proc
def test_a_local_sweep_is_alone_and_its_end_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")  # another program's; nothing answers there
    before = listening()
    for name in ("random.py", "json.py"):
        Path(name).write_text("raise SystemExit('the current folder was read')")
    (tmp_path / "plan.toml").write_text('toy.name = "spiral"')
    toys = cells.resolve(read_plan(tmp_path / "plan.toml"), hash_data, hash_policy)

    def imports():
        import json
        import random

        return json.__file__, random.__file__

    with connected(cpus=1) as ray:
        assert not any(str(tmp_path) in file for file in ray.get(ray.remote(imports).remote()))
        found = listening()
        assert len(found) > len(before) + 3
        assert {address[-8:] for address in found if address not in before} == {"0100007F"}, found
        os.kill(pid_of("raylet"), signal.SIGKILL)
        with pytest.raises(UsageError, match="Ray's own processes ended") as raised:
            run_all(ray, Store(tmp_path / "out"), [], toys, RunSettings(), lambda outcome: None)
        assert str(raised.value) == GONE
    assert not ray.is_initialized()


ADDRESSES = {
    "nobody there": ("127.0.0.1:1", "Ray cannot be reached at 127.0.0.1:1 ("),
    "no such port": ("127.0.0.1:99999999", "Ray cannot be reached at 127.0.0.1:99999999 (Port out of range"),
    "no address": ("no address", "Ray cannot be reached at no address ("),
}


@pytest.mark.parametrize("name", ADDRESSES)
def test_a_cluster_that_is_not_there(name):
    address, words = ADDRESSES[name]
    with pytest.raises(UsageError) as raised, connected(address):
        pass
    assert str(raised.value).startswith(words) and "ray start --head" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_users_own_ray_is_used_and_left_running():
    import ray

    with connected(cpus=1):
        with connected(cpus=3) as same:
            assert same.cluster_resources()["CPU"] == 1
        with pytest.raises(UsageError, match="leave the address out"), connected("192.0.2.1:6379"):
            pass
        assert ray.is_initialized()
    assert not ray.is_initialized()
