"""Datasets: D4RL's own conversion is the reference; errors name every kind of damage."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import make_recording, write_hdf5

from swg_fast.common.errors import UsageError
from swg_fast.data import load_dataset
from swg_fast.data.download import cached
from swg_fast.data.transitions import Transitions, to_transitions
from swg_fast.data.travel import travel
from swg_fast.envs.d4rl_import import import_d4rl
from swg_fast.training.rewards import transform_rewards


@pytest.mark.parametrize("timeouts", [True, False], ids=["timeouts", "counted"])
@pytest.mark.parametrize("seed", range(4))
def test_same_as_d4rl(seed, timeouts):
    import_d4rl("locomotion")
    from d4rl import qlearning_dataset

    raw = make_recording(400, 37, 4, 2, seed)
    # Terminals at and around the counted limit, the edge cases of D4RL's counter.
    raw["terminals"] = np.random.default_rng(seed).random(400) < (0.05, 0.3, 0.0, 0.02)[seed]
    if not timeouts:
        del raw["timeouts"]
    theirs = qlearning_dataset(SimpleNamespace(_max_episode_steps=10), dataset=dict(raw))
    ours = to_transitions(raw, max_episode_steps=10)
    assert len(ours) == len(theirs["rewards"])
    for key in ("observations", "next_observations", "rewards", "terminals"):
        np.testing.assert_array_equal(getattr(ours, key), theirs[key])
    np.testing.assert_allclose(ours.actions, theirs["actions"].clip(-1 + 1e-5, 1 - 1e-5))


@pytest.mark.slow
def test_a_million_rows_are_quick():
    raw = make_recording(1_000_000, 1000, 29, 8)
    started = time.perf_counter()
    data = to_transitions(raw)
    seconds = time.perf_counter() - started
    assert len(data) == 999_000
    assert "1000 of 1000000" in data.dropped and "time-out" in data.dropped
    print(f"a million rows: {seconds:.2f} s")


def test_a_terminal_ends_an_episode_unless_the_recording_goes_on():
    raw = make_recording(60, 20)
    raw["terminals"] = np.isin(np.arange(60), (4, 5, 30))
    np.testing.assert_array_equal(np.bincount(to_transitions(raw).episodes), [5, 1, 13, 11, 8, 19])
    going_on = to_transitions(raw, continues_after_terminal=True)
    np.testing.assert_array_equal(np.bincount(going_on.episodes), [19, 19, 19])
    assert going_on.terminals.sum() == 3


def test_split_keeps_episodes_whole():
    data = to_transitions(make_recording())
    training, held_out = data.split(0.25, seed=1)
    assert len(training) + len(held_out) == len(data) and len(held_out) > 0
    assert not set(training.episodes) & set(held_out.episodes)


def damage(name, raw):
    if name == "nan":
        raw["observations"][5, 2] = np.nan
    elif name == "infinite_reward":
        raw["rewards"][7] = np.inf
    elif name == "length":
        raw["actions"] = raw["actions"][:-3]
    elif name == "missing":
        del raw["rewards"]
    elif name == "dtype":
        raw["actions"] = raw["actions"].astype(np.int64)
    elif name == "text":
        raw["terminals"] = np.array([b"no"] * len(raw["rewards"]))
    elif name == "shape":
        raw["rewards"] = np.zeros((len(raw["terminals"]), 2), np.float32)
    elif name == "empty":
        for key in raw:
            raw[key] = raw[key][:1]
    return raw


@pytest.mark.parametrize("name,word", [
    ("nan", "NaN or infinity in 1 of 600"), ("infinite_reward", "'rewards' has NaN or infinity"),
    ("length", "597 rows"), ("missing", "no 'rewards'"), ("dtype", "int64"), ("text", "dtype"),
    ("shape", "shape"), ("empty", "at least two")])
def test_damage_is_named(tmp_path, name, word):
    path = write_hdf5(tmp_path / "bad.hdf5", damage(name, make_recording()))
    with pytest.raises(UsageError, match=word) as error:
        load_dataset(path)
    assert "\n" not in str(error.value) and "bad.hdf5" in str(error.value)


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        load_dataset(tmp_path / "none.hdf5")
    (tmp_path / "text.hdf5").write_text("hello")
    with pytest.raises(UsageError, match="not a readable HDF5"):
        load_dataset(tmp_path / "text.hdf5")
    with pytest.raises(UsageError, match="neither a file nor a D4RL dataset"):
        load_dataset("antmaze-nowhere-v2")
    raw = make_recording()
    del raw["timeouts"]
    with pytest.raises(UsageError, match="timeouts"):
        load_dataset(write_hdf5(tmp_path / "untimed.hdf5", raw))


def test_task_name_reads_d4rl_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    file = write_hdf5(cached("antmaze-medium-play-v2"), make_recording())
    assert load_dataset("antmaze-medium-play-v2").observations.shape[1] == 29
    write_hdf5(cached("antmaze-umaze-v2"), make_recording())
    with pytest.raises(UsageError, match="is not D4RL's file .* or give its path to --dataset"):
        load_dataset("antmaze-umaze-v2")
    assert load_dataset(cached("antmaze-umaze-v2")).observations.shape[1] == 29  # no task's name, so no hash
    write_hdf5(file, make_recording(seed=1))
    with pytest.raises(UsageError, match="is not the file that was first used here"):
        load_dataset("antmaze-medium-play-v2")


def test_travel_is_within_the_episode():
    """A walk of 0.1 m a step, one that stands still after 30, and one of a single step."""
    place = np.concatenate([0.1 * np.arange(50), 100 + 0.1 * np.minimum(np.arange(60), 30), [7.0]])
    episodes = np.repeat([0, 1, 2], [50, 60, 1]).astype(np.int32)
    observations = np.stack([place, np.zeros(111), np.arange(111.0)], axis=1).astype(np.float32)
    some = np.zeros((111, 1), np.float32)
    data = Transitions(observations, some, observations, some[:, 0], some[:, 0] > 0, episodes)
    metres = travel(data)
    np.testing.assert_allclose(metres[:70], 2.0, rtol=1e-4)  # at the ends too
    np.testing.assert_allclose(metres[[80, 85]], [1.0, 0.5], rtol=1e-4)
    assert metres[90:].max() < 1e-4


def test_reward_transforms():
    data = to_transitions(make_recording())
    np.testing.assert_array_equal(transform_rewards(data, "minus_one"), data.rewards - 1)
    assert transform_rewards(data, "none") is data.rewards
    scaled = transform_rewards(data, "return_range")
    returns = np.bincount(data.episodes, weights=scaled)
    assert returns.max() - returns.min() == pytest.approx(1000, rel=1e-5)
    with pytest.raises(UsageError, match="unknown reward transform"):
        transform_rewards(data, "log")
