"""A training run as one TOML file: what ``--config`` reads and every run writes.

Its keys are the fields of `TrainSettings` and of `RunOptions`. An option on the command line wins over
the file, the file over the task's preset, the preset over the default.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from swg_fast.common.atomic_files import write_text
from swg_fast.common.checks import choice, shown
from swg_fast.common.errors import UsageError
from swg_fast.common.read_files import read_toml
from swg_fast.common.settings_fields import check_fields, checked, like, setting
from swg_fast.envs.action_bounds import ActionBounds
from swg_fast.envs.settings import STATE_STRIDE, EnvSettings
from swg_fast.envs.tasks import Preset
from swg_fast.training.logger import LOGGERS
from swg_fast.training.saved_state import KEEP
from swg_fast.training.settings import MOST_STEPS, TrainSettings

CONFIG = "config.toml"
HEADER = "# swg-fast {command} --config "  # how a file that a run wrote begins


# What `preset` sets, between a task's preset and a file.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {}, "small": {"hidden_dim": 128, "critic_steps": 20_000, "actor_steps": 20_000,
                           "actor_batch": 256}}


def _numbers(name: str, value: Any) -> list[float] | None:
    """One number or several, as a list; a text has them comma-separated."""
    if value is None:
        return None
    several = value.split(",") if isinstance(value, str) else np.ravel(np.asarray(value, object)).tolist()
    try:
        return [float(each) for each in several]
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} is {shown(value)}; give one number, or one for each entry of an action, "
                         "such as -1,-2") from error


@dataclass(frozen=True)
class RunOptions:
    """What a run needs beside its `TrainSettings`; none of it belongs to the method."""

    task: str | None = setting(None, "The task, where the command does not name it.")
    new_task: bool = setting(False, "TASK is a name of your own, which no environment here has: train with "
                                    "the defaults of other benchmarks.")
    preset: str = setting("paper", "Sizes by one name; options win. small: hidden_dim 128 and few steps, "
                                   "which two cores take in minutes.", choices=PRESETS)
    dataset: str | None = setting(
        None, "D4RL HDF5 file, minari:NAME or OGBench's .npz file. Left out: TASK's own.")
    observation_keys: str | None = setting(
        None, "Parts of a dictionary observation, comma-separated and in order, such as "
              "achieved_goal,observation. Left out: all of them, the goal included.")
    action_low: Any = setting(
        None, "The lowest action in the data's units, one number or one for each entry, comma-separated. "
              "Left out: the environment's.", check=_numbers)
    action_high: Any = setting(None, "The highest action, as --action-low.", check=_numbers)
    strict: bool = setting(False, "Refuse data that contradict themselves.")
    trust: tuple[str, ...] = like(EnvSettings, "trust", ())
    mirror: str | None = setting(
        None, "Address that has D4RL's folders below it, to download TASK's data from.")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    threads: int | None = setting(None, "CPU threads. Left out: all.", min=1)
    log_every: int = setting(1000, "Steps between two lines of the logs.", min=1, top=MOST_STEPS)
    save_every: int = setting(10_000, "Steps between two saved states.", min=1, top=MOST_STEPS)
    keep_states: int = setting(KEEP, "Saved states of a phase that stay on disk, the newest.", min=1,
                               top=MOST_STEPS)
    critic: str | None = setting(
        None, "Take the critic of --critic-steps from the states of this run, which has the same settings of "
              "the critic. Left out: train one.")
    eval_every: int | None = setting(
        None, "Steps of the diffusion between two evaluations in TASK's environment, whose scores go into "
              "the history and the curves. Left out: none.", min=1, top=MOST_STEPS)
    eval_episodes: int = setting(10, "Episodes of each of these evaluations.", min=1, top=STATE_STRIDE - 1)
    quiet: bool = setting(False, "No progress bar and no tables.")
    logger: str = setting("tensorboard", "What draws the curves; OUT/logs/history.jsonl has them always.",
                          choices=LOGGERS)

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.action_low is None) != (self.action_high is None):
            raise UsageError("--action-low and --action-high belong together; give both, or neither")

    @property
    def bounds(self) -> ActionBounds | None:
        """The bounds of actions that were chosen; None where they are the environment's."""
        if self.action_low is None:
            return None
        return ActionBounds.of(self.action_low, self.action_high, "--action-low and --action-high")


def config_fields(*records: type) -> dict[str, Field]:
    """Every key of a configuration of these ``records``; without any, of a training's."""
    return {entry.name: entry for record in records or (RunOptions, TrainSettings)
            for entry in fields(record)}


def read_config(path: str | Path, *records: type) -> dict[str, Any]:
    """The values of a TOML file with fields of these ``records``; without any, of a training's.
    `UsageError`, with the file's name, where there is none or it has an unknown key or a value outside its
    range."""
    values = read_toml(path, "--config")
    known = config_fields(*records)
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            mend = f"did you mean {near[0]!r}?" if near else "the command's --help lists all"
            raise UsageError(f"{path}: unknown key {name!r}; {mend}")
        try:
            values[name] = checked(known[name], value)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error
    return values


def write_config(path: str | Path, values: Mapping[str, Any], command: str = "train") -> None:
    """Writes ``values`` so that `read_config` returns them, for ``command --config``. None is left out, since
    it is the default."""
    import tomli_w

    text = tomli_w.dumps({name: value for name, value in values.items() if value is not None})
    header = HEADER.format(command=command)
    write_text(path, f"{header}{Path(path).name} makes this policy again.\n{text}")


def resolve(chosen: Mapping[str, Any], file: Mapping[str, Any], preset: Preset
            ) -> tuple[RunOptions, TrainSettings]:
    """The run's options and settings, from the ``chosen`` values (None: not chosen), a configuration file's
    and a task's preset, in this order of precedence."""
    sizes = choice("preset", chosen.get("preset") or file.get("preset", "paper"), PRESETS)
    values = dict(preset.training) | PRESETS[sizes] | dict(file)
    values |= {name: value for name, value in chosen.items() if value is not None}
    names = {entry.name for entry in fields(TrainSettings)}
    return (RunOptions(**{k: v for k, v in values.items() if k not in names}),
            TrainSettings(**{k: v for k, v in values.items() if k in names}))
