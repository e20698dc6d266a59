"""Raw recorded steps -> transitions, exactly as ``d4rl.qlearning_dataset`` does, vectorised."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from swg_fast.common.checks import flag, whole
from swg_fast.common.errors import UsageError, note
from swg_fast.data.findings import OTHER_ENDS, Ends, Finding, breaks, of_actions, of_ends, of_steps
from swg_fast.envs.action_bounds import ActionBounds

REQUIRED_KEYS = ("observations", "actions", "rewards", "terminals")
FLAGS = ("terminals", "timeouts")
ROWS = ("observations", "next_observations", "actions")  # which have a vector a row
ARRAYS = (*ROWS, "rewards", *FLAGS)
# The largest absolute values: the networks square them in float32, which ends at 3e38.
LARGEST = 1e15
FURTHEST = 10.0  # times its bounds; an action that lies further out was recorded in another unit
ACTION_LIMIT = 1.0 - 1e-5  # keeps actions strictly inside (-1, 1)


@dataclass(frozen=True)
class Transitions:
    """Transitions in file order. ``S`` and ``A`` are the state and action sizes.

    observations, next_observations [N, S] float32; actions [N, A] float32, scaled by ``bounds`` to [-1, 1]
    (None: they were recorded so); rewards [N] float32;
    terminals [N] bool; episodes [N] int32 (which recorded episode a transition is from).
    ``dropped`` says in words which recorded steps gave no transition, and why. ``observation_keys``
    names the parts of a dictionary observation in their order, None where it was a vector. ``findings``
    are what in the recording contradicts itself.
    """

    observations: np.ndarray
    actions: np.ndarray
    next_observations: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    episodes: np.ndarray
    dropped: str = ""
    observation_keys: tuple[str, ...] | None = None
    bounds: ActionBounds | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def units(self) -> str:
        """In words, how the actions were scaled."""
        if self.bounds is None:
            return "no bounds are known: taken as scaled to [-1, 1] already"
        return f"{self.bounds}" + ("" if self.bounds.is_unit else ", scaled to [-1, 1]")

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

    def unlearnt(self, share: float, seed: int, purpose: str) -> np.ndarray:
        """`held_out`, or all transitions where no episode is; a `Note` says then what ``purpose`` has."""
        mask = self.held_out(share, seed)
        if not mask.any():
            note(f"no episode is held out: {purpose} on states that were learnt")
            return ~mask
        return mask

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
        dims = 2 if key in ROWS else 1
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
    if "next_observations" in raw and raw["next_observations"].shape != raw["observations"].shape:
        raise UsageError(f"{source}: 'next_observations' has shape {list(raw['next_observations'].shape)} "
                         f"and 'observations' {list(raw['observations'].shape)}; they need the same")


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
        elif max(-low, high) > LARGEST:
            raise UsageError(f"{source}: {key!r} reach {max(-low, high):.3g}, beyond the {LARGEST:g} "
                             "that can be learnt from; scale them when saving the file")


def to_transitions(
    raw: Mapping[str, np.ndarray],
    *,
    bounds: ActionBounds | None = None,
    max_episode_steps: int | None = None,
    continues_after_terminal: bool = False,
    as_d4rl: bool = True,
    source: str = "dataset",
) -> Transitions:
    """Transitions of a recording ``raw`` with D4RL's keys.

    The last step of an episode that timed out is dropped, since the row after it belongs to
    another episode, and so is the last row of the file. Where ``raw`` has ``next_observations`` these are
    used, and no row is dropped. Without a ``timeouts`` array an episode times out after
    ``max_episode_steps``, counted as D4RL counts.

    Actions are in the environment's units and are scaled by its ``bounds`` to +-(1 - 1e-5); what lies
    outside is clipped. Without bounds they must lie in [-1, 1] already.

    ``as_d4rl`` is the conversion of D4RL's own tasks: it drops a row that times out even if it is terminal,
    and leaves recorded next observations aside where they are the next rows'. Otherwise a terminal row is
    kept, since it needs no next observation.

    A terminal ends its episode, unless the recording ``continues_after_terminal``, as Ant Maze's do:
    there a terminal marks a touch of the goal, and the ant walks on until the time-out.

    Raises `UsageError` for data that `check_layout` and `check_values` reject, and for actions in another
    unit.
    """
    if max_episode_steps is not None:
        max_episode_steps = whole("max_episode_steps", max_episode_steps, 1, 2**31 - 1)
    continues_after_terminal = flag("continues_after_terminal", continues_after_terminal)
    raw = {key: np.asarray(raw[key]) for key in (*ARRAYS, *OTHER_ENDS) if key in raw}
    check_layout(raw, source)
    check_values(raw, source)
    ends = _ends(raw, max_episode_steps, as_d4rl, source)
    keep, n = _kept(ends, as_d4rl, source), len(ends.terminals)
    over = ends.timeouts | ends.breaks
    if not (continues_after_terminal and "timeouts" in raw):
        over = over | ends.terminals
    episodes = np.concatenate([[0], np.cumsum(over)[:-1]]).astype(np.int32)
    index = np.flatnonzero(keep)
    observations = np.asarray(raw["observations"], np.float32)
    alone = ends.timeouts[index] | (index == n - 1)  # without a next row
    following = np.asarray(raw["next_observations"], np.float32)[index] if ends.used else \
        observations[np.where(alone, index, index + 1)]
    actions, found = scaled_actions(np.asarray(raw["actions"])[index], bounds, source)
    terminals = ends.terminals[index]
    over = terminals | (alone & (not ends.used))
    return Transitions(
        observations=observations[index],
        actions=actions,
        next_observations=following,
        rewards=np.asarray(raw["rewards"], np.float32)[index],
        terminals=terminals,
        episodes=episodes[index],
        dropped=_dropped(ends, n, keep),
        bounds=None if bounds is None else bounds.sized(actions.shape[1], source),
        findings=(*of_ends(raw, ends, keep), *of_steps(observations[index], following, over), *found),
    )


class ScaledActions(NamedTuple):
    """Actions [N, A] float32 as networks learn them, and what is odd about the recorded ones."""

    actions: np.ndarray
    findings: list[Finding]


def scaled_actions(actions: np.ndarray, bounds: ActionBounds | None, source: str) -> ScaledActions:
    """Recorded ``actions`` [N, A] scaled by ``bounds``. `UsageError` where they are not in the units of
    these, or beyond [-1, 1] where there are none."""
    bounds = None if bounds is None else bounds.sized(actions.shape[1], source)
    scaled = np.asarray(actions, np.float32) if bounds is None else bounds.to_unit(actions)
    most, reach = float(np.abs(scaled).max()), float(np.abs(actions).max())
    if bounds is None and most > 1.001:
        raise UsageError(f"{source}: 'actions' reach {reach:.3g}, beyond 1, and the bounds of the "
                         "environment's actions are not known; give --action-low and --action-high (in "
                         "Python action_low and action_high, or the environment)")
    if most > FURTHEST:
        raise UsageError(f"{source}: 'actions' reach {reach:.3g}, and their bounds are {bounds}; they are "
                         "in another unit: scale them when saving, or give the bounds of the recording")
    found = [] if bounds is None else of_actions(scaled, bounds)
    return ScaledActions(np.clip(scaled, -ACTION_LIMIT, ACTION_LIMIT), found)


def _ends(raw: Mapping[str, np.ndarray], limit: int | None, as_d4rl: bool, source: str) -> Ends:
    """Where the episodes of ``raw`` end, and whether its recorded next observations are used."""
    terminals = raw["terminals"].astype(bool)
    counted = False
    if "timeouts" in raw:
        timeouts = raw["timeouts"].astype(bool)
    elif limit:
        timeouts, counted = _counted_timeouts(terminals, limit), True
    elif "next_observations" in raw:
        timeouts = np.zeros(len(terminals), bool)
    else:
        raise UsageError(
            f"{source}: no 'timeouts', no 'next_observations' and no known episode limit; add one of the "
            "arrays, or name the task, whose limit is then used"
        )
    broken = breaks(raw, terminals | timeouts)
    used = "next_observations" in raw and not (as_d4rl and not broken.any())
    return Ends(terminals, timeouts, broken, counted, used)


def _kept(ends: Ends, as_d4rl: bool, source: str) -> np.ndarray:
    """Which recorded steps give a transition, [N] bool: those that have a next observation or need none."""
    if ends.used:
        return np.ones(len(ends.terminals), bool)
    keep = ~ends.timeouts
    keep[-1] = False
    keep |= ends.terminals & (not as_d4rl)
    if not keep.any():
        raise UsageError(f"{source}: every step is the last of an episode; nothing to learn from")
    return keep


def _dropped(ends: Ends, n: int, keep: np.ndarray) -> str:
    """In words, which of ``n`` recorded steps give no transition."""
    if ends.used:
        return f"all {n} recorded steps give a transition, with the next observations that were recorded"
    timeouts = int((ends.timeouts & ~keep).sum())
    last = not keep[-1] and not ends.timeouts[-1]
    return (f"{n - int(keep.sum())} of {n} recorded steps give no transition: {timeouts} end an episode by "
            f"time-out{', 1 is the last row' if last else ''} (no next observation)")


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
