"""One environment that is already there, played in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from swg_fast.common.errors import UsageError
from swg_fast.common.quiet import explain
from swg_fast.envs.settings import EnvSettings
from swg_fast.envs.source import EnvSource
from swg_fast.envs.vector import EnvironmentFailed
from swg_fast.envs.worker import EpisodeStart, StepResult, reset, step


class LocalEnv:
    """A `VectorEnv` of one slot around a user's own environment object, which stays open. Its steps have no
    time-out."""

    count = 1

    def __init__(self, source: EnvSource, settings: EnvSettings) -> None:
        self.task, self.settings, self.env = source.task, settings, source.make()

    def reset(self, seeds: Mapping[int, int]) -> dict[int, EpisodeStart]:
        """As `VectorEnv.reset`."""
        return {slot: self._called(reset, seed) for slot, seed in seeds.items()}

    def send_step(self, actions: Mapping[int, np.ndarray]) -> dict[int, Any]:
        """As `VectorEnv.send_step`, but steps at once."""
        return {slot: self._called(step, action) for slot, action in actions.items()}

    def finish_step(self, sent: dict[int, Any]) -> dict[int, StepResult]:
        """The results of `send_step`."""
        return sent

    def _called(self, function: Callable[..., Any], value: Any) -> Any:
        try:
            return function(self.env, value)
        except UsageError as error:
            raise EnvironmentFailed(str(error), 0) from error
        except Exception as error:  # of the user's own code
            raise EnvironmentFailed(f"{type(error).__name__}: {explain(error)}", 0) from error

    def __enter__(self) -> LocalEnv:
        return self

    def __exit__(self, *exception: object) -> None:
        """The environment is its owner's to close."""
