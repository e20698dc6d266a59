"""Gymnasium's, Gymnasium-Robotics' and OGBench's environments by name, and this project's as Gymnasium's."""

from __future__ import annotations

import numpy as np
import pytest

import swg_fast.envs
from swg_fast import NoiseSchedule, Policy, ScoreNetwork, UsageError
from swg_fast.envs import flatten, make_env
from swg_fast.evaluation.episodes import evaluate
from swg_fast.evaluation.report import evaluation_json, plot_episodes

pytestmark = pytest.mark.slow

CHECKED = ["hopper-medium-v2", "antmaze-umaze-v2", "pen-human-v1", "kitchen-mixed-v0", "Hopper-v5"]


@pytest.mark.parametrize("task", CHECKED)
def test_gymnasiums_own_checker(task):
    from gymnasium.utils.env_checker import check_env

    check_env(swg_fast.envs.make(task), skip_render_check=True)


def test_stable_baselines3_evaluates_as_we_do():
    """Its evaluate_policy, Monitor and VecEnv run a task and a policy of this project; returns equal D4RL's.
    """
    pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed (extra 'test')")
    from stable_baselines3.common.env_checker import check_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    policy = Policy(ScoreNetwork(11, 3, 16, 2), NoiseSchedule.vp(2))
    env = swg_fast.envs.make("hopper-medium-v2", render_mode="rgb_array")
    check_env(env)
    monitored = Monitor(env)
    monitored.reset(seed=5)
    returns, lengths = evaluate_policy(policy, monitored, n_eval_episodes=3, return_episode_rewards=True)
    assert lengths == monitored.get_episode_lengths() and len(returns) == 3
    assert env.get_normalized_score(3234.3) == pytest.approx(1)
    many = DummyVecEnv([lambda: swg_fast.envs.make("hopper-medium-v2")] * 2)
    many.seed(1)
    assert many.reset().shape == (2, 11)
    mean, _ = evaluate_policy(policy, many, n_eval_episodes=2, warn=False)
    assert np.isfinite(mean)


def test_recorders_work(tmp_path):
    from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit

    env = RecordEpisodeStatistics(TimeLimit(swg_fast.envs.make("halfcheetah-medium-v2"), 5))
    first, _ = env.reset(seed=3)
    np.testing.assert_array_equal(first, make_env("halfcheetah-medium-v2").reset(3))
    for _ in range(5):
        *_, truncated, info = env.step(env.action_space.sample())
    assert truncated and info["episode"]["l"] == 5
    assert env.spec.id == "halfcheetah-medium-v2"


def test_seeds_of_the_public_door():
    env = swg_fast.envs.make("antmaze-umaze-v2")
    first, info = env.reset(seed=4)
    second, other = env.reset()
    assert not np.array_equal(info["goal"], other["goal"]) and not np.array_equal(first, second)
    again, _ = env.reset(seed=4)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(env.reset()[0], second)
    np.testing.assert_array_equal(first, make_env("antmaze-umaze-v2").reset(4))


@pytest.mark.parametrize(("task", "states", "actions", "score"), [
    ("Hopper-v5", 11, 3, "mean return"),
    ("Pendulum-v1", 3, 1, "mean return"),
    ("AntMaze_UMaze-v4", 31, 8, "success rate (%)"),
    ("AdroitHandPen-v1", 45, 24, "mean return"),
    ("FrankaKitchen-v1", 93, 9, "mean return"),
    ("antmaze-medium-navigate-singletask-v0", 29, 8, "success rate (%)"),
    ("cube-single-play-singletask-task2-v0", 28, 5, "success rate (%)"),
])
def test_any_gymnasium_environment(task, states, actions, score):
    package = {"antmaze": "ogbench", "cube": "ogbench"}.get(task.split("-")[0], "gymnasium_robotics")
    pytest.importorskip(package, reason=f"{package} is not installed (extra 'envs')")
    env = make_env(task)
    assert (env.state_dim, env.action_dim, env.score_name) == (states, actions, score)
    first = env.reset(7)
    after = env.step(np.full(actions, 0.5))
    assert first.dtype == np.float32 and first.shape == (states,)
    np.testing.assert_array_equal(env.reset(7), first)
    np.testing.assert_array_equal(env.step(np.full(actions, 0.5))[0], after[0])
    assert not np.array_equal(env.reset(8), first)
    assert {"name", "version", "contacts", "environment"} == env.simulator().keys()


def test_actions_are_in_the_environments_units_and_clipped_to_its_bounds():
    import gymnasium

    ours, theirs = make_env("Pendulum-v1"), gymnasium.make("Pendulum-v1")
    np.testing.assert_array_equal(ours.reset(0), theirs.reset(seed=0)[0])
    assert ours.bounds.to_card() == {"low": [-2.0], "high": [2.0]}
    assert swg_fast.envs.make("Pendulum-v1").action_space == theirs.action_space
    for ours_action, theirs_action in ((2.0, 2.0), (-0.5, -0.5), (7.0, 2.0)):
        observation, reward, *_ = theirs.step(np.array([theirs_action], np.float32))
        mine = ours.step(np.array([ours_action]))
        np.testing.assert_allclose(mine[0], observation, rtol=1e-6)
        assert mine[1] == pytest.approx(reward)


def test_a_maze_of_gymnasium_robotics_is_evaluated_and_drawn(tmp_path):
    pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed")
    env = make_env("PointMaze_UMaze-v3")
    env.reset(0)
    maze = env.maze()
    for place in (env.position(), env.goal()):  # outside walls
        assert (np.abs(maze.walls - place).max(axis=1) > maze.size / 2).all()
    policy = Policy(ScoreNetwork(8, 2, 16, 2), NoiseSchedule.vp(2))
    result = evaluate(policy, "PointMaze_UMaze-v3", episodes=2, workers=1, progress=False, n_candidates=1)
    assert [e.length for e in result.episodes] == [300, 300]
    assert result.score_name == "success rate (%)" and result.normalized_score is None
    assert result.pooled.mean == 50 * sum(e.success for e in result.episodes)
    assert result.pooled.interval.method == "wilson"
    summary = evaluation_json(result, "x")
    assert summary["episode_successes"] == [e.success for e in result.episodes]
    plot_episodes(result, tmp_path / "maze.png")
    assert (tmp_path / "maze.png").stat().st_size > 20_000


def test_the_policys_own_keys_are_used():
    """A card names the observation's keys; evaluation gives the policy just these."""
    pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed")
    keys = ["achieved_goal", "observation"]
    policy = Policy(ScoreNetwork(6, 2, 16, 2), NoiseSchedule.vp(2), card={"observation_keys": keys})
    result = evaluate(policy, "PointMaze_UMaze-v3", episodes=1, workers=1, progress=False, n_candidates=1)
    assert result.episodes[0].length == 300
    policy.card.clear()
    with pytest.raises(UsageError, match="states of 6 .* has 8"):
        evaluate(policy, "PointMaze_UMaze-v3", episodes=1)


@pytest.mark.parametrize(("task", "word"), [
    ("Hoper-v5", "did you mean Hopper-v5"),
    ("CartPole-v1", "Discrete"),
    ("antmaze-large-navigate-v0", "use its single-task variant, antmaze-large-navigate-singletask-v0"),
    ("visual-cube-single-play-singletask-v0", "shows pictures"),
    ("no_such_module:Thing-v0", "no_such_module"),
    ("minari:nobody/nothing-v0", "minari:nobody/nothing-v0 is not on this machine"),
    ("", "unknown environment"),
    ("../etc/passwd", "unknown environment"),
])
def test_names_that_do_not_work(task, word):
    with pytest.raises(UsageError, match=word) as caught:
        make_env(task)
    assert "\n" not in str(caught.value)


def test_flattening():
    tree = {"z": [7.0], "desired_goal": {"kettle": [5.0, 6.0], "a": [4.0]}, "observation": [2.0, 3.0],
            "achieved_goal": [1.0]}
    names = flatten.leaf_names(tree)
    assert names == ["achieved_goal", "observation", "desired_goal/a", "desired_goal/kettle", "z"]
    np.testing.assert_array_equal(flatten.flatten(tree, names), [1, 2, 3, 4, 5, 6, 7])
    assert flatten.choose(tree, ["z", "desired_goal"], "x") == ["z", "desired_goal/a", "desired_goal/kettle"]
    with pytest.raises(UsageError, match="no 'goal'; they have achieved_goal, observation"):
        flatten.choose(tree, ["goal"], "x")
    for space in (tree, np.zeros(3)):
        with pytest.raises(UsageError, match="an empty name"):
            flatten.choose(space, [""], "x")
    with pytest.raises(UsageError, match="one vector"):
        flatten.choose(np.zeros(3), ["observation"], "x")
    assert flatten.leaf_names(np.zeros(3)) == [flatten.VECTOR]
