"""What an evaluation plays in: the name of a task, an environment, or a function that makes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swg_fast.common.checks import shown
from swg_fast.common.errors import UsageError
from swg_fast.common.quiet import explain
from swg_fast.envs.base import TaskEnv


@dataclass(frozen=True)
class EnvSource:
    """Makes environments: ``given`` is a task's name, a Gymnasium environment, or a function without
    arguments (a class, say) that returns one. ``name`` names what is no name; the rest is
    as in `make_env`."""

    given: Any
    name: str | None = None
    observation_keys: Sequence[str] | None = None
    trust: Sequence[str] = ()

    @property
    def task(self) -> str:
        """The name, for results and messages."""
        if isinstance(self.given, str):
            return self.given
        spec = getattr(self.given, "spec", None)
        own = getattr(spec, "id", None) or getattr(self.given, "__name__", None)
        return self.name or own or type(getattr(self.given, "unwrapped", self.given)).__name__

    @property
    def is_environment(self) -> bool:
        """Whether one environment was given, which is then played in this process."""
        return not isinstance(self.given, type) and hasattr(self.given, "reset") and hasattr(
            self.given, "step")

    def make(self) -> TaskEnv:
        """An environment; the given one itself, if one was given.

        Raises `UsageError` for what is none of the three, for a function that fails, and as `make_env` does.
        """
        if isinstance(self.given, str):
            from swg_fast.envs.registry import make_env

            return make_env(self.given, self.observation_keys, self.trust)
        if self.is_environment:
            return self._wrapped(self.given)
        if not callable(self.given):
            raise UsageError(f"task is {shown(self.given)}; give a task's name such as 'Hopper-v5', a "
                             "Gymnasium environment, or a function that makes one")
        try:
            made = self.given()
        except Exception as error:  # of the user's own code
            raise UsageError(f"{self.task}: the function that makes the environment failed "
                             f"({type(error).__name__}: {explain(error)}); mend it") from error
        return self._wrapped(made)

    def _wrapped(self, env: Any) -> TaskEnv:
        import gymnasium

        from swg_fast.envs.gymnasium_env import GymnasiumEnv
        from swg_fast.envs.gymnasium_task import Task

        if isinstance(env, TaskEnv):
            return env
        if not isinstance(env, gymnasium.Env):
            raise UsageError(f"{self.task}: {shown(env)} is no Gymnasium environment; derive its class from "
                             "gymnasium.Env")
        missing = [name for name in ("observation_space", "action_space") if not hasattr(env, name)]
        if missing:
            raise UsageError(f"{self.task}: {type(env.unwrapped).__name__} has no "
                             f"{' and no '.join(missing)}; set both to a gymnasium.spaces.Box")
        if isinstance(env.unwrapped, Task):
            return env.unwrapped.task
        return GymnasiumEnv(env, self.task, keys=self.observation_keys)
