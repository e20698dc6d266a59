"""Presets of the D4RL tasks, read from ``presets.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from swg_fast.errors import UsageError


@dataclass(frozen=True)
class Preset:
    task: str
    family: str  # antmaze, locomotion, kitchen, adroit
    expectile: float
    dropout: float
    reward_transform: str
    episodes: int
    max_episode_steps: int
    state_dim: int
    action_dim: int

    def check_sizes(self, state_dim: int, action_dim: int, source: str) -> None:
        """`UsageError` where data or a policy of these sizes, from ``source``, is not for this task."""
        if (state_dim, action_dim) != (self.state_dim, self.action_dim):
            raise UsageError(f"{source}: observations of {state_dim} and actions of {action_dim}, and "
                             f"{self.task} has {self.state_dim} and {self.action_dim}; name the task that "
                             "the data was recorded in")


@cache
def presets() -> dict[str, Preset]:
    """Every preset by task name."""
    text = (resources.files("swg_fast") / "presets.toml").read_text()
    table = {}
    for family, values in tomllib.loads(text).items():
        tasks = values.pop("tasks")
        for task, own in tasks.items():
            table[task] = Preset(task=task, family=family, **(values | own))
    return table


def find_preset(task: str) -> Preset:
    """The preset of ``task``; `UsageError`, with the nearest names, where there is none."""
    table = presets()
    if task not in table:
        import difflib

        near = difflib.get_close_matches(task, table, n=3, cutoff=0.4) or list(table)[:3]
        raise UsageError(f"unknown environment {task!r}; did you mean {', '.join(near)}? "
                         "'swg-fast info' lists all")
    return table[task]
