"""A user's own data and environment: trained from arrays, evaluated in the environment's units."""

from __future__ import annotations

import json
import tomllib

import gymnasium
import numpy as np
import pytest
import torch
from conftest import make_recording, run_cli, write_hdf5
from robot import Robot, recorded

import swg_fast
from swg_fast import NoiseSchedule, Policy, ScoreNetwork, UsageError, evaluate
from swg_fast.common.errors import Note
from swg_fast.evaluation.report import evaluation_json, evaluation_rows, plot_episodes
from swg_fast.training.history import read_history

TINY = {"critic_steps": 20, "actor_steps": 20, "critic_batch": 16, "actor_batch": 16, "hidden_dim": 16,
        "num_blocks": 2, "num_steps": 3, "logger": "none", "device": "cpu", "quiet": True}
DRAWS = {"n_candidates": 2, "guidance_scale": 1.0, "temperature": 1.0, "progress": False}
BOUNDS = {"action_bounds": {"low": [-1.0], "high": [3.0]}}


def untrained(card=None):
    """The same network each time."""
    torch.manual_seed(0)
    return Policy(ScoreNetwork(2, 1, 16, 2), NoiseSchedule.vp(2), card=card)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("environment", [Robot, Robot(), Robot.action_space], ids=["class", "one", "space"])
def test_arrays_train_a_policy_with_the_environments_bounds(here, environment):
    policy = swg_fast.train("my robot / 1", environment=environment, **recorded(), **TINY)
    assert policy.bounds.to_card() == BOUNDS["action_bounds"] == policy.card["action_bounds"]
    assert policy.card["task"] == "my robot / 1" and policy.card["transitions"] == 300
    config = tomllib.loads((here / "runs" / "my robot - 1" / "config.toml").read_text())
    assert (config["action_low"], config["action_high"], config["new_task"]) == ([-1.0], [3.0], True)
    action, _ = policy.predict(np.zeros(2), seed=0)
    assert Robot.action_space.contains(action)
    assert policy.action_space == Robot.action_space


@pytest.mark.slow
def test_a_constant_action_is_played_in_its_own_units(here):
    """The recorded force is 2 of -1 to 3: the policy's is about 2 in `predict` and in the environment."""
    arrays = recorded(force=2.0)
    sizes = TINY | {"actor_steps": 400, "actor_batch": 64, "hidden_dim": 32, "actor_lr": 3e-3, "dropout": 0.0}
    policy = swg_fast.train(environment=Robot, out=here / "run", **arrays, **sizes)
    played = policy.predict(arrays["observations"][:100], seed=0, n_candidates=1, guidance_scale=0.0)[0]
    assert abs(float(played.mean()) - 2.0) < 0.25
    env = Robot()
    result = evaluate(policy, env, episodes=2, **DRAWS)
    assert abs(np.mean(env.forces) - 2.0) < 0.4
    assert abs(np.mean(result.episodes[0].actions) - 2.0) < 0.4


class Spaceless(gymnasium.Env):
    """An environment that does not say what it takes and gives."""


BAD = {
    "no bounds": ({}, "beyond 1, and the bounds .* action_low"),
    "half of the bounds": ({"action_low": -1}, "belong together"),
    "bounds of other actions": ({"action_low": [-1, -1], "action_high": 3}, "2 entries for actions of 1"),
    "bounds in words": ({"action_low": "low", "action_high": 3}, "give one number"),
    "a dataset too": ({"dataset": "x.hdf5"}, "arrays and dataset= were given"),
    "no name": ({"name": ".."}, "is no name for a run"),
    "a name of a task of other sizes": ({"name": "hopper-medium-v2", "action_low": -1, "action_high": 3},
                                        "observations of 2 and actions of 1"),
    "no environment": ({"environment": 3}, "task is 3; give a task's name"),
    "a function that fails": ({"environment": lambda: 1 / 0}, "failed .ZeroDivisionError"),
    "a function that makes none": ({"environment": dict}, "is no Gymnasium environment"),
    "an environment without spaces": ({"environment": Spaceless}, "no observation_space and no action_space"),
    "an unknown setting": ({"critic_stepz": 3}, "critic_stepz"),
    "scores without an environment": ({"action_low": -1, "action_high": 3, "eval_every": 10}, "own-data"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(here, name):
    change, word = BAD[name]
    with pytest.raises(UsageError, match=word) as error:
        swg_fast.train(**recorded(3) | TINY | change)
    assert "\n" not in str(error.value) and not list(here.iterdir())


def test_contradictions_are_shown_and_strict_refuses(here, capsys):
    arrays = recorded() | {"rewards": np.zeros(300), "timeouts": np.zeros(300)}
    sizes = TINY | {"quiet": False}
    with pytest.raises(UsageError, match="contradict themselves: in 29 of 300 rows .*; every step has the"):
        swg_fast.train(environment=Robot, strict=True, **arrays, **sizes)
    assert not list(here.iterdir())
    swg_fast.train(environment=Robot, **arrays, **sizes)
    said = " ".join(capsys.readouterr().out.split())
    for word in ("in 29 of 300 rows", "every step has the reward 0", "-1 to 3, scaled to [-1, 1]"):
        assert word in said, said


def test_scores_go_into_the_history(here):
    swg_fast.train(environment=Robot, out=here / "run", eval_every=10, eval_episodes=2, **recorded(), **TINY)
    lines = read_history(here / "run" / "logs" / "history.jsonl")["score"]
    assert [line["step"] for line in lines] == [10, 20]
    assert all(-20 < line["score/mean"] < 0 for line in lines)


@pytest.mark.slow
def test_scores_do_not_change_the_training(here):
    arrays, weights = recorded(), []
    for name, every in (("plain", None), ("scored", 7)):
        swg_fast.train(environment=Robot, out=here / name, eval_every=every, eval_episodes=1,
                       **arrays, **TINY)
        weights.append((here / name / "policy" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_an_environment_is_played_here_and_a_function_in_workers():
    """The same episodes: an episode depends on its seed alone."""
    policy = untrained(BOUNDS)
    here = evaluate(policy, Robot(), episodes=3, seed=1, **DRAWS)
    there = evaluate(policy, Robot, episodes=3, seed=1, workers=2, **DRAWS)
    for a, b in zip(here.episodes, there.episodes, strict=True):
        np.testing.assert_allclose(a.rewards, b.rewards, atol=1e-5)
    assert (here.settings["workers"], there.settings["workers"]) == (0, 2)
    assert here.task == there.task == "Robot" and here.success_rate is not None
    summary = evaluation_json(here, "x")
    assert summary["success_rate"] == here.success_rate and json.dumps(summary)
    assert {"success", "mean return"} <= dict(evaluation_rows(summary)).keys()
    assert "3 episodes of 10 steps" in repr(here) and "success" in repr(here) and repr(here).count("\n") == 1


def test_a_registered_environment_and_a_task_of_ours():
    gymnasium.register("TestRobot-v0", Robot, max_episode_steps=4)
    policy = untrained(BOUNDS)
    assert evaluate(policy, "TestRobot-v0", episodes=1, **DRAWS).episodes[0].length == 4
    assert evaluate(policy, gymnasium.make("TestRobot-v0"), episodes=1, **DRAWS).task == "TestRobot-v0"
    wrapped = gymnasium.wrappers.TimeLimit(Robot(), 3)
    assert evaluate(policy, wrapped, episodes=1, **DRAWS).episodes[0].length == 3


def test_a_policy_without_bounds_acts_in_the_environments():
    """As before: -1 and 1 stand for the environment's bounds. `predict` gives what was drawn."""
    env = Robot()
    evaluate(untrained(), env, episodes=1, **DRAWS)
    mine = env.forces
    evaluate(untrained(BOUNDS), env, episodes=1, **DRAWS)
    assert mine == env.forces
    drawn = untrained().sample(np.zeros(2), seed=3, n_candidates=1).actions.numpy()
    np.testing.assert_array_equal(untrained().predict(np.zeros(2), seed=3, n_candidates=1)[0], drawn[0])


def test_other_bounds_are_noted_and_clipped():
    env = Robot()
    with pytest.warns(Note, match="takes actions from -1 to 3, and the policy was trained for -9 to 9"):
        evaluate(untrained({"action_bounds": {"low": [-9.0], "high": [9.0]}}), env, episodes=2, **DRAWS)
    assert min(env.forces) >= -1.0 and max(env.forces) <= 3.0


class Failing(Robot):
    def step(self, action):
        raise KeyError("of mine")


ODD = {
    "a number": (lambda: evaluate(untrained(), 7), "task is 7; give a task's name"),
    "several at once": (lambda: evaluate(untrained(), Robot(), envs=3), "one environment plays one episode"),
    "one that fails": (lambda: evaluate(untrained(), Failing(), episodes=1, **DRAWS),
                       "Failing, seed 0, episode 0, after 0 steps: KeyError: .*of mine"),
    "other sizes": (lambda: evaluate(Policy(ScoreNetwork(3, 1, 16, 2), NoiseSchedule.vp(2)), Robot()),
                    "Robot has 2 and 1"),
    "odd bounds in a card": (lambda: untrained({"action_bounds": [1]}), "expected low and high"),
    "bounds of others in a card": (lambda: untrained({"action_bounds": {"low": [0, 0], "high": [1, 1]}}),
                                   "bounds of 2 entries for actions of 1"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_environments_and_cards(name):
    run, word = ODD[name]
    with pytest.raises(UsageError, match=word) as error:
        run()
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_an_evaluation_of_an_object_is_drawn(tmp_path):
    plot_episodes(evaluate(untrained(BOUNDS), Robot(), episodes=2, **DRAWS), tmp_path / "robot.png")
    assert (tmp_path / "robot.png").stat().st_size > 10_000


def test_the_command_takes_a_file_with_its_bounds(tmp_path):
    """Any run name, other units, no table with --quiet; the time is said where it is worth it."""
    raw = make_recording(200, 20, 2, 1)
    write_hdf5(tmp_path / "robot.hdf5", raw | {"actions": raw["actions"] * 2 + 1})
    sizes = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if name != "quiet"]
    train = ["train", "my robot", "--new-task", "--dataset", "robot.hdf5", *sizes]
    refused = run_cli(*train, cwd=tmp_path)
    assert refused.returncode == 2 and "--action-low" in refused.stderr
    done = run_cli(*train, "--action-low", "-1", "--action-high", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "-1 to 3, scaled to [-1, 1]" in done.stdout and "YOUR_ENVIRONMENT" in done.stdout
    policy = swg_fast.load_policy(tmp_path / "runs" / "my robot" / "policy")
    assert policy.bounds.high == (3.0,) and "actions of 1 (-1 to 3)" in repr(policy)
    again = run_cli("train", "--config", "runs/my robot/config.toml", "--out", "again", "--quiet",
                    cwd=tmp_path)
    assert again.returncode == 0 and again.stdout.startswith("policy:"), again.stderr
    assert (tmp_path / "again/policy/model.safetensors").read_bytes() == (
        tmp_path / "runs/my robot/policy/model.safetensors").read_bytes()
