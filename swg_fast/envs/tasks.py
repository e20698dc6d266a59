"""Presets of the tasks, read from ``presets.toml``, and the patterns of their names."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

from swg_fast.common.errors import UsageError

MINARI = "minari:"
# OGBench's names: environment, kind of data, perhaps one task of five, version.
OGBENCH = re.compile(r"(?P<env>(?:visual-)?(?:pointmaze|antmaze|humanoidmaze|antsoccer|cube|scene|puzzle|"
                     r"powderworld)(?:-\w+?)?)-(?P<data>navigate|stitch|explore|play|noisy|easy|medium|hard)"
                     r"(?P<single>-singletask(?:-task\d)?)?-v\d+")
GYMNASIUM = re.compile(r"(?:[\w.]+:)?(?:[\w:-]+/)?[\w:.-]+-v\d+")


@dataclass(frozen=True)
class Preset:
    task: str
    family: str  # antmaze, locomotion, kitchen, adroit; other for another benchmark's
    training: Mapping[str, Any]  # `TrainSettings` that differ from the defaults
    sampling: Mapping[str, Any]  # arguments of `Policy.sample` that a policy of the task begins with
    episodes: int
    max_episode_steps: int | None  # None: its dataset says where episodes end
    state_dim: int | None  # None: the environment says
    action_dim: int | None
    newer: str | None = None  # the same task with D4RL's newer data, which is played in the same environment

    def check_sizes(self, state_dim: int, action_dim: int, source: str) -> None:
        """`UsageError` where data or a policy of these sizes, from ``source``, is not for this task."""
        if self.state_dim is not None and (state_dim, action_dim) != (self.state_dim, self.action_dim):
            raise UsageError(f"{source}: observations of {state_dim} and actions of {action_dim}, and "
                             f"{self.task} has states of {self.state_dim} and actions of {self.action_dim}; "
                             "give data of that task, or name the task that the data was recorded in")


def _file() -> dict[str, Any]:
    return tomllib.loads((resources.files("swg_fast.envs") / "presets.toml").read_text(encoding="utf-8"))


@cache
def presets() -> dict[str, Preset]:
    """Every preset by task name, those of older data last."""
    table, older = {}, {}
    for family, values in _file().items():
        if family == "other":
            continue
        tasks, wide, version = values.pop("tasks"), values.pop("wide", {}), values.pop("older", None)
        for task, own in tasks.items():
            more = wide if own.pop("wide", False) else {}
            training = values["training"] | more.get("training", {})
            table[task] = Preset(task=task, family=family, sampling=more.get("sampling", {}),
                                 **(values | own | {"training": training}))
            if version is not None:
                name = f"{task.rpartition('-')[0]}-{version}"
                older[name] = replace(table[task], task=name, newer=task)
    return table | older


@cache
def set_by_presets() -> frozenset[str]:
    """The names of the training settings that at least one preset has."""
    return frozenset(name for preset in presets().values() for name in preset.training)


def find_preset(task: str, more: str = "") -> Preset:
    """The preset of ``task``; `UsageError`, with the nearest names and ``more``, where there is none."""
    table = presets()
    if task not in table:
        import difflib

        near = difflib.get_close_matches(task, table, n=3, cutoff=0.4) or list(table)[:3]
        raise UsageError(f"unknown environment {task!r}; did you mean {', '.join(near)}? "
                         f"'swg-fast info' lists all{more}")
    return table[task]


def preset_for(task: str, any_name: bool = False) -> Preset:
    """The preset of ``task``: a D4RL task's own, or what presets.toml has for other benchmarks' names.

    Raises `UsageError` as `find_preset` does for a name that fits no benchmark, unless ``any_name`` will do.
    """
    if not isinstance(task, str):
        raise UsageError(f"a task is a name, got {task!r}")
    if task in presets() or not (any_name or task.startswith(MINARI) or GYMNASIUM.fullmatch(task)):
        return find_preset(task, "; for a name of your own 'swg-fast train' takes --new-task")
    values = next(kind for kind in _file()["other"] if re.search(kind["pattern"], task, re.IGNORECASE))
    return Preset(task=task, family="other", training=values["training"], sampling={}, episodes=50,
                  max_episode_steps=None, state_dim=None, action_dim=None)
