"""Where a command is called from: a terminal without UTF-8, few open files, a notebook, a burst of Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import make_recording, write_hdf5
from odd_environments import Plain
from small_runs import SMALL, train

from swg_fast import NoiseSchedule, Policy, ScoreNetwork, evaluate
from swg_fast.data import load_dataset
from swg_fast.envs.settings import ENDLESS
from tests.emulator import compiling

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parent
PLAY = ("evaluate", "Pendulum-v1", "--episode-limit", "3", "-n", "1", "--quiet", "--json", "é.json")
INSPECT = ("inspect", "run", "--task", "hopper-medium-v2", "--dataset", "data.hdf5", "--states", "4",
           "-n", "4")
NOTEBOOK = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
COMMANDS = {
    "a notebook's terminal without UTF-8": (
        NOTEBOOK | ASCII, "", (*PLAY, "--episodes", "1", "--plot", "é.png"), ["é.json", "é.png"]),
    "few open files": ({}, "ulimit -n 24;", (*PLAY, "--episodes", "4", "--workers", "4"), ["é.json"]),
    "a notebook's inspection": (NOTEBOOK, "", INSPECT, ["run/inspect/value.png", "run/inspect/inspect.json"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_runs_wherever_it_is_called_from(name, tmp_path):
    changes, before, arguments, files = COMMANDS[name]
    if arguments is INSPECT:
        data = load_dataset(write_hdf5(tmp_path / "data.hdf5", make_recording(200, 20, 11, 3)))
        train(data, tmp_path / "run")
    command = f'{before} exec "$0" "$@"'
    done = subprocess.run(["sh", "-c", command, sys.executable, "-m", "swg_fast", *arguments], cwd=tmp_path,
                          env=os.environ | changes, capture_output=True, timeout=120)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    assert all((tmp_path / file).stat().st_size > 0 for file in files)


CELL = """
import gymnasium as gym
from swg_fast import NoiseSchedule, Policy, ScoreNetwork, evaluate

class Own({base}):
    last = 1

gym.register("Own-v0", Own, max_episode_steps=5)
policy = Policy(ScoreNetwork(3, 1, 16, 2), NoiseSchedule.vp(2))
steps = evaluate(policy, "Own-v0", episodes=2, workers=1, n_candidates=1, progress=False).env_steps
"""


def test_an_evaluation_runs_in_a_notebooks_cell(tmp_path):
    """The cell's module has no file, and its class is known to no child process by name."""
    source = (TESTS / "odd_environments.py").read_text().partition("\n\nclass NanReward")[0]
    cell = source.replace("from __future__ import annotations\n", "") + CELL.format(base="Plain")
    shell = f"""
cell = {cell!r}
try:
    from IPython.core.interactiveshell import InteractiveShell
    shell = InteractiveShell.instance()
    shell.run_cell(cell).raise_error()
    print(shell.user_ns["steps"])
except ImportError:
    from code import InteractiveConsole
    names = {{"__name__": "__main__"}}
    InteractiveConsole(names).runcode(compile(cell, "<cell>", "exec"))
    print(names["steps"])
"""
    done = subprocess.run([sys.executable, "-"], input=shell, cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | {"IPYTHONDIR": str(tmp_path)}, timeout=120)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


def heard():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_burst_of_ctrl_c_ends_a_run_once(tmp_path):
    write_hdf5(tmp_path / "data.hdf5", make_recording(200, 20))
    small = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items() if name != "critic_steps"]
    process = subprocess.Popen(
        [sys.executable, "-m", "swg_fast", "train", "antmaze-umaze-v2", "--dataset", "data.hdf5", "--out",
         "run", "--logger", "none", *small, "--critic-steps", str(10**6), "--save-every", "20"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    while not list(tmp_path.glob("run/states/*.safetensors")) and process.poll() is None:
        time.sleep(0.02)
    for _ in range(5):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said, said
    assert said.splitlines()[-1].startswith("critic stopped at step") and said.count("--resume") == 1
    assert not list(tmp_path.rglob("*.part*"))


def test_an_episode_without_a_limit_ends(monkeypatch):
    monkeypatch.setattr("swg_fast.evaluation.episodes.ENDLESS", 7)
    policy = Policy(ScoreNetwork(3, 1, 16, 2), NoiseSchedule.vp(2))
    assert ENDLESS == 10_000 and Plain.last == 10
    with pytest.warns(UserWarning, match="Endless-v0 has no time limit.*after 7 steps.*--episode-limit"):
        found = evaluate(policy, "Endless-v0", episodes=2, workers=1, n_candidates=1, progress=False)
    assert [episode.length for episode in found.episodes] == [7, 7]
    assert found.settings["episode_limit"] == 7


def test_a_compiling_process_takes_no_module_of_the_current_folder(tmp_path, monkeypatch):
    for module in ("multiprocessing", "numpy", "json"):
        (tmp_path / f"{module}.py").write_text("open('ran', 'w')\nraise SystemExit('ran')")
    monkeypatch.chdir(tmp_path)
    process = compiling._process.__wrapped__()
    with process:
        assert process.submit(abs, -3).result() == 3
    assert not (tmp_path / "ran").exists()
