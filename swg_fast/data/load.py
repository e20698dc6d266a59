"""Loads every kind of dataset: a file, the name of a D4RL or OGBench task, ``minari:...``, or arrays."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swg_fast.common.atomic_files import user_path
from swg_fast.common.checks import shown
from swg_fast.common.errors import UsageError
from swg_fast.data.download import download
from swg_fast.data.hdf5 import read_hdf5
from swg_fast.data.transitions import ARRAYS, FLAGS, Transitions, to_transitions
from swg_fast.envs.action_bounds import ActionBounds
from swg_fast.envs.registry import make_env
from swg_fast.envs.tasks import MINARI, OGBENCH, preset_for, presets


def load_for(task: str | None, source: str, *, observation_keys: Sequence[str] | None = None,
             mirror: str | None = None, trust: Sequence[str] = (), bounds: ActionBounds | None = None
             ) -> Transitions:
    """The transitions that a training of ``task`` learns from (None: of no known task), read by the task's
    preset; ``trust`` is as in `make_env`. Without ``bounds`` actions have those of the dataset, or of the
    task's environment if it can be made here. `UsageError` as `load_dataset` raises, and where their sizes
    are not the task's."""
    preset = preset_for(task, any_name=True) if task is not None else None
    own = preset is not None and preset.family != "other"
    says_so = source.startswith(MINARI) or _is_ogbenchs(source) or source.endswith(".npz")
    if bounds is None and task is not None and not says_so:
        bounds = bounds_of(task, trust)
    data = load_dataset(source, task=task, max_episode_steps=preset.max_episode_steps if preset else None,
                        continues_after_terminal=preset is not None and preset.family == "antmaze",
                        observation_keys=observation_keys, mirror=mirror, trust=trust, bounds=bounds,
                        as_d4rl=own or task is None)
    if preset is not None:
        preset.check_sizes(data.observations.shape[1], data.actions.shape[1], source)
    return data


def bounds_of(task: str, trust: Sequence[str] = ()) -> ActionBounds | None:
    """The bounds of the actions of ``task``'s environment; None where it cannot be made here."""
    if task in presets():
        return ActionBounds.unit(1)  # D4RL's
    try:
        env = make_env(task, trust=trust)
    except UsageError:
        return None  # `scaled_actions` refuses actions that need them, and `Transitions.units` says so
    env.close()
    return env.bounds


def load_dataset(source: str | Path, *, max_episode_steps: int | None = None,
                 continues_after_terminal: bool = False, task: str | None = None,
                 observation_keys: Sequence[str] | None = None, mirror: str | None = None,
                 trust: Sequence[str] = (), bounds: ActionBounds | None = None, as_d4rl: bool = True
                 ) -> Transitions:
    """Transitions from ``source``; see `to_transitions`, `load_minari` and `download` for the keywords,
    and `make_env` for ``trust``.

    - a path that ends in .hdf5 or .h5, or exists: a file in D4RL's layout;
    - ``minari:NAMESPACE/NAME-vN``: a Minari dataset on this machine (or downloaded by Minari);
    - an OGBench single task's name, or its .npz file with ``task`` that name;
    - a D4RL task name such as ``antmaze-umaze-v2``: downloaded to, or read from, D4RL's own cache.

    Without ``bounds`` the actions of a Minari or OGBench dataset have those of its environment, and D4RL's by
    name lie in [-1, 1], as those of a file must.

    Raises `UsageError` where there is no such data or it is not usable.
    """
    text = str(source)
    if mirror is not None and (text not in presets() or Path(text).exists()):
        raise UsageError(f"--mirror {mirror}: works only for D4RL's datasets by name, and {text} is not one; "
                         "leave it out")
    if text.startswith("minari:"):
        from swg_fast.data.minari import load_minari

        return load_minari(text.removeprefix("minari:"), observation_keys, trust, bounds)
    if observation_keys is not None:
        raise UsageError(f"{text}: its observations are one vector, so leave --observation-keys out")
    if _is_ogbenchs(text) or text.endswith(".npz"):
        from swg_fast.data.ogbench import load_ogbench

        if text.endswith(".npz") and not _is_ogbenchs(task or ""):
            raise UsageError(f"{text} is an OGBench file; name its single task, such as "
                             f"antmaze-large-navigate-singletask-v0, in the place of {task!r}")
        name, file = (text, None) if _is_ogbenchs(text) else (str(task), text)
        return load_ogbench(name, file, bounds)
    path = user_path(text)
    if path.suffix not in (".hdf5", ".h5") and not path.exists():
        if text not in presets():
            near = difflib.get_close_matches(text, presets(), n=3, cutoff=0.4) or list(presets())[:3]
            raise UsageError(f"{text!r} is neither a file nor a D4RL dataset; did you mean "
                             f"{', '.join(near)}? Or give a path, or minari:D4RL/antmaze/umaze-v1")
        path, bounds = download(text, mirror=mirror), bounds or ActionBounds.unit(1)
    return to_transitions(read_hdf5(path), bounds=bounds, max_episode_steps=max_episode_steps,
                          continues_after_terminal=continues_after_terminal, as_d4rl=as_d4rl,
                          source=str(path))


def _is_ogbenchs(name: str) -> bool:
    """OGBench's names have the form of D4RL's antmaze-medium-play-v2, which are D4RL's alone."""
    return name not in presets() and OGBENCH.fullmatch(name) is not None


def from_arrays(arrays: Mapping[str, Any], bounds: ActionBounds | None = None) -> Transitions:
    """Transitions of a user's own recording, a row a step: ``observations`` [N, S], ``actions`` [N, A],
    ``rewards`` [N]; ``terminals`` [N] (left out: no step is terminal), ``timeouts`` [N] and
    ``next_observations`` [N, S], of which one is needed. See `to_transitions`.

    Raises `UsageError` for what are no such arrays of real numbers.
    """
    raw = {}
    for name, value in arrays.items():
        try:
            array = np.asarray(value)
        except Exception as error:  # ragged lists, and whatever other libraries' arrays raise
            raise UsageError(f"{name} is no array of numbers ({shown(value)}); give a row a step") from error
        whole = name not in FLAGS and array.dtype.kind in "bui"
        raw[name] = array.astype(np.float32) if whole else array
    if "rewards" in raw and "terminals" not in raw:
        raw["terminals"] = np.zeros(raw["rewards"].shape[:1], bool)
    return to_transitions({name: raw[name] for name in ARRAYS if name in raw}, bounds=bounds, as_d4rl=False,
                          source="the arrays")
