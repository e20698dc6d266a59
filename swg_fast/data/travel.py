"""How far a body travels around each recorded step, which tells steps at which it only stands."""

from __future__ import annotations

import numpy as np

from swg_fast.data.transitions import Transitions

WINDOW = 10  # steps before and after


def travel(data: Transitions) -> np.ndarray:
    """Metres [N] between the places 10 steps before and after each transition, in the same episode. Near an
    episode's ends there are fewer steps, and their metres are scaled up to 20 steps.

    The place is a state's first two entries, as in D4RL's mazes.
    """
    index = np.arange(len(data))
    starts = np.flatnonzero(np.r_[True, np.diff(data.episodes) != 0])
    lengths = np.diff(np.r_[starts, len(data)])
    first, last = (np.repeat(ends, lengths) for ends in (starts, starts + lengths - 1))
    before, after = np.maximum(index - WINDOW, first), np.minimum(index + WINDOW, last)
    places = data.observations[:, :2]
    metres = np.linalg.norm(places[after] - places[before], axis=1)
    return metres * (2 * WINDOW / np.maximum(after - before, 1))


def walks(data: Transitions, metres: float) -> np.ndarray:
    """Which transitions [N] have at least ``metres`` of `travel`: all of them where that is 0."""
    return travel(data) >= metres if metres else np.ones(len(data), bool)
