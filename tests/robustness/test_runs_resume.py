"""A run resumes from its own states alone: what a file is called does not count, what it says does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_recording, write_hdf5
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_runs import SMALL, small_data, train

from swg_fast import UsageError
from swg_fast.common.interrupts import Stopped, install
from swg_fast.training import run, saved_state
from swg_fast.training.loop import Interrupted, LoopOptions
from swg_fast.training.saved_state import Origin
from swg_fast.training.settings import TrainSettings

STATE = "states/critic-00000020.safetensors"


@pytest.fixture(scope="module")
def data():
    return small_data()


@pytest.fixture(scope="module")
def begun(tmp_path_factory, data):
    """Runs stopped at step 20: two that are alike, one of another seed."""
    folder = tmp_path_factory.mktemp("begun")
    for name, changes in (("mine", {}), ("twin", {}), ("other", {"seed": 1})):
        with pytest.raises(Interrupted):
            train(data, folder / name, changes=changes, stop_after=20)
    return folder


def as_older(path):
    """The file as an older version wrote it: it says its step alone."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata={"state": '{"step": 20}'})


def unnamed(path):
    save_file(load_file(path), path)


def replaced(by):
    return lambda path: shutil.copyfile(path.parents[2] / "begun" / by / STATE, path)


def renamed(name):
    return lambda path: path.rename(path.with_name(f"{name}.safetensors"))


ODD = {
    "a later step's name": (renamed("critic-00000030"), "of step 20"),
    "another seed's": (replaced("other"), "other settings"),
    "a twin's": (replaced("twin"), "another run"),
    "another phase's": (renamed("actor-00000020"), "another phase"),
    "an older version's": (as_older, "another phase"),
    "one that says nothing": (unnamed, "damaged"),
}


@pytest.mark.parametrize("name", ODD)
def test_states_of_others(name, tmp_path, data, begun):
    shutil.copytree(begun, tmp_path / "begun")
    shutil.copytree(begun / "mine", tmp_path / "r")
    change, word = ODD[name]
    change(tmp_path / "r" / STATE)
    with pytest.raises(UsageError, match=word) as error:
        train(data, tmp_path / "r", resume=True)
    assert "\n" not in str(error.value) and "delete it" in str(error.value)
    assert not (tmp_path / "r" / "policy").exists()


@pytest.mark.parametrize("name", ["observations", "next_observations", "actions", "rewards", "terminals"])
def test_data_of_the_same_length(name, tmp_path, data, begun):
    shutil.copytree(begun / "mine", tmp_path / "r")
    array = getattr(data, name).copy()
    array[3] = ~array[3] if array.dtype == bool else array[3] + 0.5
    with pytest.raises(UsageError, match="another dataset"):
        train(replace(data, **{name: array}), tmp_path / "r", resume=True)


def test_the_identity_of_data_counts_shapes(data):
    moved = replace(data, observations=data.observations.reshape(-1, 2))
    assert moved.fingerprint() != data.fingerprint()


def test_an_older_run_goes_on(tmp_path, data, begun):
    shutil.copytree(begun / "mine", tmp_path / "r")
    path = tmp_path / "r" / "run.json"
    text = path.read_text()
    path.write_text(text[:text.index('"transitions"')] + f'"transitions": {len(data)}}}')
    as_older(tmp_path / "r" / STATE)
    mine = load_file(train(data, tmp_path / "r", resume=True) / "model.safetensors")
    shutil.copytree(begun / "mine", tmp_path / "new")
    new = load_file(train(data, tmp_path / "new", resume=True) / "model.safetensors")
    assert all(torch.equal(tensor, mine[name]) for name, tensor in new.items())


def test_a_borrowed_critic_is_held_to_its_data(tmp_path, data, begun):
    settings = TrainSettings(**SMALL | {"critic_steps": 20})
    other = replace(data, rewards=data.rewards * np.float32(0.5))
    options = LoopOptions(tmp_path, log_every=10, save_every=10, progress=False)
    run.train_critic(data, settings, tmp_path / "shared", options=options)
    for critic in (begun / "mine", tmp_path / "shared"):
        with pytest.raises(UsageError, match="other data"):
            run.train(other, settings, tmp_path / "r", critic=critic, options=options)
        assert not (tmp_path / "r").exists()


def test_a_setting_that_comes_later_changes_no_origin():
    """Only settings that are not the default count."""
    assert Origin.of(TrainSettings(), "d") == Origin.of(TrainSettings(seed=0), "d")
    assert Origin.of(TrainSettings(seed=1), "d") != Origin.of(TrainSettings(), "d")
    assert Origin.of(TrainSettings(critic_steps=7), "d").critic == Origin.of(TrainSettings(), "d").critic


def test_ctrl_c_five_times_during_a_save_leaves_a_good_state(tmp_path, data, monkeypatch):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    honest = saved_state.gather_state

    def struck(trainer):
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGINT)
        return honest(trainer)

    monkeypatch.setattr(saved_state, "gather_state", struck)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    install()
    try:
        with pytest.raises((Interrupted, Stopped)):
            train(data, tmp_path / "r")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "r" / "states").iterdir()] == ["critic-00000010.safetensors"]
    train(data, tmp_path / "r", resume=True)


@pytest.mark.slow
def test_a_full_output_does_not_end_a_training(tmp_path):
    write_hdf5(tmp_path / "d.hdf5", make_recording(200, 20))
    small = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    command = [sys.executable, "-m", "swg_fast", "train", "antmaze-umaze-v2", "--dataset", "d.hdf5",
               "--out", "r", "--logger", "none", *small]
    with open("/dev/full", "w") as full:
        out = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=full)
    assert out.returncode == 0 and (tmp_path / "r" / "policy" / "model.safetensors").is_file()
