"""The command line: bad input gives one line and exit code 2, good input leaves whole files."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import numpy as np
import pytest
from conftest import make_recording, run_cli, write_hdf5

from swg_fast.cli.main import COMMANDS, cli


def swg_fast(*arguments, cwd, process=False):
    """Runs the command in this process, which is quick, or in a separate one."""
    if not process:
        return run_cli(*arguments, cwd=cwd)
    return subprocess.run([sys.executable, "-m", "swg_fast.cli.main", *map(str, arguments)], cwd=cwd,
                          capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("command", ["", "train", "evaluate", "toy", "import-jax", "info", "bench"])
def test_help(command, tmp_path):
    out = swg_fast(*command.split(), "--help", cwd=tmp_path)
    assert out.returncode == 0 and "Usage" in out.stdout


@pytest.mark.parametrize("command", [each for each in cli.commands])
def test_every_option_has_help_and_a_section(command):
    context = click.Context(cli.commands[command])
    options = [each for each in cli.commands[command].get_params(context) if isinstance(each, click.Option)]
    assert options and all(each.help for each in options)
    said = cli.commands[command].get_help(context)
    assert all(each.opts[-1] in said for each in options)


def test_the_commands_are_in_groups_and_nothing_is_cut(tmp_path):
    said = swg_fast("--help", cwd=tmp_path).stdout
    assert said.index("Start here:") < said.index("Experiments:") < said.index("Kernel developers:")
    assert "..." not in said.partition("Start here")[2]
    assert sorted(each.name for group in COMMANDS.values() for each in group) == sorted(cli.commands)
    train = swg_fast("train", "--help", cwd=tmp_path).stdout
    assert [title for title in ("Data:", "Critic:", "Weights, network and diffusion:", "Run:", "Options:")
            if f"\n{title}\n" in train] == ["Data:", "Critic:", "Weights, network and diffusion:", "Run:"]


def test_help_does_not_wait_for_torch(tmp_path):
    program = ("import sys; from swg_fast.cli.main import cli\n"
               "cli(['evaluate', '--help'], standalone_mode=0); "
               "print('torch' in sys.modules, 'numpy' in sys.modules)")
    out = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert out.stdout.splitlines()[-1] == "False False", out.stderr


def nan_file(folder):
    raw = make_recording()
    raw["actions"][3, 1] = np.nan
    return write_hdf5(folder / "nan.hdf5", raw)


BAD = {
    "missing dataset": (["train", "antmaze-umaze-v2", "--dataset", "none.hdf5"], "no such file"),
    "nan dataset": (["train", "antmaze-umaze-v2", "--dataset", "nan.hdf5"], "NaN"),
    "unknown task": (["train", "antmaze-nowhere-v2"], "did you mean antmaze-"),
    "unknown env": (["evaluate", "antmaze-nowhere-v2"], "unknown environment"),
    "no policy": (["evaluate", "antmaze-umaze-v2", "--policy", "none"], "no checkpoint"),
    "no candidates": (["evaluate", "antmaze-umaze-v2", "-n", "0"], "at least 1"),
    "bad backend": (["evaluate", "antmaze-umaze-v2", "--backend", "xla"], "'xla' is not one of"),
    "no folder": (["evaluate", "antmaze-umaze-v2", "--json", "no/such/out.json"], "folder"),
    "unknown toy": (["toy", "donut"], "unknown toy data"),
    "no jax files": (["import-jax", ".", "--out", "o"], "no actor_params"),
    "bad option": (["evaluate", "--nonsense"], "No such option"),
    "bad sizes": (["bench", "--candidates", "many"], "whole numbers"),
    "a backend's type beside another": (["bench", "--backends", "torch:bf17,cpu", "--candidates", "16"],
                                        "torch:bf17 cannot be measured here"),
    "no peer": (["bench", "--backends", "xla", "--candidates", "16"], "unknown backend"),
    "bad batch": (["train", "antmaze-umaze-v2", "--actor-batch", "0"], "actor_batch"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, tmp_path):
    nan_file(tmp_path)
    before = sorted(tmp_path.iterdir())
    arguments, word = BAD[name]
    out = swg_fast(*arguments, cwd=tmp_path)
    assert out.returncode == 2, out.stderr
    assert word in out.stderr and "Traceback" not in out.stderr
    if not name.startswith("bad option"):
        assert out.stderr.strip().count("\n") == 0
    assert sorted(tmp_path.iterdir()) == before  # nothing half-written


@pytest.mark.slow
def test_train_then_evaluate(tmp_path):
    write_hdf5(tmp_path / "data.hdf5", make_recording())
    small = ["--critic-steps", 20, "--actor-steps", 20, "--critic-batch", 16, "--actor-batch", 16,
             "--hidden-dim", 32, "--num-steps", 3, "--log-every", 10]
    train = ["train", "antmaze-umaze-v2", "--dataset", "data.hdf5", "--out", "run", *small]
    stopped = swg_fast(*train, "--stop-after", 10, cwd=tmp_path)
    assert stopped.returncode == 130 and "--resume" in stopped.stderr
    done = swg_fast(*train, "--resume", cwd=tmp_path, process=True)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "run" / "logs").glob("events*"))
    out = swg_fast("evaluate", "antmaze-umaze-v2", "--policy", "run/policy", "-n", 2, "--episodes", 1,
                   "--json", "out.json", "--plot", "out.png", "--quiet", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    summary = json.loads((tmp_path / "out.json").read_text())
    assert summary["settings"]["n_candidates"] == 2 and len(summary["returns"]) == 1
    assert "normalized score" in out.stdout
    assert (tmp_path / "out.png").stat().st_size > 10_000
    assert not list(tmp_path.rglob("*.part*"))


@pytest.mark.slow
def test_untrained_tasks_step_and_report(tmp_path):
    out = swg_fast("evaluate", "pen-human-v1", "-n", 1, "-g", 0, "--episodes", 1, "--quiet",
                   "--json", "out.json", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    assert "UNTRAINED" in out.stderr
    assert json.loads((tmp_path / "out.json").read_text())["policy"] == "untrained"


def test_info(tmp_path):
    out = swg_fast("info", "--no-environments", cwd=tmp_path)
    assert out.returncode == 0 and "torch" in out.stdout and "antmaze-large-play-v2" in out.stdout
    assert max(map(len, out.stdout.splitlines())) <= 100


SMALL_BENCH = ("bench", "--state-dim", 3, "--action-dim", 2, "--hidden-dim", 64, "--states", 1,
               "--dtypes", "fp32", "--quiet")


@pytest.mark.slow
def test_bench_goes_on_without_a_peer_that_fails(tmp_path, monkeypatch):
    checkout = tmp_path / "checkout" / "src" / "models"
    checkout.mkdir(parents=True)
    (checkout / "diffusion_model.py").write_text("raise RuntimeError('not this one')")
    modules = tmp_path / "modules"
    modules.mkdir()
    for name in ("jax", "flax"):  # stand-ins, so that the peer counts as installed
        (modules / name).mkdir()
        (modules / name / "__init__.py").write_text("")
        (modules / name / "linen.py").write_text("")
    (modules / "jax" / "numpy.py").write_text("")
    monkeypatch.syspath_prepend(modules)
    monkeypatch.setenv("PYTHONPATH", str(modules))  # for the processes that measure
    out = swg_fast(*SMALL_BENCH, "--candidates", 16, "--backends", "torch,swg-jax", "--repeats", 1, "--json",
                   "b.json", "--swg-jax", tmp_path / "checkout", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    assert "not this one" in out.stdout
    assert {row["backend"] for row in json.loads((tmp_path / "b.json").read_text())["results"]} == {"torch"}


@pytest.mark.slow
def test_bench_rows(tmp_path):
    out = swg_fast(*SMALL_BENCH, "--candidates", "16,40", "--backends", "reference,cpu", "--repeats", 2,
                   "--json", "b.json", "--plot", "b.png", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    result = json.loads((tmp_path / "b.json").read_text())
    rows = result["results"]
    assert {(row["backend"], row["n_candidates"]) for row in rows} == {
        (b, n) for b in ("reference", "cpu") for n in (16, 40)}
    for row in rows:
        assert row["candidates_per_second"] > 0 and row["milliseconds"] > 0 and row["peak_bytes"] > 0
        assert row["backend"] != "reference" or row["speedup_over_reference"] == 1
        assert 0 < row["percent_of_ceiling"] < 100
    assert (tmp_path / "b.png").stat().st_size > 10_000
