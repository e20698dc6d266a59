"""The real D4RL environments, alone and in workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from swg_fast.common.errors import UsageError
from swg_fast.envs import make_env
from swg_fast.envs.tasks import presets
from swg_fast.envs.vector import VectorEnv, WorkerDied

ANTMAZE = [name for name, preset in presets().items() if preset.family == "antmaze"]


def test_all_six_are_there_with_both_versions_of_their_data():
    newer = [name for name in ANTMAZE if name.endswith("-v2")]
    assert len(newer) == 6 and [presets()[name].newer for name in ANTMAZE] == [None] * 6 + newer


@pytest.mark.parametrize("older", ["antmaze-large-play-v0", "pen-human-v0", "door-cloned-v0"])
def test_older_data_are_played_in_the_same_environment(older):
    """Goals, starts, steps and reference scores: an episode of a seed is the newer task's."""
    env, newer = make_env(older), make_env(presets()[older].newer)
    assert env.normalized_score(7.0) == newer.normalized_score(7.0)
    for seed in (3, 4):
        np.testing.assert_array_equal(env.reset(seed), newer.reset(seed))
        np.testing.assert_array_equal(env.goal(), newer.goal())
        action = np.full(env.action_dim, 0.3)
        for mine, other in zip(env.step(action), newer.step(action), strict=True):
            np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("task", ANTMAZE)
def test_antmaze_steps(task):
    env = make_env(task)
    assert (env.state_dim, env.action_dim) == (29, 8)
    first = env.reset(1)
    start = env.position()
    total = 0.0
    for _ in range(20):
        observation, reward, done = env.step(np.ones(8))
        total += reward
    assert observation.dtype == np.float32 and observation.shape == (29,)
    assert not done and np.abs(env.position() - start).max() > 0.01
    np.testing.assert_allclose(observation[:2], env.position(), rtol=1e-6)
    assert np.linalg.norm(env.goal() - start) > 4
    assert env.normalized_score(1.0) == 100 and env.normalized_score(0.0) == 0
    np.testing.assert_array_equal(env.reset(1), first)


def test_seed_sets_start_goal_and_dynamics():
    env = make_env("antmaze-umaze-v2")

    def run(seed):
        out = [env.reset(seed), env.goal()]
        return [*out, *(env.step(np.full(8, 0.3))[0] for _ in range(5))]

    a, other, b = run(7), run(8), run(7)
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert not np.array_equal(a[0], other[0]) and not np.array_equal(a[1], other[1])


def test_walls_follow_the_maze():
    env = make_env("antmaze-umaze-v2")
    env.reset(0)
    maze = env.maze()
    assert maze.size == 4 and len(maze.walls) == 18  # 16 around, 2 inside
    inside = np.abs(maze.walls - env.position()).max(axis=1) < maze.size / 2
    assert not inside.any()


def test_registered_limits_are_the_presets():
    for task in ANTMAZE:
        assert make_env(task).env.spec.max_episode_steps == presets()[task].max_episode_steps


def test_unknown_task_names_near_ones():
    with pytest.raises(UsageError, match="did you mean antmaze-umaze-v2"):
        make_env("antmaze-umaze-v9")


def test_imports_say_nothing():
    out = subprocess.run([sys.executable, "-c", "from swg_fast.envs import make_env as m; "
                          "m('antmaze-umaze-v2').reset(0)"], capture_output=True, text=True)
    assert (out.returncode, out.stdout, out.stderr) == (0, "", "")


def test_rendering_or_a_clear_word():
    env = make_env("antmaze-umaze-v2")
    env.reset(0)
    try:
        image = env.render(96, 64)
    except UsageError as error:
        assert "OpenGL" in str(error)
        pytest.skip(f"no picture: {error}")
    assert image.shape == (64, 96, 3) and image.std() > 5


@pytest.mark.slow
def test_workers_equal_one_process():
    env = make_env("antmaze-umaze-v2")
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 8))
    with VectorEnv("antmaze-umaze-v2", 3, 2) as vector:
        first = vector.reset({0: 10, 2: 12})  # slot 1 is left out
        assert sorted(first) == [0, 2]
        results = [vector.step({0: a, 2: -a}) for a in actions]
    np.testing.assert_array_equal(env.reset(12), first[2].observation)
    for action, result in zip(actions, results, strict=True):
        np.testing.assert_array_equal(env.step(-action)[0], result[2].observation)


@pytest.mark.slow
def test_a_worker_that_dies_is_reported():
    with VectorEnv("antmaze-umaze-v2", 2, 2) as vector:
        vector.reset({0: 0, 1: 1})
        os.kill(vector._workers[1].process.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match=r"worker 1 died \(exit code -9\)"):
            vector.step({0: np.zeros(8), 1: np.zeros(8)})
