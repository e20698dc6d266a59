"""Loads every kind of dataset: a file, the name of a D4RL or OGBench task, or ``minari:...``."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from swg_fast.common.atomic_files import user_path
from swg_fast.common.errors import UsageError
from swg_fast.data.download import download
from swg_fast.data.hdf5 import read_hdf5
from swg_fast.data.transitions import Transitions, to_transitions
from swg_fast.envs.tasks import OGBENCH, preset_for, presets


def load_for(task: str | None, source: str, *, observation_keys: Sequence[str] | None = None,
             mirror: str | None = None, trust: Sequence[str] = ()) -> Transitions:
    """The transitions that a training of ``task`` learns from (None: of no known task), read by the task's
    preset; ``trust`` is as in `make_env`. `UsageError` as `load_dataset` raises, and where their sizes are
    not the task's."""
    preset = preset_for(task) if task is not None else None
    data = load_dataset(source, task=task, max_episode_steps=preset.max_episode_steps if preset else None,
                        continues_after_terminal=preset is not None and preset.family == "antmaze",
                        observation_keys=observation_keys, mirror=mirror, trust=trust)
    if preset is not None:
        preset.check_sizes(data.observations.shape[1], data.actions.shape[1], source)
    return data


def load_dataset(source: str | Path, *, max_episode_steps: int | None = None,
                 continues_after_terminal: bool = False, task: str | None = None,
                 observation_keys: Sequence[str] | None = None, mirror: str | None = None,
                 trust: Sequence[str] = ()) -> Transitions:
    """Transitions from ``source``; see `to_transitions`, `load_minari` and `download` for the keywords,
    and `make_env` for ``trust``.

    - a path that ends in .hdf5 or .h5, or exists: a file in D4RL's layout;
    - ``minari:NAMESPACE/NAME-vN``: a Minari dataset on this machine (or downloaded by Minari);
    - an OGBench single task's name, or its .npz file with ``task`` that name;
    - a D4RL task name such as ``antmaze-umaze-v2``: downloaded to, or read from, D4RL's own cache.

    Raises `UsageError` where there is no such data or it is not usable.
    """
    text = str(source)
    if mirror is not None and (text not in presets() or Path(text).exists()):
        raise UsageError(f"--mirror {mirror}: works only for D4RL's datasets by name, and {text} is not one; "
                         "leave it out")
    if text.startswith("minari:"):
        from swg_fast.data.minari import load_minari

        return load_minari(text.removeprefix("minari:"), observation_keys, trust)
    if observation_keys is not None:
        raise UsageError(f"{text}: its observations are one vector, so leave --observation-keys out")
    if OGBENCH.fullmatch(text) or text.endswith(".npz"):
        from swg_fast.data.ogbench import load_ogbench

        if text.endswith(".npz") and not OGBENCH.fullmatch(task or ""):
            raise UsageError(f"{text} is an OGBench file; name its single task, such as "
                             f"antmaze-large-navigate-singletask-v0, in the place of {task!r}")
        return load_ogbench(str(task), text) if text.endswith(".npz") else load_ogbench(text)
    path = user_path(text)
    if path.suffix not in (".hdf5", ".h5") and not path.exists():
        if text not in presets():
            near = difflib.get_close_matches(text, presets(), n=3, cutoff=0.4) or list(presets())[:3]
            raise UsageError(f"{text!r} is neither a file nor a D4RL dataset; did you mean "
                             f"{', '.join(near)}? Or give a path, or minari:D4RL/antmaze/umaze-v1")
        path = download(text, mirror=mirror)
    return to_transitions(read_hdf5(path), max_episode_steps=max_episode_steps,
                          continues_after_terminal=continues_after_terminal, source=str(path))
