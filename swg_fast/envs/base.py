"""What evaluation asks of an environment, whatever library it comes from."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Maze:
    """Walls of an Ant Maze: centres [W, 2] and side length, in metres as the ant's position."""

    walls: np.ndarray
    size: float


class Step(NamedTuple):
    """What an action led to: the next observation [S] float32, the reward, and whether the episode ended."""

    observation: np.ndarray
    reward: float
    done: bool


class TaskEnv(abc.ABC):
    """Seeded episodes with flat observations [S] and actions [A] in [-1, 1].

    The episode's seed sets start, goal and every other draw, whatever was run before.

    Attributes: ``task``; ``state_dim`` S; ``action_dim`` A; ``max_episode_steps``, None without a
    limit; ``score_name``, what `score` counts, and ``succeeds_or_fails``, whether it is 0 or 100 for
    failure or success; ``truncated``, whether the last step ended its
    episode by the limit of time; ``success``, whether the episode has reached its goal, None where
    the environment does not say.
    """

    task: str
    state_dim: int
    action_dim: int
    max_episode_steps: int | None
    score_name: str = "mean return"
    succeeds_or_fails: bool = False
    truncated: bool = False
    success: bool | None = None

    @abc.abstractmethod
    def reset(self, seed: int) -> np.ndarray:
        """The first observation [S] float32 of the episode that ``seed`` (32 bits) stands for."""

    @abc.abstractmethod
    def step(self, action: np.ndarray) -> Step:
        """Takes ``action`` [A]; sets ``truncated`` and ``success`` too."""

    @abc.abstractmethod
    def render(self, width: int = 480, height: int = 480) -> np.ndarray:
        """A picture [height, width, 3] uint8. `UsageError` where this machine cannot draw it."""

    @abc.abstractmethod
    def simulator(self) -> dict[str, str]:
        """Name, version and contacts of what steps it, for a result's JSON."""

    def score(self, total_reward: float, success: bool | None) -> float:
        """What one episode counts; a result's score is the mean. By default its return."""
        return total_reward

    def position(self) -> np.ndarray | None:
        """Where the agent is, [2] in metres; None outside a maze."""
        return None

    def goal(self) -> np.ndarray | None:
        """Where it should go, [2] in metres; None outside a maze."""
        return None

    def maze(self) -> Maze | None:
        """The walls; None outside a maze."""
        return None

    def close(self) -> None:  # noqa: B027  most have nothing to let go of
        """Lets go of windows and contexts."""
