"""A run's folder, and its divergence."""

from __future__ import annotations

import fcntl
import math
from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import load_file
from small_runs import small_data, train

from swg_fast import UsageError
from swg_fast.method.weight_functions import WEIGHT_FUNCTIONS
from swg_fast.training import run
from swg_fast.training.loop import Diverged, Interrupted
from swg_fast.training.settings import TrainSettings


@pytest.fixture(scope="module")
def data():
    return small_data()


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
