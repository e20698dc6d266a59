"""Many environments in worker processes, stepped together."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np

from swg_fast.common.errors import UsageError
from swg_fast.common.interrupts import shielded


class WorkerDied(UsageError):
    """A worker process ended on its own; its environments are lost."""


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
                for _ in range(workers):
                    ours, theirs = context.Pipe()
                    process = context.Process(target=_work, args=(theirs, task, observation_keys),
                                              daemon=True)
                    process.start()
                    theirs.close()
                    self._processes.append(process)
                    self._pipes.append(ours)
            slots = [[i for i in range(count) if i % workers == w] for w in range(workers)]
            for pipe, mine in zip(self._pipes, slots, strict=True):
                pipe.send(("make", mine))
            for worker in range(workers):
                self._receive(worker)
        except BaseException:
            self.close()
            raise

    def reset(self, seeds: Mapping[int, int]) -> dict[int, dict[str, Any]]:
        """Starts an episode in each given slot; slot -> observation, position, goal."""
        return self._exchange("reset", seeds)

    def step(self, actions: Mapping[int, np.ndarray]) -> dict[int, dict[str, Any]]:
        """Steps each given slot; slot -> observation, reward, done, position, success."""
        return self._exchange("step", actions)

    def send_step(self, actions: Mapping[int, np.ndarray]) -> list[int]:
        """Begins `step` without waiting; pass the result to `finish_step`."""
        return self._send("step", actions)

    def finish_step(self, sent: list[int]) -> dict[int, dict[str, Any]]:
        """The results of `send_step`."""
        results: dict[int, dict[str, Any]] = {}
        for worker in sent:
            results |= self._receive(worker)
        return results

    def _exchange(self, order: str, values: Mapping[int, Any]) -> dict[int, dict[str, Any]]:
        return self.finish_step(self._send(order, values))

    def _send(self, order: str, values: Mapping[int, Any]) -> list[int]:
        shares: dict[int, dict[int, Any]] = {}
        for slot, value in values.items():
            shares.setdefault(slot % len(self._pipes), {})[slot] = value
        for worker, share in shares.items():
            try:
                self._pipes[worker].send((order, share))
            except OSError:
                self._report(worker)
        return list(shares)

    def _receive(self, worker: int) -> dict[int, dict[str, Any]]:
        pipe, process = self._pipes[worker], self._processes[worker]
        wait([pipe, process.sentinel])
        try:
            if not pipe.poll():
                self._report(worker)
            kind, value = pipe.recv()
        except (EOFError, OSError):
            self._report(worker)
        if kind == "error":
            self.close()
            raise UsageError(value)
        if kind == "crash":
            self.close()
            raise WorkerDied(f"environment worker {worker} failed: {value}")
        return value

    def _report(self, worker: int) -> None:
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


def _work(pipe: Connection, task: str, observation_keys: Sequence[str] | None) -> None:
    """A worker: makes its environments, then resets and steps them on demand."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    from swg_fast.envs.registry import make_env

    envs: dict[int, Any] = {}
    try:
        while True:
            order, values = pipe.recv()
            if order == "make":
                for slot in values:
                    envs[slot] = make_env(task, observation_keys)
                answer: dict[int, Any] = {}
            elif order == "reset":
                answer = {
                    slot: {"observation": envs[slot].reset(seed), "position": envs[slot].position(),
                           "goal": envs[slot].goal()}
                    for slot, seed in values.items()
                }
            else:
                answer = {}
                for slot, action in values.items():
                    observation, reward, done = envs[slot].step(action)
                    answer[slot] = {"observation": observation, "reward": reward, "done": done,
                                    "position": envs[slot].position(), "success": envs[slot].success}
            pipe.send(("ok", answer))
    except (EOFError, ConnectionError):
        return  # the parent is gone
    except UsageError as error:
        account = ("error", str(error))
    except Exception:
        account = ("crash", traceback.format_exc().strip().splitlines()[-1])
    with suppress(OSError):
        pipe.send(account)
