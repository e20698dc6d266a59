"""A run prepared in Python, without the command line."""

from __future__ import annotations

import pytest
from conftest import make_recording, write_hdf5

from swg_fast import UsageError
from swg_fast.policy.policy import load_policy
from swg_fast.training.prepare import prepare_run

TASK = "antmaze-umaze-v2"
SMALL = {"critic_steps": 4, "critic_batch": 8, "actor_steps": 4, "actor_batch": 8, "hidden_dim": 16,
         "num_steps": 3, "device": "cpu", "logger": "none"}


def test_a_prepared_run_trains_a_policy(tmp_path, monkeypatch):
    write_hdf5(tmp_path / "ant.hdf5", make_recording(states=29, actions=8))
    monkeypatch.chdir(tmp_path)
    run = prepare_run(TASK, dataset="ant.hdf5", **SMALL)
    assert run.out.name == TASK and run.options.dataset == str(tmp_path / "ant.hdf5")
    assert run.settings.expectile == 0.9  # the preset's
    card = load_policy(run.train()).card
    assert (card["task"], card["dataset"]) == (TASK, "ant.hdf5") and "make_it_again" not in card


def test_no_task(tmp_path):
    with pytest.raises(UsageError, match="no TASK"):
        prepare_run(out=tmp_path)
