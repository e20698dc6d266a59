"""The signals that stop a run, its worker processes and its pools."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import make_recording, run_cli, write_hdf5
from safetensors.torch import load_file
from small_runs import SMALL, small_data, train

from swg_fast.common import interrupts
from swg_fast.common.interrupts import STOPPING, deferred
from swg_fast.training import loop
from swg_fast.training.loop import Interrupted

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data():
    return small_data()


@pytest.fixture(scope="module")
def straight(tmp_path_factory, data):
    return load_file(train(data, tmp_path_factory.mktemp("straight") / "r") / "model.safetensors")


@pytest.fixture
def strike(monkeypatch):
    """Sends this process a signal once the actor's first state is saved."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    heard()

    def with_signal(number):
        honest, struck = loop.save_state, []

        def save(folder, trainer, step, *rest):
            path = honest(folder, trainer, step, *rest)
            if trainer.phase == "actor" and not struck:
                struck.append(step)
                os.kill(os.getpid(), number)
            return path

        monkeypatch.setattr(loop, "save_state", save)

    yield with_signal
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOPPING)
def test_signals_save_and_resume_bit_for_bit(tmp_path, data, straight, strike, number):
    strike(number)
    with pytest.raises(Interrupted, match="continue with --resume") as stopped:
        train(data, tmp_path)
    assert stopped.value.code == 128 + number
    resumed = load_file(train(data, tmp_path, resume=True) / "model.safetensors")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in straight.items())


def test_the_command_saves_on_sigterm(tmp_path, strike):
    write_hdf5(tmp_path / "data.hdf5", make_recording(200, 20))
    small = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items() if name != "actor_steps"]
    strike(signal.SIGTERM)
    out = run_cli(
        "train",
        "antmaze-umaze-v2",
        "--dataset",
        "data.hdf5",
        "--out",
        "run",
        "--logger",
        "none",
        *small,
        "--actor-steps",
        10**6,
        "--save-every",
        20,
        cwd=tmp_path,
    )
    assert out.returncode == 143 and "continue with --resume" in out.stderr, out.stderr
    assert not list((tmp_path / "run").rglob("*.part*")) and not (tmp_path / "run" / "policy").exists()


def test_a_signal_after_the_last_look_is_not_lost():
    before = signal.signal(signal.SIGTERM, interrupts._stop)
    try:
        with pytest.raises(interrupts.Stopped), deferred() as asked:
            assert asked() is None
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(ZeroDivisionError), deferred() as asked:  # the work raises its own
            signal.raise_signal(signal.SIGTERM)
            asked() and 1 / 0
    finally:
        signal.signal(signal.SIGTERM, before)


def heard():
    """Restores the default handlers: background jobs ignore some signals."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def started(*command, cwd, ready):
    """Starts a Python process and waits until ``ready`` is true of it."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=heard,
    )
    while not ready(process) and process.poll() is None:
        time.sleep(0.02)
    return process


def loaded(pid, library):
    try:
        with open(f"/proc/{pid}/maps") as file:
            return library in file.read()
    except OSError:
        return False


def test_ctrl_c_while_importing_is_quiet(tmp_path):
    process = started(
        "-m",
        "swg_fast",
        "evaluate",
        "antmaze-umaze-v2",
        cwd=tmp_path,
        ready=lambda process: loaded(process.pid, "libtorch"),
    )
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and said.strip() == "interrupted", said


STEPPING = """
import numpy as np
from swg_fast.envs.vector import VectorEnv
from swg_fast.common.interrupts import Stopped, install

if __name__ == "__main__":
    install()
    try:
        with VectorEnv("Pendulum-v1", 2, 2) as vector:
            vector.reset({0: 0, 1: 1})
            while True:
                vector.step({0: np.zeros(1), 1: np.zeros(1)})
    except Stopped as stopped:
        raise SystemExit(stopped.code) from None
"""


@pytest.mark.parametrize(
    "number,group",
    [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGKILL, False)],
)
@pytest.mark.parametrize("workers", ["starting", "importing"])
def test_workers_of_a_stopped_process_end_quietly(tmp_path, number, group, workers):
    """Ctrl-C goes to the whole group, others to the parent alone. Nothing is printed and no worker stays."""
    (tmp_path / "stepping.py").write_text(STEPPING)

    def children(process):
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            return file.read().split()

    process = started(
        "stepping.py",
        cwd=tmp_path,
        ready=lambda process: (
            len(children(process)) == 2
            and (
                workers == "starting"
                and number != signal.SIGKILL
                or all(loaded(pid, "multiarray") for pid in children(process))
            )
        ),
    )
    pids = children(process)
    (os.killpg if group else os.kill)(process.pid, number)
    _, said = process.communicate(timeout=120)  # returns when no process has the pipe open
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number) and said == "", said
    assert not any(os.path.exists(f"/proc/{pid}/exe") for pid in pids)


STRIKING = """
import os
import subprocess
import time

start, started = subprocess.Popen.__init__, 0


def strike(*arguments, **keywords):
    global started
    start(*arguments, **keywords)
    started += 1
    if started == {process}:
        time.sleep(0.2)  # the process has started and waits for its task
        os.killpg(0, {number})
        time.sleep(0.1)


subprocess.Popen.__init__ = strike
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("process", [1, 2], ids=["first", "second"])
def test_signals_in_the_midst_of_a_start(tmp_path, number, process):
    """The group gets a signal while a started process still waits for its task."""
    (tmp_path / "stepping.py").write_text(STRIKING.format(process=process, number=int(number)) + STEPPING)
    stopped = started("stepping.py", cwd=tmp_path, ready=lambda process: True)
    _, said = stopped.communicate(timeout=120)
    assert stopped.returncode == 128 + number and said == "", said
