"""Bad input to every command: exit code 2, one line that names the cause, nothing written."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest
import torch
from conftest import make_network, make_recording, run_cli, write_hdf5

from swg_fast import NoiseSchedule
from swg_fast.cli.ending import run
from swg_fast.common.console import print_table
from swg_fast.policy.checkpoint import save_checkpoint
from swg_fast.policy.model import Model

TASK = "antmaze-umaze-v2"
HUGE = 10**12
LONG = "x" * 300

OUTPUTS = {
    "a folder": ("folder", "is a folder"),
    "in no folder": ("none/out.json", "does not exist"),
    "below a file": ("file.txt/out.json", "does not exist"),
    "a long name": (LONG, "too long"),
    "a circle of links": ("circle", "symbolic links"),
    "where nothing can be made": ("/proc/out.json", "cannot"),
    "nobody's home": ("~nobody-of-that-name/out.json", "home directory"),
}
EVALUATE = {
    "plot of unknown type": (["--plot", "out.xyz"], "type .xyz"),
    "plot without type": (["--plot", "out"], "no type"),
    "video of unknown type": (["--video", "out.avi"], "type .avi"),
    "one file twice": (["--json", "out.png", "--plot", "out.png"], "one file"),
    "no candidates": (["-n", 0], "at least 1"),
    "too many candidates": (["-n", HUGE], "at most 4294967296"),
    "half a candidate": (["-n", "1.5"], "must be a whole number or auto"),
    "guidance nan": (["-g", "nan"], "finite"),
    "guidance inf": (["-g", "inf"], "finite"),
    "guidance 1e308": (["-g", "1e308"], "at most 1e+06"),
    "cold": (["--temperature", "-1"], "at least 0"),
    "temperature nan": (["--temperature", "nan"], "finite"),
    "no episodes": (["--episodes", 0], "at least 1"),
    "episodes": (["--episodes", HUGE], "at most"),
    "no envs": (["--envs", 0], "at least 1"),
    "envs": (["--envs", HUGE], "at most"),
    "no workers": (["--workers", 0], "at least 1"),
    "workers": (["--workers", 10**6], "at most"),
    "seed": (["--seed", 2**64], "at most"),
    "seeds": (["--seeds", "a,b"], "seeds"),
    "device tpu": (["--device", "tpu"], "unknown device"),
    "device mps": (["--device", "mps"], "unknown device"),
    "device nonsense": (["--device", "cuda:x"], "unknown device"),
    "dtype": (["--dtype", "int8"], "compute type"),
    "backend": (["--backend", "xla"], "'xla' is not one of"),
    "select": (["--select", "best"], "best"),
    "max_q without critic": (["--policy", "plain", "--select", "max_q"], "needs a critic"),
    "policy of another task": (["--policy", "small"], "trained on it"),
    "no such policy": (["--policy", "none"], "no checkpoint"),
    "a file as policy": (["--policy", "file.txt"], "no checkp"),
    "an empty policy": (["--policy", ""], "empty path names nothing"),
    "a long policy": (["--policy", LONG], "a name that is too long"),
    "nobody's policy": (["--policy", "~nobody-of-that-name/p"], "home directory"),
    "a pipe as policy": (["--policy", "pipe"], "no checkpoint"),
}
TRAIN = {
    **{
        f"{name} {value}": ([f"--{name}", value], word)
        for name, value, word in (
            ("critic-steps", 0, "critic_steps"),
            ("critic-steps", HUGE, "at most"),
            ("critic-batch", 0, "critic_batch"),
            ("critic-batch", HUGE, "at most"),
            ("actor-steps", -1, "actor_steps"),
            ("actor-batch", 10**6, "at most"),
            ("critic-lr", 0, "critic_lr"),
            ("critic-lr", "nan", "critic_lr"),
            ("actor-lr", "inf", "actor_lr"),
            ("actor-lr", 10, "actor_lr"),
            ("discount", 1, "discount"),
            ("discount", -0.5, "discount"),
            ("polyak", 2, "polyak"),
            ("expectile", 0, "expectile"),
            ("expectile", "nan", "expectile"),
            ("dropout", 1, "dropout"),
            ("held-out", 1.5, "held_out"),
            ("ema-rate", 0, "ema_rate"),
            ("weight-decay", -1, "weight_decay"),
            ("hidden-dim", 0, "hidden_dim"),
            ("hidden-dim", 10**7, "at most"),
            ("num-blocks", 1, "second block"),
            ("num-blocks", 10**8, "at most"),
            ("num-steps", 0, "num_steps"),
            ("num-steps", 3 * 10**6, "at most"),
            ("weight-function", "evil", "evil"),
            ("schedule", "steep", "steep"),
            ("weight-head", "late", "late"),
            ("reward-transform", "double", "double"),
            ("precision", "fp8", "fp8"),
            ("seed", -1, "seed"),
            ("seed", 2**64, "at most"),
            ("threads", 10**6, "at most"),
            ("threads", 0, "threads"),
            ("device", "tpu", "unknown device"),
            ("log-every", 0, "log_every"),
            ("save-every", HUGE, "at most"),
            ("logger", "paper", "paper"),
            ("out", "file.txt", "is a file"),
            ("out", "file.txt/run", "is a file"),
            ("out", "/proc/run", "cannot be written"),
            ("out", LONG, "too long"),
            ("config", "none.toml", "cannot be read"),
            ("config", "folder", "regular file"),
            ("config", "pipe", "regular file"),
            ("config", "file.txt", "not valid TOML"),
            ("config", "deep.toml", "not valid TOML"),
            ("dataset", "none.hdf5", "no such file"),
            ("dataset", "", "names nothing"),
            ("dataset", "folder", "is a folder"),
            ("dataset", "file.txt", "not a readable HDF5"),
            ("dataset", "pipe", "not a regular file"),
            ("dataset", "~nobody-of-that-name/d.hdf5", "home directory"),
            ("dataset", "narrow.hdf5", "has states of 29 and actions of 8"),
        )
    },
    "tau": (["--weight-parameter", 1.5], "below 1"),
    "alpha": (["--weight-function", "linex", "--weight-parameter", -1], "above 0"),
    "alpha that overflows": (["--weight-function", "linex", "--weight-parameter", "1e9"], "beyond float32"),
    "a parameter for none": (["--weight-function", "dice", "--weight-parameter", 1], "no parameter"),
    "nothing to resume": (["--dataset", "data.hdf5", "--resume"], "nothing to resume"),
    "more memory than there is": (
        ["--dataset", "data.hdf5", "--hidden-dim", 16384, "--num-blocks", 256],
        "memory",
    ),
    "its own configuration": (["--dataset", "data.hdf5", "--out", "mine"], "would be overwritten"),
    "somebody's states": (["--dataset", "data.hdf5", "--out", "other"], "that no run here has made"),
    "another record": (["--dataset", "data.hdf5", "--out", "strange", "--resume"], "not the record of a run"),
    "a nested record": (["--dataset", "data.hdf5", "--out", "nested", "--resume"], "nested too deeply"),
}
OTHERS = {
    "toy donut": (["toy", "donut"], "unknown toy"),
    "toy guidance": (["toy", "spiral", "-g", "nan"], "finite"),
    "toy steps": (["toy", "spiral", "--steps", HUGE], "at most"),
    "toy T": (["toy", "spiral", "--num-steps", HUGE], "at most 10000"),
    "toy seed": (["toy", "spiral", "--seed", 2**64], "at most"),
    "toy plot": (["toy", "spiral", "--plot", "a.b"], "type .b"),
    "toy cold": (["toy", "spiral", "--temperature", "-1"], "at least 0"),
    "import nothing": (["import-jax", "none", "--out", "o"], "no such folder"),
    "import without files": (["import-jax", "folder", "--out", "o"], "no actor_params"),
    "import into a file": (["import-jax", "folder", "--out", "file.txt"], "is a file"),
    "import T": (["import-jax", "folder", "--out", "o", "--num-steps", HUGE],
                 "num_steps must be at most 10000"),
    "bench sizes": (["bench", "--candidates", "many"], "whole numbers"),
    "bench none": (["bench", "--candidates", 0], "at least 1"),
    "bench many": (["bench", "--candidates", HUGE], "at most"),
    "bench states": (["bench", "--states", HUGE], "at most"),
    "bench width": (["bench", "--hidden-dim", 10**9], "hidden_dim"),
    "bench actions": (["bench", "--action-dim", HUGE], "action_dim"),
    "bench device": (["bench", "--device", "tpu"], "unknown device"),
    "bench guidance": (["bench", "--guidance-scale", "inf"], "finite"),
    "bench plot": (["bench", "--plot", "folder"], "is a folder"),
    "bench backend": (["bench", "--backends", "xla"], "unknown backend"),
    "tune device": (["tune", "--device", "tpu"], "unknown device"),
    "tune states": (["tune", "--states", "x"], "whole numbers"),
    "sweep of a pipe": (["sweep", "pipe", "--out", "o"], "not a regular file"),
    "sweep of a folder": (["sweep", "folder", "--out", "o"], "not a regular file"),
    "sweep of no TOML": (["sweep", "file.txt", "--out", "o"], "not valid TOML"),
    "sweep of deep TOML": (["sweep", "deep.toml", "--out", "o"], "not valid TOML"),
    "report of nothing": (["report", "pipe"], "no such file"),
    "inspect a pipe": (["inspect", "pipe"], "no checkpoint"),
    "no command": (["fly"], "No such command"),
}
COMMANDS = {
    f"evaluate --{option} {name}": (["evaluate", TASK, f"--{option}", path], word)
    for option in ("json", "plot", "video")
    for name, (path, word) in OUTPUTS.items()
    if option == "json" or not path.endswith(".json")
}
COMMANDS |= {f"evaluate {name}": (["evaluate", TASK, *rest], word) for name, (rest, word) in EVALUATE.items()}
COMMANDS |= {f"train {name}": (["train", TASK, *rest], word) for name, (rest, word) in TRAIN.items()}
COMMANDS |= OTHERS


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of files and folders that commands must refuse."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "folder").mkdir()
    (folder / "file.txt").write_text("= no TOML and no HDF5 =\n")
    (folder / "circle").symlink_to("circle")
    os.mkfifo(folder / "pipe")
    (folder / "deep.toml").write_text("a = " + "[" * 100_000)
    write_hdf5(folder / "data.hdf5", make_recording(60, 20))
    write_hdf5(folder / "narrow.hdf5", make_recording(60, 20, states=5, actions=8))
    save_checkpoint(folder / "plain", Model(make_network(29, 8, 16), NoiseSchedule.vp(3)))
    save_checkpoint(folder / "small", Model(make_network(5, 3, 16), NoiseSchedule.vp(3)))
    for name in ("mine", "other/states", "strange", "nested"):
        (folder / name).mkdir(parents=True)
    (folder / "mine" / "config.toml").write_text("# mine\nseed = 1\n")
    (folder / "other" / "states" / "alabama.txt").write_text("")
    (folder / "strange" / "run.json").write_text("[1]")
    (folder / "nested" / "run.json").write_text("[" * 100_000)
    return folder


def contents(folder):
    return sorted((path.relative_to(folder), path.lstat().st_size) for path in folder.rglob("*"))


@pytest.mark.parametrize("name", COMMANDS)
def test_bad_command(name, place):
    arguments, word = COMMANDS[name]
    before = contents(place)
    out = run_cli(*arguments, cwd=place)
    assert out.returncode == 2, (out.stdout, out.stderr)
    assert word in out.stderr and "Traceback" not in out.stderr, out.stderr
    assert out.stderr.startswith("error:") and out.stderr.count("\n") == 1, out.stderr
    assert contents(place) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize(
    "command",
    [["evaluate", TASK], ["train", TASK, "--dataset", "data.hdf5"], ["bench"], ["tune"]],
    ids=lambda command: command[0],
)
def test_no_cuda(command, place):
    out = run_cli(*command, "--device", "cuda", cwd=place)
    assert out.returncode == 2 and "torch sees no CUDA device" in out.stderr and out.stderr.count("\n") == 1


def test_an_output_that_is_full(place):
    with open("/dev/full", "w") as full:
        out = subprocess.run(
            [sys.executable, "-m", "swg_fast", "--version"], cwd=place, text=True, stdout=full,
            stderr=subprocess.PIPE,
        )
    assert out.returncode == 2 and "No space left" in out.stderr and out.stderr.count("\n") == 1, out.stderr


def test_outputs_that_are_closed(monkeypatch):
    """The standard output is closed, as by >&- in a shell."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "argv", ["swg-fast"])
    printed = []
    run(click.Command("tell", callback=lambda: printed.append(print_table("title", [("a", "b")]))))
    assert printed == [None]


def test_memory_that_ran_out_in_torch(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["swg-fast"])
    with pytest.raises(SystemExit) as end:
        run(click.Command("grow", callback=lambda: torch.empty(2**60, dtype=torch.uint8)))
    assert end.value.code == 2 and capsys.readouterr().err.startswith("error: memory ran out")
