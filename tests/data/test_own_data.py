"""A user's own recording: its units, its next observations, and what in it contradicts itself."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import write_hdf5

from swg_fast.common.errors import UsageError
from swg_fast.data.load import from_arrays, load_dataset, load_for
from swg_fast.data.transitions import to_transitions
from swg_fast.envs.action_bounds import ActionBounds

ROWS, LENGTH = 2000, 50


def recording(states=3, actions=2, seed=0):
    """Episodes of 50 steps, ended by time-outs; a random walk of the state."""
    rng = np.random.default_rng(seed)
    return {"observations": rng.normal(size=(ROWS, states)).astype("f4").cumsum(0) * np.float32(0.01),
            "actions": rng.uniform(-1, 1, (ROWS, actions)).astype("f4"),
            "rewards": rng.normal(size=ROWS).astype("f4"), "terminals": np.zeros(ROWS, bool),
            "timeouts": np.arange(ROWS) % LENGTH == LENGTH - 1}


def shuffled():
    """Transitions in no order, each with its own next observation and without the ends of episodes."""
    raw = recording()
    following = np.roll(raw["observations"], -1, axis=0)
    following[-1] = raw["observations"][-1] + 0.01
    order = np.random.default_rng(1).permutation(ROWS)
    del raw["timeouts"]
    return {name: value[order] for name, value in (raw | {"next_observations": following}).items()}


def says(data, *words):
    """Whether each of ``words`` is in a finding of its own, and there is no other."""
    assert len(data.findings) == len(words), data.findings
    for finding, word in zip(data.findings, words, strict=True):
        assert word in finding.what
    return True


@pytest.mark.parametrize("as_d4rl", [True, False])
def test_recorded_next_observations_are_used(as_d4rl):
    raw = shuffled()
    data = to_transitions(raw, as_d4rl=as_d4rl)
    np.testing.assert_array_equal(data.next_observations, raw["next_observations"])
    np.testing.assert_array_equal(data.observations, raw["observations"])
    step = np.linalg.norm(data.next_observations - data.observations, axis=1)
    assert np.median(step) < 0.03 and len(np.unique(data.episodes)) > 0.99 * ROWS
    assert says(data, "the recorded next observation is not the next row's")


def test_next_observations_that_are_the_next_rows():
    """D4RL's own conversion drops the row that times out; a user's own data keep it."""
    raw = recording()
    following = raw["observations"] + np.float32(0.01)
    following[:-1] = np.where(raw["timeouts"][:-1, None], following[:-1], raw["observations"][1:])
    mine = to_transitions(raw | {"next_observations": following}, as_d4rl=False)
    theirs = to_transitions(raw | {"next_observations": following})
    assert len(mine) == ROWS and says(mine) and len(theirs) == ROWS - ROWS // LENGTH
    assert theirs.fingerprint() == to_transitions(raw).fingerprint()
    np.testing.assert_array_equal(mine.next_observations, following)
    assert len(np.unique(mine.episodes)) == ROWS // LENGTH
    with pytest.raises(UsageError, match="'next_observations' has shape"):
        to_transitions(raw | {"next_observations": following[:, :2]})


def test_a_terminal_row_that_times_out_keeps_its_reward():
    raw = recording()
    raw["terminals"] = raw["timeouts"]
    raw["rewards"] = raw["timeouts"].astype("f4")
    mine, theirs = to_transitions(raw, as_d4rl=False), to_transitions(raw)
    assert mine.rewards.sum() == mine.terminals.sum() == 40 and says(mine)
    assert theirs.rewards.sum() == 0
    assert says(theirs, "40 rows are terminal and time out; 40 of them have a reward")


@pytest.mark.parametrize("name", ["truncations", "episode_terminals", "dones"])
def test_other_names_of_an_end(tmp_path, name):
    raw = recording()
    raw[name] = raw.pop("timeouts")
    data = load_dataset(write_hdf5(tmp_path / "data.hdf5", raw), max_episode_steps=100)
    assert says(data, f"{name!r} (set in 40 rows), and no 'timeouts'")
    assert "ends 20 episodes" in data.findings[0].done


def test_a_jump_inside_an_episode():
    raw = recording()
    raw["observations"][333:] += 5.0
    assert says(to_transitions(raw), "1 of 1,960 steps are over 6 times as long")
    raw["timeouts"][332] = True
    assert says(to_transitions(raw))


@pytest.mark.parametrize(("task", "own"), [("Pendulum-v1", None), ("mine-v0", ActionBounds((-2.0,), (2.0,)))])
def test_actions_have_the_environments_units(tmp_path, task, own):
    raw = recording(actions=1) | {"actions": np.full((ROWS, 1), 0.5, "f4")}
    path = write_hdf5(tmp_path / "data.hdf5", raw)
    data = load_for(task, str(path), bounds=own)
    np.testing.assert_allclose(data.actions, 0.25)
    assert data.bounds == ActionBounds((-2.0,), (2.0,)) and data.units == "-2 to 2, scaled to [-1, 1]"
    unknown = load_for("mine-v0", str(path))
    assert unknown.bounds is None and "no bounds are known" in unknown.units
    with pytest.raises(UsageError, match="reach 1.5, beyond 1"):
        load_for("mine-v0", str(write_hdf5(tmp_path / "far.hdf5", raw | {"actions": raw["actions"] * 3})))


def test_arrays():
    raw = shuffled()
    raw["rewards"] = (raw["rewards"] > 0).astype(int).tolist()
    del raw["terminals"]
    data = from_arrays(raw | {"actions": raw["actions"] * 3 + 1}, ActionBounds((-2.0,), (4.0,)))
    np.testing.assert_allclose(data.actions, raw["actions"].clip(-1 + 1e-5, 1 - 1e-5), atol=1e-6)
    assert not data.terminals.any() and data.rewards.dtype == np.float32
    for change, word in (({"rewards": None}, "no 'rewards'"), ({"actions": [[1], [2, 3]]}, "no array"),
                         ({"observations": "text"}, "shape"), ({"next_observations": None}, "no 'timeouts'")):
        given = {name: value for name, value in (raw | change).items() if value is not None}
        with pytest.raises(UsageError, match=word):
            from_arrays(given)


@pytest.mark.parametrize("low,high", [(-0.1, 0.3), (-2.0, 2.0), (0.0, 1e-3), (-1.0, 1.0)])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_scaled_actions_end_inside_their_bounds(low, high, kind):
    from gymnasium.spaces import Box

    space = Box(low, high, (2,), kind)
    bounds = ActionBounds.of_space(space, "x")
    drawn = np.linspace(-1.5, 1.5, 301, dtype=np.float32)[:, None].repeat(2, 1)
    actions = bounds.to_environment(drawn)
    assert actions.dtype == np.float32
    assert all(space.contains(action.astype(kind)) for action in actions)
    inner = drawn[np.abs(drawn[:, 0]) < 0.99]
    np.testing.assert_allclose(bounds.to_unit(bounds.to_environment(inner)), inner, atol=2e-6)
    np.testing.assert_allclose(actions[[0, -1], 0], [low, high], rtol=1e-3)


@pytest.mark.parametrize(("low", "high", "word"), [
    (1, -1, "action 0 goes from 1 to -1"), ("x", 1, "action_low is 'x'"), ([0, 0], [1, np.inf], "no finite"),
    ([0, 0], [1, 1, 1], "one number each"), ([0, 0, 0], 1, "bounds of 3 entries for actions of 2")])
def test_what_are_no_bounds(low, high, word):
    with pytest.raises(UsageError, match=word):
        ActionBounds.of(low, high, "x").sized(2, "x")
