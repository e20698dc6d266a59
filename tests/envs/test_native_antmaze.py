"""The native Ant Maze beside D4RL's, step by step: the same seeds give the same numbers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from swg_fast.common.errors import UsageError
from swg_fast.envs import contacts, d4rl_import, make_env, registry
from swg_fast.envs.native_antmaze import NativeAntMaze
from swg_fast.envs.tasks import presets

TASKS = [name for name, preset in presets().items() if preset.family == "antmaze"]
needs_d4rl = pytest.mark.skipif(not d4rl_import.d4rl_installed(), reason="D4RL is not installed")


@needs_d4rl
@pytest.mark.parametrize("task", TASKS)
def test_start_goal_observations_and_rewards_are_d4rls(task):
    ours, theirs = NativeAntMaze(task), make_env(task)
    assert type(theirs).__name__ == "D4RLEnv"
    np.testing.assert_array_equal(ours.maze().walls, theirs.maze().walls)
    assert ours.max_episode_steps == theirs.max_episode_steps
    rng = np.random.default_rng(0)
    for seed in (0, 1, 2**32 - 1):
        np.testing.assert_array_equal(ours.reset(seed), theirs.reset(seed))
        np.testing.assert_array_equal(ours.goal(), theirs.goal())
        for _ in range(25):
            action = rng.uniform(-1.2, 1.2, 8)
            mine, other = ours.step(action), theirs.step(action)
            np.testing.assert_array_equal(mine[0], other[0])
            assert mine[1:] == other[1:]
        np.testing.assert_array_equal(ours.position(), theirs.position())
    assert ours.normalized_score(0.37) == theirs.normalized_score(0.37)


@needs_d4rl
def test_the_models_are_the_same():
    """Compares every number of the compiled model that moves a body."""
    ours, theirs = (env.model for env in (NativeAntMaze(TASKS[0]).sim, make_env(TASKS[0]).core.sim))
    for name in ("body_mass", "body_inertia", "body_ipos", "body_pos", "body_quat", "jnt_range", "jnt_axis",
                 "dof_damping", "dof_armature", "geom_size", "geom_pos", "geom_quat", "geom_friction",
                 "geom_solref", "geom_solimp", "geom_margin", "geom_contype", "geom_conaffinity",
                 "geom_condim", "actuator_gear", "actuator_ctrlrange",
                 "actuator_trnid", "actuator_gainprm", "qpos0"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    assert (ours.opt.timestep, ours.opt.integrator) == (theirs.opt.timestep, theirs.opt.integrator)
    assert ours.opt.disableflags == theirs.opt.disableflags


@needs_d4rl
def test_the_ends_of_an_episode_are_d4rls():
    """An ant placed beside the goal reaches it; one that stands still runs out of time."""
    for env in (NativeAntMaze("antmaze-umaze-v2"), make_env("antmaze-umaze-v2")):
        env.reset(3)
        core = getattr(env, "core", env)
        core.sim.data.qpos[:2] = env.goal() + 0.3
        _, reward, done = env.step(np.zeros(8))
        assert (reward, done, env.truncated) == (1.0, True, False)
        env.reset(3)
        steps = 0
        done = False
        while not done:
            _, reward, done = env.step(np.zeros(8))
            steps += 1
        assert (steps, reward, env.truncated) == (700, 0.0, True)


def test_without_d4rl_it_is_what_a_name_makes(monkeypatch):
    monkeypatch.setattr(registry, "d4rl_installed", lambda: False)
    env = make_env("antmaze-large-play-v2")
    assert isinstance(env, NativeAntMaze)
    assert env.simulator()["contacts"] == contacts.describe()
    try:
        env.reset(0)
        image = env.render(96, 64)
    except UsageError as error:
        pytest.skip(f"no picture: {error}")
    assert image.shape == (64, 96, 3) and image.std() > 5


@pytest.mark.slow
def test_no_import_of_gym_and_none_of_d4rl():
    code = ("import sys\n"
            "for name in ('gym', 'd4rl', 'mujoco_py'): sys.modules[name] = None\n"
            "from swg_fast.envs import registry\n"
            "registry.d4rl_installed = lambda: False\n"
            "env = registry.make_env('antmaze-umaze-v2'); env.reset(0); env.step([0] * 8)\n"
            "from swg_fast.envs import make\n"
            "make('antmaze-umaze-v2').reset(seed=1)\n")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_other_tasks_are_refused():
    with pytest.raises(UsageError, match="no Ant Maze task"):
        NativeAntMaze("hopper-medium-v2")
