"""Many environments in worker processes, stepped together."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, NoReturn

import numpy as np

from swg_fast.common.errors import UsageError
from swg_fast.common.interrupts import shielded
from swg_fast.envs.base import TaskEnv


class WorkerDied(UsageError):
    """A worker process ended on its own; its environments are lost."""


class EpisodeStart(NamedTuple):
    """What an environment shows at the start of an episode: observation [S], and in a maze the agent's
    position and its goal [2]."""

    observation: np.ndarray
    position: np.ndarray | None
    goal: np.ndarray | None


class StepResult(NamedTuple):
    """What one step of an environment gave: see `TaskEnv`."""

    observation: np.ndarray
    reward: float
    done: bool
    position: np.ndarray | None
    success: bool | None


class _Order(NamedTuple):
    """What a worker is to do in each slot: call ``function`` with the slot's environment and value."""

    function: Callable[[TaskEnv, Any], Any]
    values: dict[int, Any]


class _Failure(NamedTuple):
    """Why a worker ended: bad input, or an environment that ``crashed``."""

    message: str
    crashed: bool


class VectorEnv:
    """``count`` environments of one task, spread over ``workers`` processes by slot.

    `reset` and `step` take any subset of the slots, so that finished ones simply drop out. Use as
    a context manager, or call `close`.
    """

    def __init__(self, task: str, count: int, workers: int,
                 observation_keys: Sequence[str] | None = None) -> None:
        if count < 1 or workers < 1:
            raise UsageError(f"environments and workers must be at least 1, got {count} and {workers}")
        self.count = count
        workers = min(workers, count)
        context = multiprocessing.get_context("spawn")
        self._processes, self._pipes = [], []
        try:
            with shielded():
                for worker in range(workers):
                    ours, theirs = context.Pipe()
                    slots = range(worker, count, workers)
                    process = context.Process(target=_work, args=(theirs, task, slots, observation_keys),
                                              daemon=True)
                    process.start()
                    theirs.close()
                    self._processes.append(process)
                    self._pipes.append(ours)
            for worker in range(workers):
                self._receive(worker)
        except BaseException:
            self.close()
            raise

    def reset(self, seeds: Mapping[int, int]) -> dict[int, EpisodeStart]:
        """Starts an episode in each given slot; ``seeds`` by slot."""
        return self._collect(self._send(_reset, seeds))

    def step(self, actions: Mapping[int, np.ndarray]) -> dict[int, StepResult]:
        """Steps each given slot; ``actions`` [A] by slot."""
        return self.finish_step(self.send_step(actions))

    def send_step(self, actions: Mapping[int, np.ndarray]) -> list[int]:
        """Begins `step` without waiting; pass the result to `finish_step`."""
        return self._send(_step, actions)

    def finish_step(self, sent: list[int]) -> dict[int, StepResult]:
        """The results of `send_step`."""
        return self._collect(sent)

    def _send(self, function: Callable[[TaskEnv, Any], Any], values: Mapping[int, Any]) -> list[int]:
        """Sends every worker its share of ``values``; returns the workers that have one."""
        shares: dict[int, dict[int, Any]] = {}
        for slot, value in values.items():
            shares.setdefault(slot % len(self._pipes), {})[slot] = value
        for worker, share in shares.items():
            try:
                self._pipes[worker].send(_Order(function, share))
            except OSError:
                self._raise_died(worker)
        return list(shares)

    def _collect(self, sent: list[int]) -> dict[int, Any]:
        results: dict[int, Any] = {}
        for worker in sent:
            results |= self._receive(worker)
        return results

    def _receive(self, worker: int) -> dict[int, Any]:
        pipe, process = self._pipes[worker], self._processes[worker]
        wait([pipe, process.sentinel])
        try:
            if not pipe.poll():
                self._raise_died(worker)
            answer = pipe.recv()
        except (EOFError, OSError):
            self._raise_died(worker)
        if isinstance(answer, _Failure):
            self.close()
            if answer.crashed:
                raise WorkerDied(f"environment worker {worker} failed: {answer.message}")
            raise UsageError(answer.message)
        return answer

    def _raise_died(self, worker: int) -> NoReturn:
        """`WorkerDied`, with the worker's exit code."""
        process = self._processes[worker]
        process.join(timeout=5)
        code = process.exitcode
        self.close()
        raise WorkerDied(
            f"environment worker {worker} died (exit code {code}); its episodes are lost. "
            "Run again with fewer --envs if memory ran out")

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(timeout=5)
            process.kill()
        for pipe in self._pipes:
            pipe.close()

    def __enter__(self) -> VectorEnv:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _reset(env: TaskEnv, seed: int) -> EpisodeStart:
    return EpisodeStart(env.reset(seed), env.position(), env.goal())


def _step(env: TaskEnv, action: np.ndarray) -> StepResult:
    observation, reward, done = env.step(action)
    return StepResult(observation, reward, done, env.position(), env.success)


def _work(pipe: Connection, task: str, slots: Sequence[int], observation_keys: Sequence[str] | None) -> None:
    """A worker: makes the environments of its ``slots``, then follows orders until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    from swg_fast.envs.registry import make_env

    try:
        envs = {slot: make_env(task, observation_keys) for slot in slots}
        pipe.send({})  # ready
        while True:
            order: _Order = pipe.recv()
            pipe.send({slot: order.function(envs[slot], value) for slot, value in order.values.items()})
    except (EOFError, ConnectionError):
        return  # the parent is gone
    except UsageError as error:
        failure = _Failure(str(error), crashed=False)
    except Exception:
        failure = _Failure(traceback.format_exc().strip().splitlines()[-1], crashed=True)
    with suppress(OSError):
        pipe.send(failure)
