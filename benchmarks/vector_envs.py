"""Our worker processes beside Gymnasium's AsyncVectorEnv: steps/s, memory, death of a worker, subsets.

    python benchmarks/vector_envs.py --json benchmarks/results/vector-envs.json

Both step the same task with the same seeds and random actions, in turns within one run; a rate is the
median of the turns.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import time
from functools import partial
from pathlib import Path

import click
import numpy as np


def ours(task: str, count: int, workers: int):
    from swg_fast.envs.vector import VectorEnv

    vector = VectorEnv(task, count, workers)

    def step(actions):
        results = vector.step(dict(enumerate(actions)))
        return np.stack([results[i].observation for i in range(count)])

    def reset(seeds):
        first = vector.reset(dict(enumerate(seeds)))
        return np.stack([first[i].observation for i in range(count)])

    return vector, reset, step, [process.pid for process in vector._processes]


def theirs(task: str, count: int, workers: int):
    from gymnasium.vector import AsyncVectorEnv, AutoresetMode

    from swg_fast.envs import make

    vector = AsyncVectorEnv([partial(make, task)] * count, context="spawn",
                            autoreset_mode=AutoresetMode.DISABLED)
    return (vector, lambda seeds: vector.reset(seed=[int(seed) for seed in seeds])[0],
            lambda actions: vector.step(actions)[0], [process.pid for process in vector.processes])


def memory(pids: list[int]) -> float:
    """Megabytes that the processes have to themselves or share in part, each page once."""
    return sum(int(line.split()[1]) for pid in pids
               for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
               if line.startswith("Pss:")) / 1024


def death(make) -> str:
    """What is raised, and after how long, when a worker is killed before a step."""
    vector, reset, step, pids = make()
    try:
        reset([0, 1])
        os.kill(pids[1], signal.SIGKILL)
        time.sleep(0.2)
        started = time.perf_counter()
        signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("no answer in 20 s")))
        signal.alarm(20)
        try:
            step(np.zeros((2, 3), np.float32))
            return "nothing is raised"
        except Exception as error:
            return f"{type(error).__name__} after {time.perf_counter() - started:.1f} s: {str(error)[:140]}"
        finally:
            signal.alarm(0)
    finally:
        for pid in pids:
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
    from swg_fast.common.atomic_files import write_json
    from swg_fast.common.console import versions

    result: dict = {"count": count, "workers": workers, "steps": steps, "turns": turns, "tasks": {},
                    "versions": versions()}
    for task in tasks.split(","):
        both, rows = {}, {}
        for name, make in (("ours", ours), ("AsyncVectorEnv", theirs)):
            started = time.perf_counter()
            both[name] = make(task, count, workers)
            rows[name] = {"start_seconds": time.perf_counter() - started, "processes": len(both[name][3])}
        first = {name: reset(range(count)) for name, (_, reset, _, _) in both.items()}
        actions = np.random.default_rng(0).uniform(-1, 1, (steps, count, _actions(task))).astype(np.float32)
        after = {name: np.stack([step(a) for a in actions[:20]]) for name, (_, _, step, _) in both.items()}
        equal = (np.array_equal(*first.values()), np.array_equal(*after.values()))
        rates: dict[str, list[float]] = {name: [] for name in both}
        for turn in range(turns):
            for name, (_, reset, step, _) in both.items():
                reset(range(turn, turn + count))
                started = time.perf_counter()
                for a in actions:
                    step(a)
                rates[name].append(steps * count / (time.perf_counter() - started))
        for name, (vector, *_, pids) in both.items():
            rows[name] |= {"steps_per_second": statistics.median(rates[name]), "memory_mb": memory(pids)}
            vector.close()
        ratio = statistics.median(a / b for a, b in zip(*rates.values(), strict=True))
        result["tasks"][task] = {"same_numbers": equal, "ours_over_theirs": ratio, **rows}
        click.echo(f"{task}: {result['tasks'][task]}")
    result["killed_worker"] = {name: death(partial(make, "hopper-medium-v2", 2, 2))
                               for name, make in (("ours", ours), ("AsyncVectorEnv", theirs))}
    click.echo(result["killed_worker"])
    if json_path:
        write_json(json_path, result)


def _actions(task: str) -> int:
    from swg_fast.envs import make_env

    return make_env(task).action_dim


if __name__ == "__main__":
    main()
