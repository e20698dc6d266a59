"""A run's folder, its divergence, and the signals that stop it."""

from __future__ import annotations

import fcntl
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_recording, run_cli, write_hdf5
from safetensors.torch import load_file

from swg_fast import UsageError
from swg_fast.common import interrupts
from swg_fast.common.interrupts import STOPPING, deferred
from swg_fast.data.transitions import to_transitions
from swg_fast.method.weight_functions import WEIGHT_FUNCTIONS
from swg_fast.training import loop, run
from swg_fast.training.loop import Diverged, Interrupted, LoopOptions
from swg_fast.training.settings import TrainSettings

pytestmark = pytest.mark.slow

SMALL = {
    "critic_steps": 40,
    "actor_steps": 40,
    "critic_batch": 8,
    "actor_batch": 8,
    "hidden_dim": 16,
    "num_blocks": 2,
    "num_steps": 3,
    "dropout": 0.0,
}


@pytest.fixture(scope="module")
def data():
    return to_transitions(make_recording(200, 20, 4, 2))


def options(folder, **changes):
    return LoopOptions(folder / "states", **{"log_every": 10, "save_every": 10, "progress": False} | changes)


def train(data, out, resume=False, changes=(), **more):
    return run.train(
        data, TrainSettings(**SMALL | dict(changes)), out, resume=resume, options=options(out, **more)
    )


def huge(data, value):
    return replace(data, rewards=np.full_like(data.rewards, value))


@pytest.mark.parametrize("log_every,save_every", [(1, 10), (1000, 10), (10, 1000)])
def test_divergence_stops_the_run_and_leaves_no_policy(tmp_path, data, log_every, save_every):
    with pytest.raises(Diverged, match="critic diverged by step .* not finite; no state was saved") as error:
        train(huge(data, 1e25), tmp_path / "r", log_every=log_every, save_every=save_every)
    assert "critic_lr" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "r" / "policy").exists() and not list((tmp_path / "r" / "states").glob("*"))


def test_divergence_keeps_the_last_good_state(tmp_path, data, monkeypatch):
    """A parameter that becomes NaN in step 25 is found by step 30; the state of step 20 is kept."""
    from swg_fast.training.diffusion import DiffusionTrainer

    honest = DiffusionTrainer.draw

    def spoil(self, generator, steps, rows):
        drawn = honest(self, generator, steps, rows)
        drawn["noise"][25] = math.nan
        return drawn

    monkeypatch.setattr(DiffusionTrainer, "draw", spoil)
    with pytest.raises(
        Diverged, match="actor diverged by step 30: .*the last good state, of step 20, is kept"
    ):
        train(data, tmp_path / "r")
    states = sorted(path.name for path in (tmp_path / "r" / "states").glob("actor*"))
    assert states == ["actor-00000010.safetensors", "actor-00000020.safetensors"]
    assert all(t.isfinite().all() for t in load_file(tmp_path / "r" / "states" / states[-1]).values())
    assert not (tmp_path / "r" / "policy").exists()


@pytest.mark.parametrize(
    "change,word",
    [
        ({"reward_transform": "return_range"}, "different returns"),
        ({"num_blocks": 256, "hidden_dim": 16384}, "memory"),
    ],
)
def test_a_refused_start_leaves_nothing(tmp_path, data, change, word):
    with pytest.raises(UsageError, match=word):
        train(huge(data, 0.0), tmp_path / "r", changes=change)
    assert not list(tmp_path.iterdir())


def test_a_start_that_came_to_nothing_does_not_block_the_next(tmp_path, data, monkeypatch):
    monkeypatch.setattr(run, "_train", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(data, tmp_path / "r")
    monkeypatch.undo()
    train(data, tmp_path / "r", changes={"actor_steps": 20})
    with pytest.raises(UsageError, match="already holds a run"):
        train(data, tmp_path / "r")


def test_two_processes_do_not_train_in_one_folder(tmp_path, data):
    (tmp_path / "r").mkdir()
    with open(tmp_path / "r" / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another process is training there"):
            train(data, tmp_path / "r")
    train(data, tmp_path / "r")


@pytest.mark.parametrize(
    "content,word",
    [
        (b"[", "not valid JSON"),
        (b"3", "not the record"),
        (b'{"settings": 3}', "not the record"),
        (b'{"settings": {}, "transitions": 1}', "other settings"),
        (b"[" * 10**6, "nested too deeply"),
    ],
)
def test_bad_records(tmp_path, data, content, word):
    train(data, tmp_path / "r")
    (tmp_path / "r" / "run.json").write_bytes(content)
    with pytest.raises(UsageError, match=word):
        train(data, tmp_path / "r", resume=True)


@pytest.mark.parametrize(
    "damage,word",
    [
        (lambda path: path.write_bytes(b"short"), "damaged"),
        (lambda path: path.chmod(0o600) or path.write_bytes(path.read_bytes()[:900]), "damaged"),
    ],
)
def test_bad_states(tmp_path, data, damage, word):
    with pytest.raises(Interrupted):
        train(data, tmp_path / "r", stop_after=20)
    (tmp_path / "r" / "states" / "critic-notes.safetensors").write_text("not a state")
    damage(tmp_path / "r" / "states" / "critic-00000020.safetensors")
    with pytest.raises(UsageError, match=word):
        train(data, tmp_path / "r", resume=True)
    (tmp_path / "r" / "states" / "critic-00000020.safetensors").unlink()
    train(data, tmp_path / "r", resume=True)


@pytest.mark.parametrize(
    "change",
    [
        {"observations": np.zeros((3, 4), np.float32)},
        {"rewards": np.full(190, np.nan, np.float32)},
        {"actions": np.zeros((190, 2))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_transitions_that_do_not_fit(tmp_path, data, change):
    with pytest.raises(UsageError, match=f"data.({next(iter(change))}|observations)"):
        train(replace(data, **change), tmp_path / "r")


FIELDS_BAD = {
    "critic_steps": [0, 2.0, "10", None, True, 10**12],
    "critic_batch": [-1, 10**6],
    "critic_lr": [0, -1e-3, math.nan, math.inf, "fast", 7],
    "discount": [0, 1, -1, math.nan],
    "polyak": [0, 1.5],
    "expectile": [0, 1, math.nan],
    "reward_transform": ["cube", 1],
    "weight_function": ["evil", None],
    "weight_parameter": [0, 1, -1, math.nan, "tau"],
    "rescale_weights": ["no", 1],
    "hidden_dim": [0, 10**7, 16.5],
    "num_blocks": [0, 1, 10**8],
    "weight_head": ["late"],
    "dropout": [-0.1, 1, math.nan],
    "schedule": ["steep"],
    "num_steps": [0, 3 * 10**6],
    "actor_steps": [0],
    "actor_batch": [0, 2**20],
    "actor_lr": [0, math.inf],
    "weight_decay": [-1, math.nan, 5],
    "cosine_decay": [2],
    "ema_rate": [0, 1.1],
    "seed": [-1, 2**64, 0.5],
    "held_out": [1, -0.1, "5%"],
    "precision": ["fp8", 16],
}


@pytest.mark.parametrize(
    "name,value", [(n, v) for n, values in FIELDS_BAD.items() for v in values], ids=lambda v: repr(v)[:20]
)
def test_bad_settings(name, value):
    with pytest.raises(UsageError) as error:
        TrainSettings(**{name: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", WEIGHT_FUNCTIONS)
def test_every_weight_function_with_its_default_passes(name):
    assert TrainSettings(weight_function=name).parameter_of_weights() in (None, 0.7)


@pytest.fixture(scope="module")
def straight(tmp_path_factory, data):
    return load_file(train(data, tmp_path_factory.mktemp("straight") / "r") / "model.safetensors")


@pytest.fixture
def strike(monkeypatch):
    """Has this process get a signal when the actor's first state has been saved."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    heard()

    def with_signal(number):
        honest, struck = loop.save_state, []

        def save(folder, trainer, step, keep):
            path = honest(folder, trainer, step, keep)
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
        with pytest.raises(ZeroDivisionError), deferred() as asked:  # the work has heard, and says so itself
            signal.raise_signal(signal.SIGTERM)
            asked() and 1 / 0
    finally:
        signal.signal(signal.SIGTERM, before)


def heard():
    """Signals as a terminal's processes have them: a job in the background ignores some."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def started(*command, cwd, ready):
    """A Python process, once ``ready`` says so of it."""
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
    """Ctrl-C goes to the whole group, others to the parent alone: nothing is printed, nobody stays."""
    (tmp_path / "stepping.py").write_text(STEPPING)

    def children(process):
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            return file.read().split()[1:]  # the first is multiprocessing's tracker of resources

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
    _, said = process.communicate(timeout=120)  # ends when nobody holds the other end any more
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number) and said == "", said
    assert not any(os.path.exists(f"/proc/{pid}/exe") for pid in pids)


STRIKING = """
import os
import time
from multiprocessing import util

spawn, started = util.spawnv_passfds, 0


def strike(*arguments):
    global started
    pid = spawn(*arguments)
    started += 1
    if started == {process}:
        time.sleep(0.2)  # the process is up and waits to be told
        os.killpg(0, {number})
        time.sleep(0.1)
    return pid


if __name__ == "__main__":
    util.spawnv_passfds = strike
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("process", [1, 2, 3], ids=["tracker", "first", "second"])
def test_signals_in_the_midst_of_a_start(tmp_path, number, process):
    """To the group, when the process is there but has not yet been told what to do."""
    (tmp_path / "stepping.py").write_text(STRIKING.format(process=process, number=int(number)) + STEPPING)
    stopped = started("stepping.py", cwd=tmp_path, ready=lambda process: True)
    _, said = stopped.communicate(timeout=120)
    assert stopped.returncode == 128 + number and said == "", said


POOL = """
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from swg_fast.common.interrupts import end_with_parent

if __name__ == "__main__":
    with ProcessPoolExecutor(2, get_context("spawn"), end_with_parent) as pool:
        list(pool.map(abs, range(4)))
        print("ready", flush=True)
        time.sleep(600)
"""


def test_a_pool_ends_with_its_parent(tmp_path):
    (tmp_path / "pool.py").write_text(POOL)
    process = started("pool.py", cwd=tmp_path, ready=lambda process: process.stdout.readline() == "ready\n")
    process.kill()
    _, said = process.communicate(timeout=120)  # ends when nobody holds the other end any more
    assert "Traceback" not in said, said  # the tracker names the semaphores that it cleans up
