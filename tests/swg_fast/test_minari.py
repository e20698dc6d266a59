"""A local Minari dataset made with Minari's own API, in Ant Maze's layout."""

from __future__ import annotations

import numpy as np
import pytest

from swg_fast.data import load_dataset
from swg_fast.errors import UsageError

minari = pytest.importorskip("minari", reason="Minari is not installed (extra 'minari')")


def test_antmaze_layout(tmp_path, monkeypatch):
    import gymnasium
    from gymnasium import spaces
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    rng = np.random.default_rng(0)
    box = lambda n: spaces.Box(-np.inf, np.inf, (n,), np.float64)  # noqa: E731
    space = spaces.Dict({"achieved_goal": box(2), "desired_goal": box(2), "observation": box(27)})
    buffers, lengths = [], (7, 4)
    for number, n in enumerate(lengths):
        observations = {key: rng.standard_normal((n + 1, part.shape[0])) for key, part in space.items()}
        buffers.append(EpisodeBuffer(
            id=number, observations=observations,
            actions=rng.uniform(-1, 1, (n, 8)).astype(np.float32),
            rewards=list(rng.random(n)), terminations=[False] * n,
            truncations=[False] * (n - 1) + [True], infos=None))
    minari.create_dataset_from_buffers(
        "D4RL/antmaze/test-v0", buffers, observation_space=space,
        action_space=spaces.Box(-1, 1, (8,), np.float32), author="x", author_email="x@example.org",
        code_permalink="https://example.org", algorithm_name="x", description="x",
        eval_env=None, env=None)
    data = load_dataset("minari:D4RL/antmaze/test-v0")
    assert gymnasium.__version__
    assert len(data) == sum(lengths)
    assert data.observations.shape == (11, 29) and data.actions.shape == (11, 8)
    first = buffers[0].observations
    np.testing.assert_allclose(data.observations[:7, :2], first["achieved_goal"][:7], rtol=1e-6)
    np.testing.assert_allclose(data.next_observations[6, 2:], first["observation"][7], rtol=1e-6)
    np.testing.assert_array_equal(data.episodes, [0] * 7 + [1] * 4)


def test_unknown_dataset():
    with pytest.raises(UsageError, match="minari:nobody"):
        load_dataset("minari:nobody/nothing-v0")
