"""Local Minari datasets, made with Minari's own API in each layout of its D4RL datasets."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from swg_fast.common.errors import UsageError
from swg_fast.data import load_dataset
from swg_fast.envs import make_env

minari = pytest.importorskip("minari", reason="Minari is not installed (extra 'minari')")
from gymnasium import spaces  # noqa: E402
from minari.data_collector import EpisodeBuffer  # noqa: E402


def box(*shape):
    return spaces.Box(-np.inf, np.inf, shape, np.float64)


MAZE = spaces.Dict({"achieved_goal": box(2), "desired_goal": box(2), "observation": box(27)})


def draw(space, rng, n):
    if isinstance(space, spaces.Dict):
        return {key: draw(part, rng, n) for key, part in space.spaces.items()}
    return rng.standard_normal((n, *space.shape))


def create(name, folder, monkeypatch, space, actions, lengths=(7, 4), *, rewards=None, infos=None, ends=None,
           edit=None, **metadata):
    """A dataset of random episodes; ``rewards``, ``infos``, ``ends`` take an episode's number and length."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    rng = np.random.default_rng(0)
    buffers = []
    for number, n in enumerate(lengths):
        observations = draw(space, rng, n + 1)
        if edit:
            edit(observations)
        low, high = actions.low, actions.high
        buffers.append(EpisodeBuffer(
            id=number, observations=observations,
            actions=rng.uniform(low, high, (n, *actions.shape)).astype(np.float32),
            rewards=list(rewards(number, n)) if rewards else list(rng.random(n)),
            terminations=list(ends(number, n)) if ends else [False] * n,
            truncations=[False] * (n - 1) + [True], infos=infos(number, n) if infos else None))
    minari.create_dataset_from_buffers(
        name, buffers, observation_space=space, action_space=actions, author="x",
        author_email="x@example.org", code_permalink="https://example.org", algorithm_name="x",
        description="x", **({"env": None, "eval_env": None} | metadata))
    return buffers


def unit(size):
    return spaces.Box(-1, 1, (size,), np.float32)


def test_antmaze(tmp_path, monkeypatch):
    """The observation has the position, then the goal. Reaching it is terminal, although the ant walks on."""
    hits = np.array([0, 0, 1, 0, 1, 0, 0])
    buffers = create("D4RL/antmaze/test-v0", tmp_path, monkeypatch, MAZE, unit(8),
                     rewards=lambda number, n: hits[:n].astype(float),
                     infos=lambda number, n: {"success": np.append(0, hits[:n]).astype(bool)})
    data = load_dataset("minari:D4RL/antmaze/test-v0")
    assert data.observations.shape == (11, 31) and data.actions.shape == (11, 8)
    assert data.observation_keys == ("achieved_goal", "observation", "desired_goal")
    first = buffers[0].observations
    np.testing.assert_allclose(data.observations[:7, :2], first["achieved_goal"][:7], rtol=1e-6)
    np.testing.assert_allclose(data.next_observations[6, 2:29], first["observation"][7], rtol=1e-6)
    np.testing.assert_allclose(data.observations[3, 29:], first["desired_goal"][3], rtol=1e-6)
    np.testing.assert_array_equal(data.terminals, np.concatenate([hits, hits[:4]]).astype(bool))
    np.testing.assert_array_equal(data.rewards, np.concatenate([hits, hits[:4]]))
    np.testing.assert_array_equal(data.episodes, [0] * 7 + [1] * 4)
    assert "3 of them reach the goal and are terminal" in data.dropped


@pytest.mark.parametrize(("low", "dense"), [(0.0, False), (-1.0, False), (0.0, True)])
def test_pointmaze_without_recorded_success(tmp_path, monkeypatch, low, dense):
    """A reward of two values marks success; a dense one does not, so it makes no step terminal."""
    space = spaces.Dict({"achieved_goal": box(2), "desired_goal": box(2), "observation": box(4)})
    hits = np.array([0, 1, 0, 0, 0, 1, 1])
    create("D4RL/pointmaze/test-v0", tmp_path, monkeypatch, space, unit(2),
           rewards=lambda number, n: (hits[:n] + low) * (0.3 if dense else 1.0))
    data = load_dataset("minari:D4RL/pointmaze/test-v0")
    expected = np.concatenate([hits, hits[:4]]).astype(bool)
    np.testing.assert_array_equal(data.terminals, np.zeros(11, bool) if dense else expected)


@pytest.mark.slow
def test_goal_left_out_takes_the_evaluations(tmp_path, monkeypatch):
    """Without the goal in the observation, rewards and terminals refer to the evaluation's goal, as in D4RL.
    """
    import gymnasium

    pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed")
    gymnasium.register_envs(pytest.importorskip("gymnasium_robotics"))
    maze = [[1, 1, 1, 1], [1, "r", "g", 1], [1, 1, 1, 1]]
    env = gymnasium.make("PointMaze_UMaze-v3", maze_map=maze)
    (place,) = env.unwrapped.maze.unique_goal_locations
    space = spaces.Dict({"achieved_goal": box(2), "desired_goal": box(2), "observation": box(4)})

    def put_on_the_place(observations):
        observations["achieved_goal"] += 50
        observations["achieved_goal"][[2, 3]] = place + 0.1  # after steps 1 and 2

    create("D4RL/pointmaze/one-v0", tmp_path, monkeypatch, space, unit(2), edit=put_on_the_place,
           rewards=lambda number, n: np.zeros(n), eval_env=env.spec, env=env.spec)
    data = load_dataset("minari:D4RL/pointmaze/one-v0", observation_keys=["achieved_goal", "observation"])
    assert data.observations.shape == (11, 6)
    expected = np.isin(np.concatenate([range(7), range(4)]), (1, 2))
    np.testing.assert_array_equal(data.rewards, expected)
    np.testing.assert_array_equal(data.terminals, expected)
    assert "rewards are for the evaluation's" in data.dropped
    task = make_env("minari:D4RL/pointmaze/one-v0")  # the environment of the evaluation
    task.reset(0)
    assert task.state_dim == 8 and np.abs(task.goal() - place).max() < 0.5
    many = gymnasium.make("PointMaze_UMaze-v3", maze_map=[[1, 1, 1, 1, 1], [1, "g", "r", "g", 1], [1] * 5])
    create("D4RL/pointmaze/two-v0", tmp_path, monkeypatch, space, unit(2), env=many.spec, eval_env=many.spec)
    with pytest.raises(UsageError, match="the evaluation has 2"):
        load_dataset("minari:D4RL/pointmaze/two-v0", observation_keys=["observation"])


def test_adroit_success_is_not_terminal(tmp_path, monkeypatch):
    """The reward continues after success, in a vector observation; terminals are as recorded."""
    create("D4RL/pen/test-v0", tmp_path, monkeypatch, box(45), unit(24),
           infos=lambda number, n: {"success": np.ones(n + 1, bool)},
           ends=lambda number, n: [False] * (n - 1) + [number == 1])
    data = load_dataset("minari:D4RL/pen/test-v0")
    assert data.observations.shape == (11, 45) and data.observation_keys is None
    assert data.terminals.tolist() == [False] * 10 + [True]


def test_kitchen_nested_goals(tmp_path, monkeypatch):
    tasks = spaces.Dict({"microwave": box(1), "kettle": box(7)})
    space = spaces.Dict({"observation": box(59), "achieved_goal": tasks, "desired_goal": tasks})
    buffers = create("D4RL/kitchen/test-v0", tmp_path, monkeypatch, space, unit(9))
    data = load_dataset("minari:D4RL/kitchen/test-v0")
    assert data.observation_keys == ("achieved_goal/kettle", "achieved_goal/microwave", "observation",
                                     "desired_goal/kettle", "desired_goal/microwave")
    assert data.observations.shape == (11, 75) and not data.terminals.any()
    kettle = buffers[0].observations["desired_goal"]["kettle"]
    np.testing.assert_allclose(data.observations[2, 67:74], kettle[2], rtol=1e-6)
    one = load_dataset("minari:D4RL/kitchen/test-v0", observation_keys=["observation", "desired_goal/kettle"])
    assert one.observations.shape == (11, 66)


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_other_formats_give_the_same(tmp_path, monkeypatch, form):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (minari[arrow])")
    found = []
    for each in ("hdf5", form):
        create(f"D4RL/antmaze/{each}-v0", tmp_path, monkeypatch, MAZE, unit(8), data_format=each)
        found.append(load_dataset(f"minari:D4RL/antmaze/{each}-v0").fingerprint())
    assert found[0] == found[1]


def test_mujoco_actions_are_scaled_and_scores_referenced(tmp_path, monkeypatch):
    """Pendulum's torque of +-2 becomes +-1, as in its environment; scores lie between the references."""
    actions = spaces.Box(-2, 2, (1,), np.float32)
    buffers = create("mujoco/pendulum/test-v0", tmp_path, monkeypatch, box(3), actions, env="Pendulum-v1",
                     ref_min_score=-1000.0, ref_max_score=0.0)
    data = load_dataset("minari:mujoco/pendulum/test-v0")
    np.testing.assert_allclose(data.actions[:7], np.asarray(buffers[0].actions) / 2, rtol=1e-6)
    env = make_env("minari:mujoco/pendulum/test-v0")
    assert env.score_name == "normalized score" and env.score(-250.0, None) == pytest.approx(75)
    np.testing.assert_array_equal(env.reset(3), make_env("Pendulum-v1").reset(3))


def test_episodes_without_their_last_observation_are_said(tmp_path, monkeypatch):
    """The last step has no next observation, so it gives no transition."""
    create("own/short-v0", tmp_path, monkeypatch, box(3), unit(2))
    with h5py.File(tmp_path / "own" / "short-v0" / "data" / "main_data.hdf5", "a") as file:
        for episode in file.values():
            observations = episode["observations"][:-1]
            del episode["observations"]
            episode["observations"] = observations
    data = load_dataset("minari:own/short-v0")
    assert len(data) == 6 + 3 and data.bounds.is_unit
    assert "2 episodes have as many observations as actions" in data.findings[0].what
    assert data.dropped.startswith("9 recorded steps")


@pytest.mark.parametrize(("space", "actions", "word"), [
    (spaces.Box(0, 255, (8, 8, 3), np.uint8), unit(2), "a picture of shape"),
    (spaces.Dict({"observation": box(2), "which": spaces.Discrete(3)}), unit(2), "'which' is a Discrete"),
    (box(3), spaces.Box(-np.inf, np.inf, (2,), np.float32), "no finite bounds"),
])
def test_what_a_policy_cannot_learn_from(tmp_path, monkeypatch, space, actions, word):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    n = 3
    drawn = {"observation": np.zeros((n + 1, 2)), "which": np.zeros(n + 1, int)}
    observations = drawn if isinstance(space, spaces.Dict) else np.zeros((n + 1, *space.shape), space.dtype)
    minari.create_dataset_from_buffers(
        "odd/layout-v0", [EpisodeBuffer(id=0, observations=observations, actions=np.zeros((n, 2), np.float32),
                                 rewards=[0.0] * n, terminations=[False] * n,
                                 truncations=[False, False, True], infos=None)],
        observation_space=space, action_space=actions, author="x", author_email="x@example.org",
        code_permalink="https://example.org", algorithm_name="x", description="x", env=None, eval_env=None)
    with pytest.raises(UsageError, match=word):
        load_dataset("minari:odd/layout-v0")
    with pytest.raises(UsageError, match="cannot be made here"):
        make_env("minari:odd/layout-v0")


def test_unknown_dataset_and_keys(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="minari:nobody"):
        load_dataset("minari:nobody/nothing-v0")
    create("D4RL/antmaze/keys-v0", tmp_path, monkeypatch, MAZE, unit(8))
    with pytest.raises(UsageError, match="no 'goal'; they have achieved_goal, observation, desired_goal"):
        load_dataset("minari:D4RL/antmaze/keys-v0", observation_keys=["goal"])
    with h5py.File(tmp_path / "d4rl.hdf5", "w"), pytest.raises(UsageError, match="leave --observation-keys"):
        load_dataset(tmp_path / "d4rl.hdf5", observation_keys=["observation"])
