"""What evaluation asks of an environment, whatever library it comes from."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from swg_fast.common.seeds import BorrowedRandom, random_kept
from swg_fast.envs.action_bounds import ActionBounds


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
    """Seeded episodes with flat observations [S] and actions [A] in the environment's own units.

    The episode's seed sets start, goal and every other draw, whatever ran before.
    """

    task: str
    state_dim: int  # S
    action_dim: int  # A
    max_episode_steps: int | None  # None: no limit
    score_name: str = "mean return"  # what `score` counts
    succeeds_or_fails: bool = False  # whether `score` is 0 for a failure and 100 for a success
    truncated: bool = False  # whether the time limit ended the episode at the last step
    success: bool | None = None  # whether the goal was reached; None: the environment does not say

    alone: bool = False  # whether no other code in this process draws from the global generators

    @abc.abstractmethod
    def reset(self, seed: int) -> np.ndarray:
        """The first observation [S] float32 of the episode that ``seed`` (32 bits) stands for."""

    @abc.abstractmethod
    def step(self, action: np.ndarray) -> Step:
        """Takes ``action`` [A], which is clipped to `bounds`; sets ``truncated`` and ``success`` too."""

    @abc.abstractmethod
    def render(self, width: int = 480, height: int = 480) -> np.ndarray:
        """A picture [height, width, 3] uint8. `UsageError` where this machine cannot draw it."""

    @abc.abstractmethod
    def simulator(self) -> dict[str, str]:
        """Name, version and contacts of what steps it, for a result's JSON."""

    @property
    def bounds(self) -> ActionBounds:
        """The lowest and the highest action: -1 and 1 where an environment does not say otherwise."""
        return ActionBounds.unit(self.action_dim)

    def score(self, total_reward: float, success: bool | None) -> float:
        """The score of one episode, by default its return. A result's score is the mean over episodes."""
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

    @cached_property
    def _random(self) -> BorrowedRandom:
        return BorrowedRandom()

    @contextmanager
    def own_random(self, seed: int | None = None) -> Iterator[None]:
        """For the block, which may draw from NumPy's global generator, gives it one of its own, seeded with
        ``seed`` where given. The caller's stays as it was."""
        if self.alone:
            if seed is not None:
                np.random.seed(seed)
            yield
            return
        with self._random.lent():
            if seed is None:
                yield
                return
            np.random.seed(seed)
            with random_kept():  # a reset may seed those too
                yield

    def close(self) -> None:  # noqa: B027  most have nothing to close
        """Closes windows and contexts."""
