"""A worker process: it makes environments and steps them as it is told."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Sequence, Sized
from contextlib import suppress
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from swg_fast.common.errors import UsageError
from swg_fast.common.quiet import explain
from swg_fast.envs.base import TaskEnv
from swg_fast.envs.settings import EnvSettings

BEHIND = 10.0  # seconds that code which lets no signal through gets beyond its time


class EpisodeStart(NamedTuple):
    """What an environment shows at the start of an episode: observation [S], and in a maze the agent's
    position and its goal [2]."""

    observation: np.ndarray
    position: np.ndarray | None
    goal: np.ndarray | None


class StepResult(NamedTuple):
    """What one step of an environment gave, see `TaskEnv`, and the ``seconds`` that it took."""

    observation: np.ndarray
    reward: float
    done: bool
    position: np.ndarray | None
    success: bool | None
    seconds: float


class Order(NamedTuple):
    """What a worker is to do in each slot: call ``function`` with the slot's environment and value."""

    function: Callable[[TaskEnv, Any], Any]
    values: dict[int, Any]


class SlotFailure(NamedTuple):
    """Why a worker ended: what happened in ``slot``."""

    message: str
    slot: int


class _Slow(BaseException):
    """A step took too long. No Exception, which an environment might catch."""


def reset(env: TaskEnv, seed: int) -> EpisodeStart:
    start = EpisodeStart(env.reset(seed), env.position(), env.goal())
    _check(env, start.observation)
    return start


def step(env: TaskEnv, action: np.ndarray) -> StepResult:
    started = time.perf_counter()
    observation, reward, done = env.step(action)
    seconds = time.perf_counter() - started
    if not math.isfinite(reward):
        raise UsageError(f"the step gives the reward {reward}; mend the environment")
    _check(env, observation)
    return StepResult(observation, reward, done, env.position(), env.success, seconds)


def _check(env: TaskEnv, observation: np.ndarray) -> None:
    if observation.shape != (env.state_dim,):
        raise UsageError(f"the observation has {observation.size} numbers and its space {env.state_dim}; "
                         "mend the environment")
    if not np.isfinite(observation).all():
        raise UsageError("the observation has NaN, or infinity in float32; mend the environment")


class Making(NamedTuple):
    """What a worker makes its environments of. ``source`` is a `Source`, pickled, and so is ``spec``, the
    task's where the caller's process has registered one."""

    source: bytes
    settings: EnvSettings
    spec: bytes | None


def work(pipe: Connection, making: Making, slots: Sequence[int]) -> None:
    """Makes an environment for each of ``slots``, then follows orders until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    signal.signal(signal.SIGALRM, _too_slow)
    envs: dict[int, TaskEnv] = {}
    slot = slots[0]
    try:
        for slot in slots:
            envs[slot] = _make(making)
        pipe.send({})  # ready
        while True:
            order: Order = pipe.recv()
            results = {}
            for slot, value in order.values.items():
                signal.setitimer(signal.ITIMER_REAL, making.settings.step_timeout)
                results[slot] = order.function(envs[slot], value)
            signal.setitimer(signal.ITIMER_REAL, 0)
            pipe.send(results)
    except _Slow:
        failure = (f"it took over {making.settings.step_timeout:g} s; give slow environments a longer "
                   "--step-timeout")
    except UsageError as error:
        failure = str(error)
    except BaseException as error:
        failure = f"{type(error).__name__}: {explain(error)}"
    signal.setitimer(signal.ITIMER_REAL, 0)
    with suppress(OSError):  # the parent is gone, which may be the error
        pipe.send(SlotFailure(failure, slot))


def _make(making: Making) -> TaskEnv:
    import cloudpickle

    if making.spec is not None:
        import gymnasium

        spec = cloudpickle.loads(making.spec)
        gymnasium.registry.setdefault(spec.id, spec)
    env: TaskEnv = cloudpickle.loads(making.source).make()
    env.alone = True
    return env


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise _Slow


def patience(settings: EnvSettings, values: Sized) -> float:
    """Seconds in which a worker answers an order of ``values``, unless its code lets no signal through."""
    return settings.step_timeout * max(1, len(values)) + BEHIND
