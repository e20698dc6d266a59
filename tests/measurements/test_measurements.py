"""What the measurements compute from episodes and recordings."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from conftest import make_recording, write_hdf5


@pytest.mark.skipif(find_spec("d4rl") is None, reason="D4RL is not installed")
def test_a_behaviours_score_within_the_limit(tmp_path):
    """Recorded episodes may be longer than the task's: what they earn later is not the task's."""
    from benchmarks.score_table import behaviour, behaviour_text

    raw = make_recording(states=39, actions=28, n=310)
    ends = np.isin(np.arange(310), (209, 309))
    raw |= {"rewards": np.full(310, 5.0, np.float32), "terminals": np.zeros(310, bool), "timeouts": ends}
    found = behaviour("door-human-v1", write_hdf5(tmp_path / "door.hdf5", raw))
    low, high = -56.512833, 2880.5693087298737  # D4RL's references
    scores = {steps: 100 * (5.0 * steps - low) / (high - low) for steps in (100, 200, 210)}
    assert found["whole"]["normalized_score"] == pytest.approx((scores[210] + scores[100]) / 2)
    assert found["within"]["normalized_score"] == pytest.approx((scores[200] + scores[100]) / 2)
    assert (found["episodes"], found["mean_length"], found["limit"]) == (2, 155, 200)
    assert behaviour_text(found).endswith("within the task's 200 steps")


def test_what_counts_as_overturned():
    """A torso as it stands, on its side and on its back, whichever way it is turned about the vertical."""
    from benchmarks.maze_ends import upright

    half = np.sqrt(0.5)
    turned = [(1, 0, 0, 0), (half, 0, 0, half), (half, half, 0, 0), (0, 1, 0, 0), (0, half, half, 0)]
    states = np.zeros((5, 29))
    states[:, 3:7] = turned
    assert upright(states) == pytest.approx([1, 1, 0, -1, -1])


def test_falls_are_counted_by_what_the_ant_did_before():
    """One that walks 0.1 m a step and falls, one that stands and falls, one that walks to the end, one that
    begins on its back."""
    from benchmarks.maze_ends import falls

    walk, stand = np.stack([np.arange(200) * 0.1, np.zeros(200)], axis=1), np.zeros((200, 2))
    falling, upright = np.where(np.arange(200) < 120, 1.0, -1.0), np.ones(200)
    found = falls([(walk, falling), (stand, falling), (walk, upright), (stand, -upright)])
    # At both ends of an episode half of the 50 steps around are missing; 15 of them are 1.5 m.
    assert found["moving"] == {"steps": 320, "falls": 1, "falls_per_1000_steps": 3.125}
    assert found["still"] == {"steps": 120, "falls": 1, "falls_per_1000_steps": pytest.approx(25 / 3)}
