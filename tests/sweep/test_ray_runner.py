"""A sweep on Ray: kill -9 ends a worker, then the driver; SIGTERM ends another sweep."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import make_recording, write_hdf5
from safetensors.torch import load_file

from swg_fast.sweep import store as stores
from swg_fast.sweep import worker
from swg_fast.sweep.cells import resolve
from swg_fast.sweep.plan_file import read_plan
from swg_fast.sweep.settings import RunSettings
from swg_fast.sweep.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.waits]

pytest.importorskip("ray")

PLAN = """
title = "Killed twice"
dataset = "DATA"
[run]
retries = 1
save_every = 250
log_every = 100
[[points]]
task = "antmaze-umaze-v2"
train.critic_steps = 20000
train.critic_batch = 8
train.actor_steps = 100
train.actor_batch = 8
train.hidden_dim = 16
train.num_steps = 2
evaluate.episodes = 1
evaluate.n_candidates = 1
[[points]]
toy.name = "spiral"
toy.backend = ["auto", "triton"]
toy.steps = 2
toy.batch = 8
toy.hidden_dim = 16
toy.samples = 20
"""


def wait_for(what, process, seconds=240):
    """Calls ``what`` until it returns a true value, and returns that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("nothing happened in time")


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at processes in /proc")
def test_killed_worker_and_killed_driver(tmp_path):
    data = write_hdf5(tmp_path / "data.hdf5", make_recording())
    (tmp_path / "plan.toml").write_text(PLAN.replace("DATA", str(data)))
    cells = resolve(read_plan(tmp_path / "plan.toml"), stores.hash_data, stores.hash_policy)
    training = cells[0].training
    toy, broken = (cell for cell in cells if cell.kind == "toy")
    folder = Store(tmp_path / "out")
    states = folder.critic(training.critic_key)
    command = [sys.executable, "-m", "swg_fast.cli.main", "sweep", str(tmp_path / "plan.toml"), "--out",
               str(folder.folder), "--cpus", "2"]

    def begin():
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, env=os.environ | {"RAY_worker_niceness": "0"})

    def training_since(step, pid=None):
        """The training's worker, once it differs from ``pid`` and has saved a state after ``step``."""
        mark = folder.marks().get(training.key)
        saved = (int(path.stem.split("-")[-1]) for path in states.glob("states/critic-*.safetensors"))
        newest = max(saved, default=0)
        return mark and mark.pid != pid and newest > step and (mark.pid, newest)

    driver, stopped = begin(), None
    try:
        pid, step = wait_for(lambda: training_since(0), driver)
        os.kill(pid, signal.SIGKILL)
        second, step = wait_for(lambda: training_since(step, pid), driver)  # Ray restarted it
        os.kill(stopped := second, signal.SIGSTOP)  # so that it cannot end before its driver
        wait_for(lambda: folder.done(toy), driver)
        written = folder.cell(toy.key).stat().st_mtime_ns
    finally:
        driver.kill()
        driver.communicate()
        if stopped:
            os.kill(stopped, signal.SIGCONT)
    for _ in range(300):  # the worker ends with its driver
        if not alive(second):
            break
        time.sleep(0.1)
    assert not alive(second) and not folder.trained(training.key)

    again = begin()
    out, error = again.communicate(timeout=400)
    assert again.returncode == 1, (out, error)
    assert "3 cells (1 done)" in out and "2 of 3 cells done" in out, out
    assert "failed: backend triton" in error and "Traceback" not in error, error
    assert folder.cell(toy.key).stat().st_mtime_ns == written  # finished cells do not run again
    for cell in cells:
        assert folder.done(cell) is (cell is not broken)
    value = json.loads(folder.cell(cells[0].key).read_text())
    assert value["training"]["data_hash"] == training.data_hash and len(value["result"]["scores"]) == 1

    # Interrupted twice, the training equals that of one uninterrupted process.
    whole = Store(tmp_path / "whole")
    worker.run_training(training, whole, RunSettings())
    mine, theirs = (load_file(s.training(training.key) / "policy/model.safetensors") for s in (folder, whole))
    assert mine.keys() == theirs.keys() and all((mine[name] == theirs[name]).all() for name in mine)


def test_sigterm_ends_it_in_one_line(tmp_path):
    (tmp_path / "plan.toml").write_text('title = "Stopped"\ntoy.name = "spiral"\ntoy.steps = 1_000_000\n')
    folder = Store(tmp_path / "out")
    command = [sys.executable, "-m", "swg_fast.cli.main", "sweep", str(tmp_path / "plan.toml"), "--out",
               str(folder.folder), "--cpus", "1", "--quiet"]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(folder.marks, driver)
        driver.terminate()
        _, error = driver.communicate(timeout=120)
    finally:
        driver.kill()
    assert (driver.returncode, error) == (
        128 + signal.SIGTERM, "stopped; the same command goes on with what is missing\n")
