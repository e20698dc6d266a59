"""Raw recorded steps -> transitions, exactly as ``d4rl.qlearning_dataset`` does, vectorised."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from swg_fast.common.checks import flag, whole
from swg_fast.common.errors import UsageError

REQUIRED_KEYS = ("observations", "actions", "rewards", "terminals")
FLAGS = ("terminals", "timeouts")
ARRAYS = ("observations", "actions", "rewards", *FLAGS)
# Largest absolute values. The networks square observations and rewards in float32, which ends at 3e38;
# actions are clipped to [-1, 1], and what lies far outside was recorded in another unit.
LARGEST = {"observations": 1e15, "rewards": 1e15, "actions": 10.0}
ACTION_LIMIT = 1.0 - 1e-5  # keeps actions strictly inside (-1, 1)


@dataclass(frozen=True)
class Transitions:
    """Transitions in file order. ``S`` and ``A`` are the state and action sizes.

    observations, next_observations [N, S] float32; actions [N, A] float32; rewards [N] float32;
    terminals [N] bool; episodes [N] int32 (which recorded episode a transition is from).
    ``dropped`` says in words which recorded steps gave no transition, and why. ``observation_keys``
    names the parts of a dictionary observation in their order, None where it was a vector.
    """

    observations: np.ndarray
    actions: np.ndarray
    next_observations: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    episodes: np.ndarray
    dropped: str = ""
    observation_keys: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.rewards)

    def fingerprint(self) -> str:
        """16 hexadecimal digits that stand for every array, its type and its shape: the identity of the data
        in runs, cards and sweeps."""
        digest = hashlib.blake2b(digest_size=8)
        for name in ("observations", "actions", "next_observations", "rewards", "terminals", "episodes"):
            array = np.ascontiguousarray(getattr(self, name))
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(array.data.cast("B"))
        return digest.hexdigest()

    def subset(self, mask: np.ndarray) -> Transitions:
        """The transitions where ``mask`` [N] is true."""
        return replace(
            self,
            observations=self.observations[mask],
            actions=self.actions[mask],
            next_observations=self.next_observations[mask],
            rewards=self.rewards[mask],
            terminals=self.terminals[mask],
            episodes=self.episodes[mask],
        )

    def held_out(self, share: float, seed: int) -> np.ndarray:
        """Which transitions are held out, [N]: whole episodes, drawn with ``seed``, ``share`` of all."""
        ids = np.unique(self.episodes)
        if len(ids) < 2 or share <= 0:
            return np.zeros(len(self), bool)
        count = min(max(1, round(share * len(ids))), len(ids) - 1)
        return np.isin(self.episodes, np.random.default_rng(seed).choice(ids, size=count, replace=False))

    def split(self, held_out: float, seed: int) -> tuple[Transitions, Transitions]:
        """(training, held out), by the mask of `held_out`."""
        mask = self.held_out(held_out, seed)
        return self.subset(~mask), self.subset(mask)


def check_layout(raw: Mapping[str, Any], source: str) -> None:
    """`UsageError` where ``raw`` is not D4RL's layout. Only shapes and types count, so the arrays need not
    have been read yet."""
    missing = [key for key in REQUIRED_KEYS if key not in raw]
    if missing:
        raise UsageError(
            f"{source}: no {' and no '.join(map(repr, missing))}; a D4RL dataset has "
            f"{', '.join(REQUIRED_KEYS)} (and timeouts)"
        )
    for key in ARRAYS:
        if key not in raw:
            continue
        value, flag = raw[key], key in FLAGS
        dims = 2 if key in ("observations", "actions") else 1
        shape = list(value.shape) if value.shape is not None else "of nothing"
        if value.shape is None or len(value.shape) != dims or 0 in value.shape[1:]:
            raise UsageError(
                f"{source}: {key!r} has shape {shape}, expected "
                f"[N{', size' if dims == 2 else ''}]; save it in D4RL's layout"
            )
        if not (value.dtype.kind == "f" or (flag and value.dtype.kind in "bui")):
            raise UsageError(
                f"{source}: {key!r} has dtype {value.dtype}, expected "
                f"{'bool' if flag else 'float32'}; convert it when saving the file"
            )
    n = raw["rewards"].shape[0]
    if n < 2:
        raise UsageError(f"{source}: {n} recorded step(s); at least two are needed")
    for key in ARRAYS:
        if key in raw and raw[key].shape[0] != n:
            raise UsageError(
                f"{source}: {key!r} has {raw[key].shape[0]} rows and 'rewards' has {n}; "
                "every array of a dataset needs the same length"
            )


def check_values(raw: Mapping[str, np.ndarray], source: str) -> None:
    """`UsageError` for NaN, infinity, flags that are neither 0 nor 1, and numbers too large for training in
    float32."""
    for key in ARRAYS:
        if key not in raw:
            continue
        value = raw[key]
        low, high = float(value.min()), float(value.max())
        if value.dtype.kind == "f" and not (np.isfinite(low) and np.isfinite(high)):
            bad = int((~np.isfinite(value)).any(axis=tuple(range(1, value.ndim))).sum())
            raise UsageError(
                f"{source}: {key!r} has NaN or infinity in {bad} of {len(value)} rows; "
                "remove or repair those rows"
            )
        if key in FLAGS:
            if value.dtype.kind != "b" and not ((value == 0) | (value == 1)).all():
                raise UsageError(f"{source}: {key!r} has values from {low:g} to {high:g}, expected 0 and 1; "
                                 "convert them when saving the file")
        elif max(-low, high) > LARGEST[key]:
            raise UsageError(f"{source}: {key!r} reach {max(-low, high):.3g}, beyond the {LARGEST[key]:g} "
                             "that can be learnt from; scale them when saving the file")


def to_transitions(
    raw: Mapping[str, np.ndarray],
    *,
    max_episode_steps: int | None = None,
    continues_after_terminal: bool = False,
    source: str = "dataset",
) -> Transitions:
    """Transitions of a recording ``raw`` with D4RL's keys.

    The last step of an episode that timed out is dropped, since the row after it belongs to
    another episode, and so is the last row of the file. Without a ``timeouts`` array an episode
    times out after ``max_episode_steps``, counted as D4RL counts. Actions are clipped to
    +-(1 - 1e-5).

    A terminal ends its episode, unless the recording ``continues_after_terminal``, as Ant Maze's do:
    there a terminal marks a touch of the goal, and the ant walks on until the time-out.

    Raises `UsageError` for data that `check_layout` and `check_values` reject.
    """
    if max_episode_steps is not None:
        max_episode_steps = whole("max_episode_steps", max_episode_steps, 1, 2**31 - 1)
    continues_after_terminal = flag("continues_after_terminal", continues_after_terminal)
    raw = {key: np.asarray(raw[key]) for key in ARRAYS if key in raw}
    check_layout(raw, source)
    check_values(raw, source)
    terminals = np.asarray(raw["terminals"]).astype(bool)
    n = len(terminals)
    if "timeouts" in raw:
        final = np.asarray(raw["timeouts"]).astype(bool)
    elif max_episode_steps:
        final = _counted_timeouts(terminals, max_episode_steps)
    else:
        raise UsageError(
            f"{source}: no 'timeouts' and no known episode limit; add a 'timeouts' array or name "
            "the task, whose limit is then used"
        )
    keep = ~final
    keep[-1] = False
    if not keep.any():
        raise UsageError(f"{source}: every step is the last of an episode; nothing to learn from")
    ends = final if continues_after_terminal and "timeouts" in raw else final | terminals
    episodes = np.concatenate([[0], np.cumsum(ends)[:-1]]).astype(np.int32)
    index = np.flatnonzero(keep)
    observations = np.asarray(raw["observations"], np.float32)
    timeouts = int(final.sum())
    actions = np.asarray(raw["actions"], np.float32)[index]
    beyond = int((np.abs(actions) > 1.0).any(axis=1).sum())
    return Transitions(
        observations=observations[index],
        actions=np.clip(actions, -ACTION_LIMIT, ACTION_LIMIT),
        next_observations=observations[index + 1],
        rewards=np.asarray(raw["rewards"], np.float32)[index],
        terminals=terminals[index],
        episodes=episodes[index],
        dropped=(
            f"{n - len(index)} of {n} recorded steps give no transition: {timeouts} end an episode "
            f"by time-out{'' if final[-1] else ', 1 is the last row'} (no next observation)"
            + (f"; {beyond} actions outside [-1, 1] are clipped" if beyond else "")
        ),
    )


def _counted_timeouts(terminals: np.ndarray, limit: int) -> np.ndarray:
    """Where D4RL's own counter times out, in files that do not record it.

    Its counter restarts at 0 after a time-out and at 1 after a terminal.
    """
    final = np.zeros(len(terminals), bool)
    start = 0  # the index at which the counter would have read 0
    for stop in np.append(np.flatnonzero(terminals), len(terminals) - 1):
        final[start + limit - 1 : stop + 1 : limit] = True
        start = stop + 1 if final[stop] else stop
    return final
