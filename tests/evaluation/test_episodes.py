"""Evaluation: an episode depends only on its seed, not on the episodes beside it."""

from __future__ import annotations

import numpy as np
import pytest

from swg_fast import NoiseSchedule, Policy, ScoreNetwork, UsageError, load_policy
from swg_fast.cli.evaluate import _seeds
from swg_fast.common.intervals import score_interval
from swg_fast.common.seeds import stream_seed
from swg_fast.envs import make_env
from swg_fast.evaluation.episodes import evaluate
from swg_fast.evaluation.report import evaluation_json, evaluation_rows, plot_episodes

SETTINGS = {"n_candidates": 2, "guidance_scale": 1.0, "temperature": 1.0, "select": "max_weight"}
FEW_STEPS = SETTINGS | {"sampler": "dpmpp_2m_sde", "sampler_steps": 4}  # to shorten the tests


@pytest.fixture(scope="module")
def result():
    return evaluate(load_policy("antmaze-umaze-v2"), "antmaze-umaze-v2", episodes=3, seed=3, envs=3,
                    workers=2, progress=False, **FEW_STEPS)


@pytest.mark.slow
def test_result_is_consistent(result, tmp_path):
    assert [episode.index for episode in result.episodes] == [0, 1, 2]
    for episode in result.episodes:
        assert len(episode.path) == episode.length + 1 <= 701
        reached = np.linalg.norm(episode.path[-1] - episode.goal) <= 0.5
        assert reached == (episode.total_reward == 1.0)
    returns = [episode.total_reward for episode in result.episodes]
    assert result.normalized_score == pytest.approx(100 * np.mean(returns))
    assert result.pooled.interval == score_interval(result.pooled.scores, True)
    assert [score.mean for score in result.per_seed] == [result.pooled.mean]
    summary = evaluation_json(result, "x")
    assert summary["interval"]["method"] == "wilson" and summary["interval"]["level"] == 0.95
    assert "95 % interval" in dict(evaluation_rows(summary))["D4RL normalized score"]
    assert {"normalized_score", "returns", "episode_lengths", "candidates_per_second",
            "settings"} <= summary.keys()
    assert result.candidates == 2 * sum(summary["episode_lengths"])
    plot_episodes(result, tmp_path / "maze.png")
    assert (tmp_path / "maze.png").stat().st_size > 20_000


@pytest.mark.slow
def test_a_task_without_a_maze(tmp_path):
    """Pen: replaying episode 0's actions ends in the same state."""
    policy = Policy(ScoreNetwork(45, 24, 16, 2), NoiseSchedule.vp(2))
    result = evaluate(policy, "pen-human-v1", episodes=2, seed=[0, 7], envs=2, workers=1, progress=False,
                      **SETTINGS)
    first = result.episodes[0]
    assert len(first.actions) == first.length and not result.episodes[1].actions and not first.path
    env = make_env("pen-human-v1")
    env.reset(stream_seed(0, "episode", 0) & 0xFFFFFFFF)
    np.testing.assert_array_equal([env.step(action)[1] for action in first.actions], first.rewards)
    summary = evaluation_json(result, "x")
    assert summary["simulator"]["name"] == "mujoco" and len(summary["returns"]) == 4
    assert [(one["seed"], one["episodes"]) for one in summary["per_seed"]] == [(0, 2), (7, 2)]
    assert summary["interval"]["method"] == "bootstrap"
    assert summary["normalized_score"] == pytest.approx(
        np.mean([one["score"] for one in summary["per_seed"]]))
    assert {"seed 0", "seed 7", "D4RL normalized score"} <= dict(evaluation_rows(summary)).keys()
    plot_episodes(result, tmp_path / "pen.png")
    assert (tmp_path / "pen.png").stat().st_size > 20_000


@pytest.mark.slow
def test_does_not_depend_on_how_many_run_at_once(result):
    """Two slots for three episodes: the third begins when one of the others ends."""
    other = evaluate(load_policy("antmaze-umaze-v2"), "antmaze-umaze-v2", episodes=3, seed=3, envs=2,
                     workers=1, progress=False, **FEW_STEPS)
    for a, b in zip(result.episodes, other.episodes, strict=True):
        np.testing.assert_array_equal(a.goal, b.goal)
        np.testing.assert_array_equal(a.path[0], b.path[0])
        # Rounding differs between batch sizes, and contact dynamics amplify it.
        np.testing.assert_allclose(a.path[:30], b.path[:30], atol=1e-3)


@pytest.mark.slow
def test_other_seeds_are_other_episodes(result):
    env = make_env("antmaze-umaze-v2")
    env.reset(stream_seed(4, "episode", 0) & 0xFFFFFFFF)
    assert not np.array_equal(env.goal(), result.episodes[0].goal)
    env.reset(stream_seed(3, "episode", 0) & 0xFFFFFFFF)
    assert np.array_equal(env.goal(), result.episodes[0].goal)


def test_wrong_policy_is_named():
    policy = Policy(ScoreNetwork(5, 3, 16, 2), NoiseSchedule.vp(2))
    with pytest.raises(UsageError, match="states of 5 and actions of 3"):
        evaluate(policy, "antmaze-umaze-v2", episodes=1)
    with pytest.raises(UsageError, match="episodes"):
        evaluate(policy, "antmaze-umaze-v2", episodes=0)
    with pytest.raises(UsageError, match="different"):
        evaluate(policy, "antmaze-umaze-v2", seed=[1, 1])


@pytest.mark.parametrize("text,seeds", [("0,1,5", [0, 1, 5]), ("3", [7, 8, 9]), ("4,", [4]), (None, [7])])
def test_seeds_of_the_command(text, seeds):
    assert _seeds(7, text) == seeds


@pytest.mark.parametrize("text", ["", "0", "-1", "1,1", "a", "1,-2", "1.5", "1" * 30, ","])
def test_bad_seeds_of_the_command(text):
    with pytest.raises(UsageError, match="--seeds"):
        _seeds(0, text)
