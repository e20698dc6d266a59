"""What in a recording contradicts itself: found while transitions are made of it, shown before training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from swg_fast.envs.action_bounds import ActionBounds

OTHER_ENDS = ("truncations", "truncated", "episode_terminals", "dones")  # others' names for an episode's end
FAR = 6.0  # times the step that nine of ten are shorter than


@dataclass(frozen=True)
class Finding:
    """Something in a dataset that contradicts itself: ``what``, and what is ``done`` with it or mends it."""

    what: str
    done: str


@dataclass(frozen=True)
class Ends:
    """Where episodes end, [N] bool each: by a terminal, by a time-out, or where the recorded next observation
    is not the next row's. ``counted``: time-outs are not recorded, but counted by the task's limit.
    ``used``: the recorded next observations are."""

    terminals: np.ndarray
    timeouts: np.ndarray
    breaks: np.ndarray
    counted: bool
    used: bool


def breaks(raw: Mapping[str, np.ndarray], over: np.ndarray) -> np.ndarray:
    """Where the recorded next observation is not the next row's, [N] bool, though the episode is not
    ``over`` [N] there. Nowhere without recorded next observations."""
    found = np.zeros(len(over), bool)
    if "next_observations" in raw:
        found[:-1] = (raw["next_observations"][:-1] != raw["observations"][1:]).any(axis=1)
        found &= ~over
    return found


def of_ends(raw: Mapping[str, np.ndarray], ends: Ends, kept: np.ndarray) -> list[Finding]:
    """What is odd about the ends of episodes; ``kept`` [N] are the rows that give a transition."""
    found, n = [], len(kept)
    if ends.breaks.any():
        found.append(Finding(
            f"in {ends.breaks.sum():,} of {n:,} rows the recorded next observation is not the next row's, "
            "and no episode ends there", "the recorded ones are used, and an episode ends at each of them"))
    lost = ends.terminals & ends.timeouts & ~kept
    if lost.any():
        rewarded = int((raw["rewards"][lost] != 0).sum())
        found.append(Finding(
            f"{lost.sum():,} rows are terminal and time out; {rewarded:,} of them have a reward",
            "D4RL drops them, and their rewards are lost; clear 'timeouts' where 'terminals' is set"))
    others = [name for name in OTHER_ENDS if name in raw]
    if others and ends.counted:
        marks = ", ".join(f"{name!r} (set in {int((raw[name] != 0).sum()):,} rows)" for name in others)
        found.append(Finding(f"there is {marks}, and no 'timeouts'",
                             f"the task's limit is counted instead, which ends {ends.timeouts.sum():,} "
                             "episodes; name the array 'timeouts'"))
    return found


def of_steps(observations: np.ndarray, following: np.ndarray, over: np.ndarray) -> list[Finding]:
    """Steps [N, S] to [N, S] far outside the rest inside an episode, which is ``over`` [N] where it ends."""
    spread = observations.std(axis=0)
    length = np.linalg.norm((following - observations) / np.where(spread > 0, spread, 1), axis=1)
    length = length[~over]
    usual = float(np.quantile(length, 0.9)) if len(length) else 0.0
    far = length > FAR * usual
    if not usual or not far.any():
        return []
    return [Finding(f"{far.sum():,} of {len(length):,} steps are over {FAR:g} times as long as nine of ten "
                    f"are (up to {length.max() / usual:.0f} times)",
                    "they are learnt as they are; set 'timeouts' on an episode's last row, if it is missing")]


def of_actions(scaled: np.ndarray, bounds: ActionBounds) -> list[Finding]:
    """Actions [N, A], scaled by ``bounds``, that lie beyond them by more than rounding."""
    beyond = (np.abs(scaled) > 1.001).any(axis=1)
    if not beyond.any():
        return []
    return [Finding(f"the actions of {beyond.sum():,} of {len(scaled):,} rows lie outside the environment's "
                    f"bounds, {bounds}", "they are clipped; give the bounds that they were recorded in")]
