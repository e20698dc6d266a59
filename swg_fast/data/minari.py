"""Minari datasets, read episode by episode into D4RL's layout."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from swg_fast.data.transitions import Transitions, to_transitions
from swg_fast.errors import UsageError
from swg_fast.extras import need


def load_minari(name: str) -> Transitions:
    """Transitions of the Minari dataset ``name``, such as ``D4RL/antmaze/umaze-v1``.

    A Minari episode of n steps has n + 1 observations, so every step gives a transition, those that
    end by time-out included. Ant Maze's dict observations are flattened as D4RL's: the position
    (achieved goal) first, then the rest.

    Raises `UsageError` where Minari is not installed, or the dataset is neither here nor
    downloadable.
    """
    minari = need("minari", f"minari:{name}")
    try:
        dataset = minari.load_dataset(name, download=False)
    except Exception:  # not on this machine; Minari raises various types
        try:
            dataset = minari.load_dataset(name, download=True)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UsageError(f"minari:{name} is not on this machine and could not be downloaded "
                             f"({reason}); 'minari list remote' shows the names") from error
    columns: dict[str, list[np.ndarray]] = {
        key: [] for key in ("observations", "actions", "rewards", "terminals", "timeouts")}
    steps = 0
    try:
        for episode in dataset.iterate_episodes():
            observations = _flatten(episode.observations)
            n = len(episode.rewards)
            steps += n
            # One extra row carries the last observation; marked as a time-out, it gives no transition.
            columns["observations"].append(observations[: n + 1])
            columns["actions"].append(_padded(_numbers(episode.actions, "actions")))
            columns["rewards"].append(_padded(_numbers(episode.rewards, "rewards").astype(np.float64)))
            columns["terminals"].append(_padded(np.asarray(episode.terminations, bool)))
            columns["timeouts"].append(np.arange(n + 1) == n)
        raw = {key: np.concatenate(parts) for key, parts in columns.items() if parts}
    except UsageError as error:
        raise UsageError(f"minari:{name}: {error}") from error
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise UsageError(f"minari:{name} is not readable ({reason(error)}); delete it and download it again"
                         ) from error
    if not steps:
        raise UsageError(f"minari:{name} has no steps")
    data = to_transitions(raw, continues_after_terminal=True, source=f"minari:{name}")
    return replace(data, dropped=f"all {steps} recorded steps give a transition")


def _flatten(observations: object) -> np.ndarray:
    if not isinstance(observations, dict):
        return _numbers(observations, "observations")
    first = [key for key in ("achieved_goal",) if key in observations]
    rest = [key for key in ("observation",) if key in observations]
    keys = first + rest or sorted(observations)
    return np.concatenate([_numbers(observations[key], key) for key in keys], axis=1)


def _numbers(values: object, name: str) -> np.ndarray:
    """``values`` as they are, if they are real numbers and not classes or pixels."""
    array = np.asarray(values)
    if array.dtype.kind not in ("fiu" if name == "rewards" else "f"):
        raise UsageError(f"{name} have dtype {array.dtype}; continuous ones, of floating point, are needed")
    return array


def _padded(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values, np.zeros_like(values[:1])])
