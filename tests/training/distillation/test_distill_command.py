"""`swg-fast distill`, and what other commands make of its runs: good input, and bad input in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
import torch
from conftest import make_network, make_recording, run_cli, write_hdf5
from small_students import FAMILY, same_weights

from swg_fast import NoiseSchedule, Policy, TwinQ, ValueNetwork, load_policy
from swg_fast.kernels.cpu.network_onednn import has_native_bf16
from swg_fast.training.distillation.settings import DistillOptions, DistillSettings
from swg_fast.training.run_config import config_fields

TASK = "Pendulum-v1"  # states of 3, actions of 1
SMALL = ["--dataset", "data.hdf5", "--steps", 20, "--batch", 8, "--pairs", 200, "--threads", 1]
LOOK = ["--states", 4, "-n", 4, "--quiet"]
PLAY = [TASK, "--episodes", 1, "--episode-limit", 3, "-n", 4, "--workers", 1, "--quiet"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Teachers, data, and runs: a student alone, one beside its teacher, one that was stopped."""
    folder = tmp_path_factory.mktemp("place")
    torch.manual_seed(0)
    parts = {"critic": TwinQ(3, 1, 16), "value": ValueNetwork(3, 16)}
    for name, width, card in (("teacher", 0, {}), ("family", 3, {"weight_family": FAMILY})):
        Policy(make_network(3 + width, 1, 16, 2), NoiseSchedule.vp(4), card=card | {"task": TASK}, **parts
               ).save(folder / name)
    write_hdf5(folder / "data.hdf5", make_recording(200, 20, 3, 1))
    write_hdf5(folder / "wide.hdf5", make_recording(60, 20, 4, 1))
    (folder / "bad.toml").write_text("gidance_scale = 2.0\n")
    (folder / "wrong.toml").write_text("guidance_range = [2.0]\n")
    for name, more, code in (("alone", [], 0), ("both", ["--with-teacher"], 0),
                             ("half", ["--stop-after", 7], 130)):
        out = run_cli("distill", "teacher", *SMALL, *more, "--out", name, cwd=folder)
        assert out.returncode == code, out.stderr
    shutil.copytree(folder / "half", folder / "drawing")  # as it is while pairs are drawn
    for name in ("states", "logs"):
        shutil.rmtree(folder / "drawing" / name)
    return folder


def test_every_setting_is_an_option_with_help():
    text = run_cli("distill", "--help", cwd=".").stdout
    for name, entry in config_fields(DistillSettings, DistillOptions).items():
        assert name == "teacher" or f"--{name.replace('_', '-')} " in text, name
        assert entry.metadata["help"].endswith("."), name


def test_a_run_writes_the_file_that_gives_it_again(place, tmp_path):
    """From another folder, with what was no default; the card says how."""
    chosen = ["--guidance-range", 0.5, 2.0, "--calls", 2, "--hidden-dim", 24, "--sampler", "ddim",
              "--cold-share", 0.5, "--with-teacher", "--keep-pairs"]
    first = run_cli("distill", "teacher", *SMALL, *chosen, "--out", tmp_path / "first", cwd=place)
    assert first.returncode == 0, first.stderr
    again = run_cli("distill", "--config", tmp_path / "first" / "config.toml", "--out", "again", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert same_weights(tmp_path / "first" / "policy", tmp_path / "again" / "policy")
    assert len({(tmp_path / run / "config.toml").read_text() for run in ("first", "again")}) == 1
    card = json.loads((tmp_path / "first" / "policy" / "model_card.json").read_text())
    assert card["make_it_again"].startswith("swg-fast distill teacher --dataset data.hdf5 --steps 20")
    other = run_cli("distill", "--config", tmp_path / "first" / "config.toml", "--calls", 1, "--out", "other",
                    cwd=tmp_path)
    assert other.returncode == 0 and len(load_policy(tmp_path / "other" / "policy").model.walk.steps) == 1


def test_a_stopped_run_goes_on(place, tmp_path):
    """At steps, by --stop-after: what it ends in is what one that was left alone ends in."""
    stopped = run_cli("distill", "teacher", *SMALL, "--stop-after", 7, "--out", tmp_path / "r", cwd=place)
    assert stopped.returncode == 130 and "stopped at step 7 of 20" in stopped.stderr
    resumed = run_cli("distill", "teacher", *SMALL, "--out", tmp_path / "r", "--resume", cwd=place)
    assert resumed.returncode == 0 and same_weights(tmp_path / "r" / "policy", place / "alone" / "policy")


def test_other_commands_take_a_student(place):
    for policy, more in (("alone/policy", []), ("both/policy", ["--finish", 2]), ("both/policy",
                         ["--sampler", "ddpm"])):
        out = run_cli("evaluate", *PLAY, "--policy", policy, *more, cwd=place)
        assert out.returncode == 0 and "mean return" in out.stdout, out.stderr
    out = run_cli("inspect", "alone", *LOOK, "--out", "seen", cwd=place)
    assert out.returncode == 0, out.stderr
    figures = json.loads((place / "seen" / "inspect.json").read_text())
    assert "guidance 1" in figures["weights"] and "guidance 0" not in figures["weights"]
    assert "student" in figures["losses"]


DISTILL = {
    "no teacher": ([], "no teacher; name a policy or a run"),
    "nobody": (["none"], "no checkpoint at 'none'"),
    "a student": (["alone"], "is a student itself"),
    "a student's folder": (["alone/policy"], "is a student itself"),
    "a run under way": (["half"], "has no policy yet"),
    "a stochastic walk": (["teacher", "--sampler", "ddpm"], "'ddpm' is not one of"),
    "a student as walk": (["teacher", "--sampler", "student"], "'student' is not one of"),
    "more steps than trained": (["teacher", "--sampler-steps", 5], "sampler_steps must be in 1..4"),
    "more calls than steps": (["teacher", "--sampler-steps", 2, "--calls", 4], "use fewer calls"),
    "no calls": (["teacher", "--calls", 0], "at least 1"),
    "a range turned round": (["teacher", "--guidance-range", 2, 1], "give the lower end"),
    "a range of one": (["teacher", "--guidance-range", 1, 1], "give the lower end"),
    "both": (["teacher", "--guidance-range", 1, 2, "--guidance-scale", 1], "give one of them"),
    "an infinite scale": (["teacher", "--guidance-scale", "inf"], "finite"),
    "no pairs": (["teacher", "--pairs", 0], "at least 1"),
    "too many pairs": (["teacher", "--pairs", 2**31], "memory"),
    "no steps": (["teacher", "--steps", 0], "at least 1"),
    "a rate of nothing": (["teacher", "--learning-rate", 0], "learning_rate"),
    "all held out": (["teacher", "--held-out", 1], "held_out"),
    "one block": (["teacher", "--num-blocks", 1], "second block"),
    "more memory than there is": (["teacher", "--hidden-dim", 16384, "--num-blocks", 256], "--num-blocks"),
    "a wide student": (["teacher", "--hidden-dim", 10**7], "at most"),
    "another dataset": (["teacher", "--dataset", "wide.hdf5"], "give the dataset of its task"),
    "no data": (["teacher", "--dataset", "none.hdf5"], "no such file"),
    "an unknown key": (["--config", "bad.toml"], "unknown key 'gidance_scale'; did you mean"),
    "half a range": (["teacher", "--config", "wrong.toml"], "guidance_range"),
    "a device": (["teacher", "--device", "tpu"], "unknown device"),
    "a logger": (["teacher", "--logger", "paper"], "paper"),
    "its own run": (["teacher", "--out", "alone"], "already holds a run"),
    "another's folder": (["teacher", "--out", "teacher/model_card.json"], "is a file"),
    "nothing to resume": (["teacher", "--resume"], "nothing to resume"),
    "other settings": (["teacher", "--seed", 3, "--out", "half", "--resume"], "other settings (seed)"),
    "another teacher": (["family", "--out", "half", "--resume"], "other settings (teacher)")}
TRAIN = ["train", TASK, "--dataset", "data.hdf5", "--logger", "none"]
OTHERS = {
    "train over a student": ([*TRAIN, "--out", "half"], "already holds a run"),
    "train over pairs": ([*TRAIN, "--out", "drawing"], "already holds a run"),
    "train on": ([*TRAIN, "--out", "half", "--resume"], "holds a distillation, expected a training"),
    "a critic of it": ([*TRAIN, "--out", "n", "--critic", "half"], "holds a distillation"),
    "inspect one that draws pairs": (["inspect", "drawing", *LOOK], "has logged no step yet"),
    "inspect unguided": (["inspect", "alone", *LOOK, "-g", 0], "has learnt guidance_scale=1"),
    "evaluate half": (["evaluate", *PLAY, "--policy", "half"], "no checkpoint"),
    "evaluate a walk": (["evaluate", *PLAY, "--policy", "alone/policy", "--sampler", "ddpm"],
                        "has no diffusion"),
    "finish alone": (["evaluate", *PLAY, "--policy", "alone/policy", "--finish", 2], "needs the diffusion"),
    "a tree": (["evaluate", *PLAY, "--policy", "both/policy", "--leaves", 2], "share no steps"),
    "finish too many": (["evaluate", *PLAY, "--policy", "both/policy", "--finish", 5], "of 4 candidates")}
COMMANDS = {f"distill {name}": (["distill", *SMALL, "--out", "new", *rest], word)
            for name, (rest, word) in DISTILL.items()} | OTHERS
if not has_native_bf16():
    COMMANDS["distill bf16"] = (["distill", "teacher", *SMALL, "--precision", "bf16", "--out", "new"],
                                "no native bf16")


def contents(folder):
    """Every file and folder; of files what they hold."""
    return {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@pytest.mark.parametrize("name", COMMANDS)
def test_bad_input_is_one_line_before_any_work(name, place):
    arguments, word = COMMANDS[name]
    before = contents(place)
    out = run_cli(*arguments, cwd=place)
    notes = [line for line in out.stderr.splitlines() if not line.startswith("190 transitions")]
    assert out.returncode == 2 and word in out.stderr, (out.stdout, out.stderr)
    assert len(notes) == 1 and notes[0].startswith("error:"), out.stderr
    assert contents(place) == before


@pytest.mark.slow
@pytest.mark.waits
def test_kill_9_while_learning(place, tmp_path):
    """A process of its own, killed after its first saved state, and resumed."""
    steps = [*SMALL, "--steps", 1500, "--save-every", 50]
    command = [sys.executable, "-m", "swg_fast", *map(str, ["distill", "teacher", *steps])]
    killed = subprocess.Popen([*command, "--out", str(tmp_path / "r")], cwd=place, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("r/states/*.safetensors")):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -9 and not os.path.exists(tmp_path / "r" / "policy")
    run_cli("distill", "teacher", *steps, "--out", tmp_path / "r", "--resume", cwd=place)
    run_cli("distill", "teacher", *steps, "--save-every", 4000, "--out", tmp_path / "s", cwd=place)
    assert same_weights(tmp_path / "r" / "policy", tmp_path / "s" / "policy")
