"""Many environments in worker processes, stepped together."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from swg_fast.common.children import Child, ChildDied, Failure
from swg_fast.common.errors import UsageError, reason
from swg_fast.common.interrupts import shielded
from swg_fast.envs.base import TaskEnv
from swg_fast.envs.settings import EnvSettings
from swg_fast.envs.source import EnvSource
from swg_fast.envs.worker import (
    EpisodeStart,
    Making,
    Order,
    SlotFailure,
    StepResult,
    patience,
    reset,
    step,
    work,
)

STARTING = 240.0  # seconds for a worker's imports


class WorkerDied(UsageError):
    """A worker process ended on its own; its environments are lost."""


class EnvironmentFailed(UsageError):
    """The environment in ``slot`` raised an error, hung, or gave what is no number."""

    def __init__(self, message: str, slot: int) -> None:
        super().__init__(message)
        self.slot = slot


class VectorEnv:
    """``count`` environments of one source, or of the task of that name, spread over ``workers`` processes by
    slot.

    `reset` and `step` take any subset of the slots, so that finished ones simply drop out. Use as
    a context manager, or call `close`. Raises `EnvironmentFailed` and `WorkerDied`.
    """

    def __init__(self, source: EnvSource | str, count: int, workers: int, settings: EnvSettings | None = None
                 ) -> None:
        if count < 1 or workers < 1:
            raise UsageError(f"environments and workers must be at least 1, got {count} and {workers}")
        self.settings = settings or EnvSettings()
        source = EnvSource(source, trust=self.settings.trust) if isinstance(source, str) else source
        self.task, self.count = source.task, count
        workers = min(workers, count)
        making = Making(_pickled(source, self.task), self.settings, _registered(self.task))
        self._workers: list[Child] = []
        try:
            with shielded():
                for worker in range(workers):
                    self._workers.append(Child(work, making, range(worker, count, workers)))
            for worker in range(workers):
                slots = range(worker, count, workers)
                self._receive(worker, slots, STARTING + self.settings.step_timeout * len(slots))
        except BaseException:
            self.close()
            raise

    def reset(self, seeds: Mapping[int, int]) -> dict[int, EpisodeStart]:
        """Starts an episode in each given slot; ``seeds`` by slot."""
        return self._collect(self._send(reset, seeds))

    def step(self, actions: Mapping[int, np.ndarray]) -> dict[int, StepResult]:
        """Steps each given slot; ``actions`` [A] by slot."""
        return self.finish_step(self.send_step(actions))

    def send_step(self, actions: Mapping[int, np.ndarray]) -> dict[int, list[int]]:
        """Begins `step` without waiting; pass the result to `finish_step`."""
        return self._send(step, actions)

    def finish_step(self, sent: dict[int, list[int]]) -> dict[int, StepResult]:
        """The results of `send_step`."""
        return self._collect(sent)

    def _send(self, function: Callable[[TaskEnv, Any], Any], values: Mapping[int, Any]
              ) -> dict[int, list[int]]:
        """Sends every worker its share of ``values``; returns the slots by worker."""
        shares: dict[int, dict[int, Any]] = {}
        for slot, value in values.items():
            shares.setdefault(slot % len(self._workers), {})[slot] = value
        for worker, share in shares.items():
            with suppress(ConnectionError):  # it has died, which `_receive` finds
                self._workers[worker].pipe.send(Order(function, share))
        return {worker: list(share) for worker, share in shares.items()}

    def _collect(self, sent: dict[int, list[int]]) -> dict[int, Any]:
        results: dict[int, Any] = {}
        for worker, slots in sent.items():
            results |= self._receive(worker, slots, patience(self.settings, slots))
        return results

    def _receive(self, worker: int, slots: Sequence[int], seconds: float) -> dict[int, Any]:
        try:
            answer = self._workers[worker].answer(seconds)
        except TimeoutError as error:
            self.close()
            raise EnvironmentFailed(
                f"environment worker {worker} has not answered for {seconds:.0f} s; give slow environments a "
                "longer --step-timeout", slots[0]) from error
        except ChildDied as error:
            self.close()
            raise WorkerDied(
                f"environment worker {worker} died (exit code {error.code}); its episodes are lost. "
                "Run again with fewer --envs if memory ran out") from error
        if isinstance(answer, SlotFailure):
            self.close()
            raise EnvironmentFailed(answer.message, answer.slot)
        if isinstance(answer, Failure):
            self.close()
            raise WorkerDied(f"environment worker {worker} failed: {answer.message}")
        return answer

    def close(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.end()

    def __enter__(self) -> VectorEnv:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _registered(task: str) -> bytes | None:
    """The spec that this process has registered for ``task``, for a worker that has not; None without one."""
    gymnasium = sys.modules.get("gymnasium")
    spec = gymnasium.registry.get(task) if gymnasium else None
    if spec is None:
        return None
    module, _, name = spec.entry_point.partition(":") if isinstance(spec.entry_point, str) else ("", "", "")
    if module == "__main__":  # a worker has another one
        spec = dataclasses.replace(spec, entry_point=getattr(sys.modules[module], name))
    return _pickled(spec, task)


def _pickled(what: Any, task: str) -> bytes:
    """``what`` makes the environments of ``task``, for a worker; code of the caller's script goes along."""
    import cloudpickle

    try:
        return cloudpickle.dumps(what)
    except Exception as error:  # whatever the pickling of someone's objects raises
        raise UsageError(f"{task}: what makes it cannot be handed to worker processes ({reason(error)}); use "
                         "a function or a class of a module, or an environment itself") from error
