"""OGBench's npz layout; OGBench itself relabels the rewards for a single task."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from swg_fast.cli.main import main
from swg_fast.common.errors import UsageError
from swg_fast.data import load_dataset
from swg_fast.envs import make_env
from swg_fast.envs.tasks import preset_for

pytest.importorskip("ogbench", reason="ogbench is not installed (extra 'envs')")
TASK = "antmaze-medium-navigate-singletask-v0"


@pytest.fixture(scope="module")
def recording():
    """Three trajectories of five states; the third state of the second is at the task's goal."""
    rng = np.random.default_rng(0)
    env = make_env(TASK)
    env.reset(0)
    qpos = rng.normal(size=(15, 15)) + 200
    qpos[7, :2] = env.goal() + 0.2
    return {"observations": rng.normal(size=(15, 29)).astype(np.float32),
            "actions": rng.uniform(-1, 1, (15, 8)).astype(np.float32),
            "terminals": (np.arange(15) % 5 == 4).astype(np.float32),
            "qpos": qpos.astype(np.float32), "qvel": rng.normal(size=(15, 14)).astype(np.float32)}


@pytest.fixture
def file(recording, tmp_path):
    np.savez(tmp_path / "data.npz", **recording)
    return tmp_path / "data.npz"


def test_transitions(recording, file):
    data = load_dataset(file, task=TASK)
    kept = np.flatnonzero(np.arange(15) % 5 != 4)  # a trajectory's last state begins no step
    np.testing.assert_array_equal(data.observations, recording["observations"][kept])
    np.testing.assert_array_equal(data.next_observations, recording["observations"][kept + 1])
    np.testing.assert_array_equal(data.actions, recording["actions"][kept])
    np.testing.assert_array_equal(data.rewards, np.where(kept == 7, 0, -1))
    np.testing.assert_array_equal(data.terminals, kept == 7)
    np.testing.assert_array_equal(data.episodes, np.repeat([0, 1, 2], 4))
    assert "1 are in success, and terminal" in data.dropped
    settings = preset_for(TASK)
    assert settings.training == {"reward_transform": "none", "expectile": 0.9}
    assert settings.max_episode_steps is None


def test_from_ogbenchs_own_folder(recording, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ogbench" / "data").mkdir(parents=True)
    np.savez(tmp_path / ".ogbench" / "data" / "antmaze-medium-navigate-v0.npz", **recording)
    assert len(load_dataset(TASK)) == 12


def without(key):
    return lambda raw: raw.pop(key)


def poisoned(raw):
    raw["actions"][3, 2] = np.nan


def narrow(raw):
    raw["qpos"] = raw["qpos"][:, :1]


def all_last(raw):
    raw["terminals"][:] = 1


@pytest.mark.parametrize(("edit", "word"), [
    (without("qpos"), "no 'qpos'"), (without("actions"), "no 'actions'"), (poisoned, "NaN"),
    (narrow, r"'qpos' has shape \[12, 1\]"), (all_last, "nothing to learn from")])
def test_files_that_are_not_ogbenchs(recording, tmp_path, edit, word):
    raw = {key: value.copy() for key, value in recording.items()}
    edit(raw)
    np.savez(tmp_path / "bad.npz", **raw)
    with pytest.raises(UsageError, match=word):
        load_dataset(tmp_path / "bad.npz", task=TASK)


@pytest.mark.slow
def test_a_part_that_another_kind_of_task_needs(recording, file):
    """A puzzle's rewards need its buttons, which a maze's file lacks."""
    with pytest.raises(UsageError, match=r"no recording of puzzle.*button_states.*puzzle-3x3-play-v0\.npz"):
        load_dataset(file, task="puzzle-3x3-play-singletask-v0")


def test_unreadable_missing_and_unnamed(file, tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    for name, task, word in (("text.npz", TASK, "not a readable .npz"), ("none.npz", TASK, "no such file"),
                             ("data.npz", "antmaze-umaze-v2", "name its single task"),
                             ("data.npz", None, "name its single task")):
        with pytest.raises(UsageError, match=word):
            load_dataset(tmp_path / name, task=task)


@pytest.mark.parametrize(("arguments", "word"), [
    (["train", "antmaze-medium-navigate-v0"], "is goal-conditioned"),
    (["train", TASK, "--mirror", "http://x"], "works only for D4RL's datasets"),
    (["train", "minari:x/y-v0", "--mirror", "http://x"], "works only for D4RL's datasets"),
    (["train", "minari:x/y-v0", "--observation-keys", "", "--logger", "none"], "is not on this machine"),
    (["train", "Hopper-v5"], "neither a file nor a D4RL dataset"),
    (["train", "visual-cube-single-play-singletask-v0"], "shows pictures"),
    (["train", "hoper"], "unknown environment"),
    (["evaluate", "CartPole-v1"], "Discrete"),
    (["evaluate", "AntMaze_Umaze-v4"], "did you mean AntMaze_UMaze-v4"),
    (["evaluate", "minari:"], "minari: is not on this machine"),
    (["evaluate", "antmaze-umaze-v2 "], "unknown environment"),
])
def test_bad_names_are_one_line(arguments, word, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["swg-fast", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err
    assert end.value.code == 2 and word in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())
