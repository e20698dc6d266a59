"""The measurements of `swg-fast inspect`, on data with known answers, and a small run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_network, make_recording, write_hdf5
from matplotlib.figure import Figure

from swg_fast.cli import inspect as inspect_command
from swg_fast.cli.main import cli
from swg_fast.data import Transitions
from swg_fast.evaluation.inspect import measure, places
from swg_fast.method.networks import TwinQ, ValueNetwork
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.policy.policy import Policy


def walk(x, rewards, episodes, y=0.25):
    """Transitions of ants that walk along x [N + 1] in steps, at height y."""
    x = np.asarray(x, np.float32)
    states = np.stack([x, np.full_like(x, y)], axis=1)
    n = len(x) - 1
    return Transitions(observations=states[:-1], actions=np.zeros((n, 1), np.float32),
                       next_observations=states[1:], rewards=np.asarray(rewards, np.float32),
                       terminals=np.zeros(n, bool), episodes=np.asarray(episodes, np.int32))


def joined(*parts):
    names = ("observations", "actions", "next_observations", "rewards", "terminals", "episodes")
    return Transitions(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


@pytest.fixture(scope="module")
def corridor():
    """Ten walks to the reward at x = 5, and ten in another corridor that does not join it."""
    x = np.arange(0.25, 5.5, 0.5)
    n = len(x) - 1
    there = [walk(x, [0.0] * (n - 1) + [1.0], [i] * n) for i in range(10)]
    apart = [walk(x, [0.0] * n, [10 + i] * n, y=3.25) for i in range(10)]
    return joined(*there, *apart)


def test_way_along_recorded_steps(corridor):
    grid = places.make_grid(corridor)
    way = places.way_to_the_goal(grid, corridor)
    assert way.goal == pytest.approx([5.25, 0.25])
    metres = way.metres.reshape(grid.shape)
    assert metres[0] == pytest.approx(np.arange(5.0, -0.1, -0.5))  # 0.25 to 5.25 in bins of half a metre
    assert np.isinf(metres[1:]).all()
    good = places.way_figures(way, grid.mean(corridor.observations[:, 0]))
    assert good["joined"] == pytest.approx(0.5)
    assert good["rank_correlation"] == pytest.approx(1.0) and good["uphill"] == good["uphill_far"] == 1.0
    bad = places.way_figures(way, grid.mean(-corridor.observations[:, 0]))
    assert bad["rank_correlation"] == pytest.approx(-1.0) and bad["uphill"] == 0.0
    alone = places.way_figures(way, np.where(np.arange(len(way.metres)) == 0, 1.0, np.nan))
    assert alone["rank_correlation"] is None and alone["uphill"] is None  # a single place says nothing
    nothing = Transitions(**{**vars(corridor), "rewards": 0 * corridor.rewards})
    assert places.way_to_the_goal(grid, nothing) is None


def test_ants_that_stay_are_told_apart():
    """Nine ants that lie in a bin, of value -9, and five that walk out of it, of value 1."""
    still = joined(*(walk([0.1, 0.1], [0.0], [i]) for i in range(9)))
    data = joined(still, *(walk([0.1, 0.6], [0.0], [9 + i]) for i in range(5)))
    grid = places.make_grid(data)
    value = np.array([-9.0] * 9 + [1.0] * 5)
    assert grid.mean(value)[0] == pytest.approx((-81 + 5) / 14)
    assert grid.mean(value, grid.moved)[0] == pytest.approx(1.0)
    assert np.isnan(grid.mean(value)[1])  # no state was recorded there


def test_returns_to_go():
    data = walk(np.arange(9), [0.0] * 8, [0, 0, 0, 1, 1, 1, 1, 1])
    data.terminals[2] = True
    rewards = np.array([1.0, 2.0, 4.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    found = measure.returns_to_go(data, rewards, 0.5)  # known 4 steps before a time-out
    assert found[:3] == pytest.approx([3.0, 4.0, 4.0])
    assert found[3:5] == pytest.approx([1.9375, 1.875]) and np.isnan(found[5:]).all()


def test_weights_against_advantages():
    rng = np.random.default_rng(0)
    found = rng.standard_normal((40, 32))
    found[:, 0] = found[:, 0].clip(min=0.1)  # an oracle finds one in every state
    right = measure.within_states(np.exp(found), found)
    assert right == pytest.approx(np.ones(40))
    figures = measure.weight_figures(np.exp(found), found, right)
    assert figures["positive"]["highest_weight"] == figures["positive"]["oracle"] == 1.0
    assert figures["interval"] is None  # all states are the same
    weights = rng.random((40, 32))
    noise = measure.weight_figures(weights, found, measure.within_states(weights, found))
    assert abs(noise["rank_correlation"]) < 0.1
    assert noise["interval"]["low"] < noise["rank_correlation"] < noise["interval"]["high"]
    assert len(measure.within_states(np.ones((3, 4)), rng.random((3, 4)))) == 0


def swg_fast(*arguments):
    return CliRunner().invoke(cli, list(map(str, arguments)), standalone_mode=False)


@pytest.mark.slow
@pytest.mark.parametrize("ended", [True, False])
def test_a_run(tmp_path, monkeypatch, ended):
    monkeypatch.chdir(tmp_path)
    write_hdf5(tmp_path / "data.hdf5", make_recording(n=1500))
    small = ["--critic-steps", 6, "--critic-batch", 8, "--actor-steps", 6, "--actor-batch", 8,
             "--hidden-dim", 16, "--num-steps", 3, "--log-every", 2, "--logger", "none", "--held-out", 0.2]
    swg_fast("train", "antmaze-umaze-v2", "--dataset", "data.hdf5", "--out", "run", *small,
             *([] if ended else ["--stop-after", 4]))
    looked = swg_fast("inspect", "run", "--states", 6, "-n", 5, "--quiet")
    assert looked.exception is None, looked.exception
    figures = json.loads((tmp_path / "run" / "inspect" / "inspect.json").read_text())
    pictures = {"value.png", "advantages.png", "maze.png", "losses.png"}
    pictures |= {"weights.png"} if ended else set()
    assert {path.name for path in (tmp_path / "run" / "inspect").glob("*.png")} == pictures
    assert 0 <= figures["maze"]["joined"] <= 1 and figures["transitions"] == 1470
    assert figures["losses"]["critic"]["step"] == (6 if ended else 4)
    if ended:
        assert figures["progress"] == "trained to the end"
        assert figures["weights"]["states"] == "held out" and figures["weights"]["n_states"] == 6
        assert set(figures["weights"]) >= {"guidance 0", "guidance 1"}
    else:
        assert "critic at step 4 of 6" in looked.output and "weights" not in figures


@pytest.mark.slow
def test_every_state_of_a_critic(tmp_path, monkeypatch):
    """The last of three kept states equals the run's end, and they differ. `test_a_run` has pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: Path(path).touch())
    write_hdf5(tmp_path / "data.hdf5", make_recording(n=1500))
    swg_fast("train", "antmaze-umaze-v2", "--dataset", "data.hdf5", "--out", "run", "--critic-steps", 6,
             "--critic-batch", 8, "--actor-steps", 2, "--actor-batch", 8, "--hidden-dim", 16,
             "--num-steps", 3, "--save-every", 2, "--keep-states", 3, "--logger", "none", "--held-out", 0.2)
    looked = swg_fast("inspect", "run", "--states", 2, "-n", 2, "--quiet", "--every-state")
    figures = json.loads((tmp_path / "run" / "inspect" / "inspect.json").read_text())
    critics = figures["critics"]
    assert [each["step"] for each in critics] == [2, 4, 6] and "critic at step 4" in looked.output
    assert critics[2]["value"]["max"] == figures["value"]["max"] != critics[1]["value"]["max"]
    assert critics[2]["positive"] == figures["advantages"]["positive"]
    assert critics[2]["maze"]["uphill"] == figures["maze"]["uphill"]
    policy = swg_fast("inspect", "run/policy", "--every-state", "--dataset", "data.hdf5", "--quiet")
    assert policy.exception is None  # a run's policy knows its run
    alone = tmp_path / "run" / "states"
    for path in alone.glob("critic-*"):
        path.unlink()
    assert "no saved states" in str(swg_fast("inspect", "run", "--every-state", "--quiet").exception)


def test_what_cannot_be_looked_at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network, schedule = make_network(29, 8, hidden_dim=16, num_blocks=2), NoiseSchedule.vp(3)
    Policy(network, schedule).save("bare")
    assert "no critic and value" in str(swg_fast("inspect", "bare", "--dataset", "x.hdf5").exception)
    Policy(network, schedule, TwinQ(29, 8, 16), value=ValueNetwork(29, 16),
           card={"task": "antmaze-umaze-v2"}).save("judged")
    assert "--dataset" in str(swg_fast("inspect", "judged").exception)
    assert "no checkpoint" in str(swg_fast("inspect", "nowhere", "--dataset", "x.hdf5").exception)
    write_hdf5(tmp_path / "small.hdf5", make_recording(states=5, actions=3))
    wrong = swg_fast("inspect", "judged", "--dataset", "small.hdf5")
    assert "states of 29 and actions of 8" in str(wrong.exception)


def test_a_discount_that_looks_past_the_recordings_is_named():
    found = {"rank_correlation": 0.5, "mean_minus_return": 0.1, "known_returns": 3}
    assert "over 3 states" in inspect_command._returns(found, 0.9)
    assert "discount 0.99 " in inspect_command._returns(found | {"known_returns": 0}, 0.99)
