"""swg-fast's worker processes beside Gymnasium's AsyncVectorEnv: steps/s, memory, and a killed worker.

    python -m benchmarks.vector_envs --json benchmarks/results/vector-envs.json

Both step the same task with the same seeds and random actions, in turns; a rate is the median over turns.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from benchmarks.measuring import save
from swg_fast.cli.ending import run
from swg_fast.common.errors import UsageError


class Vector(NamedTuple):
    """E environments: ``reset`` (seeds) and ``step`` (actions [E, A]) return observations [E, S]."""

    envs: Any
    reset: Callable[..., np.ndarray]
    step: Callable[[np.ndarray], np.ndarray]
    pids: list[int]


def ours(task: str, count: int, workers: int) -> Vector:
    from swg_fast.envs.vector import VectorEnv

    vector = VectorEnv(task, count, workers)

    def step(actions):
        results = vector.step(dict(enumerate(actions)))
        return np.stack([results[i].observation for i in range(count)])

    def reset(seeds):
        first = vector.reset(dict(enumerate(seeds)))
        return np.stack([first[i].observation for i in range(count)])

    return Vector(vector, reset, step, [process.pid for process in vector._processes])


def theirs(task: str, count: int, workers: int) -> Vector:
    from gymnasium.vector import AsyncVectorEnv, AutoresetMode

    from swg_fast.envs import make

    vector = AsyncVectorEnv([partial(make, task)] * count, context="spawn",
                            autoreset_mode=AutoresetMode.DISABLED)
    return Vector(vector, lambda seeds: vector.reset(seed=[int(seed) for seed in seeds])[0],
                  lambda actions: vector.step(actions)[0], [process.pid for process in vector.processes])


def memory(pids: list[int]) -> float:
    """Megabytes of the processes; a shared page is counted once. Linux alone tells."""
    return sum(int(line.split()[1]) for pid in pids
               for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
               if line.startswith("Pss:")) / 1024


def death(make: Callable[[], Vector]) -> str:
    """The error that a killed worker causes in the next step, and the time until it is raised."""
    vector = make()
    try:
        vector.reset([0, 1])
        os.kill(vector.pids[1], signal.SIGKILL)
        time.sleep(0.2)
        started = time.perf_counter()
        signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("no answer in 20 s")))
        signal.alarm(20)
        try:
            vector.step(np.zeros((2, 3), np.float32))
            return "nothing is raised"
        except Exception as error:
            return f"{type(error).__name__} after {time.perf_counter() - started:.1f} s: {str(error)[:140]}"
        finally:
            signal.alarm(0)
    finally:
        for pid in vector.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@click.command()
@click.option("--tasks", default="hopper-medium-v2,antmaze-umaze-v2")
@click.option("--count", default=8)
@click.option("--workers", default=2)
@click.option("--steps", default=150)
@click.option("--turns", default=5)
@click.option("--json", "json_path", type=Path)
def main(tasks: str, count: int, workers: int, steps: int, turns: int, json_path: Path | None) -> None:
    if not Path("/proc/self/smaps_rollup").exists():
        raise UsageError("this system does not tell how much memory processes share; measure on Linux")
    result: dict = {"count": count, "workers": workers, "steps": steps, "turns": turns, "tasks": {}}
    for task in tasks.split(","):
        both, rows = {}, {}
        for name, make in (("ours", ours), ("AsyncVectorEnv", theirs)):
            started = time.perf_counter()
            both[name] = make(task, count, workers)
            rows[name] = {"start_seconds": time.perf_counter() - started, "processes": len(both[name].pids)}
        first = {name: vector.reset(range(count)) for name, vector in both.items()}
        actions = np.random.default_rng(0).uniform(-1, 1, (steps, count, _actions(task))).astype(np.float32)
        after = {name: np.stack([vector.step(a) for a in actions[:20]]) for name, vector in both.items()}
        equal = (np.array_equal(*first.values()), np.array_equal(*after.values()))
        rates: dict[str, list[float]] = {name: [] for name in both}
        for turn in range(turns):
            for name, vector in both.items():
                vector.reset(range(turn, turn + count))
                started = time.perf_counter()
                for a in actions:
                    vector.step(a)
                rates[name].append(steps * count / (time.perf_counter() - started))
        for name, vector in both.items():
            rows[name] |= {"steps_per_second": statistics.median(rates[name]),
                           "memory_mb": memory(vector.pids)}
            vector.envs.close()
        ratio = statistics.median(a / b for a, b in zip(*rates.values(), strict=True))
        result["tasks"][task] = {"same_numbers": equal, "ours_over_theirs": ratio, **rows}
        click.echo(f"{task}: {result['tasks'][task]}")
    result["killed_worker"] = {name: death(partial(make, "hopper-medium-v2", 2, 2))
                               for name, make in (("ours", ours), ("AsyncVectorEnv", theirs))}
    click.echo(result["killed_worker"])
    if json_path:
        save(json_path, result)


def _actions(task: str) -> int:
    from swg_fast.envs import make_env

    return make_env(task).action_dim


if __name__ == "__main__":
    run(main)
