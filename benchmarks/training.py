"""Training steps a second on this machine, beside a jitted JAX step of the same networks.

    python benchmarks/training.py

Contenders: this project's compiled steps, its plain PyTorch step (what runs without a C compiler), and JAX.
Each has a process of its own, held to its number of cores, and they take turns; medians and their ratios
are printed and written to benchmarks/results/training.json.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parent.parent
CASES = [("critic", "fp32", 256), ("actor", "fp32", 256), ("actor", "bf16", 256), ("actor", "fp32", 1024),
         ("actor", "bf16", 1024)]
CONTENDERS = ("swg_fast", "plain", "jax")


def build(contender: str, phase: str, precision: str, batch: int) -> tuple[Any, int]:
    """A function that takes some training steps, random numbers and batches included, and how many."""
    import numpy as np
    import torch

    from swg_fast.networks import ScoreNetwork
    from swg_fast.schedule import NoiseSchedule
    from swg_fast.training.critic import CriticTrainer
    from swg_fast.training.diffusion import DiffusionTrainer
    from swg_fast.training.settings import TrainSettings
    from swg_fast.training.steps import STRETCH, step_taker

    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    settings = TrainSettings(actor_batch=batch, critic_batch=batch, precision=precision)
    rng = np.random.default_rng(0)
    critic = phase == "critic"
    data = rng.standard_normal((100_000, 29 * 2 + 8 + 2 if critic else 8 + 1 + 29)).astype(np.float32)
    cpu = torch.device("cpu")
    schedule = NoiseSchedule.vp(settings.num_steps)
    trainer: Any = CriticTrainer(29, 8, settings, cpu) if critic else DiffusionTrainer(
        ScoreNetwork(29, 8, dropout=settings.dropout).train(), schedule, settings, cpu)
    if contender == "jax":
        from swg_fast.bench.peers.jax_training import actor_step, critic_step

        if critic:
            return critic_step(trainer.q, trainer.value, settings, data, 29), 1
        return actor_step(trainer.network, schedule, settings, data), 1
    if contender == "plain":
        trainer.loops = None
    elif trainer.loops is None:
        raise click.ClickException("no compiled steps on this machine: no C compiler, or no bf16")
    rows, generator = torch.from_numpy(data), torch.Generator().manual_seed(0)
    take, done = step_taker(trainer), 0

    def some() -> Any:
        nonlocal done
        draws = trainer.draw(generator, STRETCH, len(rows))
        losses = take(rows, draws.pop("rows"), draws, done)
        done += STRETCH
        return losses

    return some, STRETCH


def serve(connection: Any, cores: list[int], *case: Any) -> None:
    """Answers each message, a number of seconds, with the times of the steps taken in them."""
    os.sched_setaffinity(0, cores)
    some, count = build(*case)
    for _ in range(5):
        some()
    while True:
        seconds = connection.recv()
        if seconds is None:
            return
        times: list[float] = []
        while sum(times) * count < seconds:
            started = time.perf_counter()
            some()
            times.append((time.perf_counter() - started) / count)
        connection.send(times)


def race(cores: list[int], case: tuple[str, str, int], turns: int) -> dict[str, float]:
    """Median steps a second of each contender on ``cores``."""
    context = multiprocessing.get_context("spawn")
    workers = {}
    for contender in CONTENDERS:
        mine, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, cores, contender, *case), daemon=True)
        process.start()
        workers[contender] = (mine, process, [])
    for turn in range(turns + 1):
        for mine, _, times in workers.values():
            mine.send(0.5)
            answer = mine.recv()
            times += answer if turn else []  # the first turn warms up
            time.sleep(0.02)
    for mine, process, _ in workers.values():
        mine.send(None)
        process.join()
    return {contender: 1 / statistics.median(times) for contender, (_, _, times) in workers.items()}


@click.command()
@click.option("--turns", default=6)
@click.option("--json", "json_path", type=Path, default=ROOT / "benchmarks" / "results" / "training.json")
def main(turns: int, json_path: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from swg_fast.files import write_json
    from swg_fast.report import versions

    if find_spec("jax") is None:
        raise click.ClickException("the peer needs jax; pip install 'swg-fast[bench]'")
    cores = sorted(os.sched_getaffinity(0))
    rows = []
    table = Table("phase", "type", "batch", "cores", "swg-fast steps/s", "plain", "jax", "times plain",
                  "times jax")
    for some in ([cores[0]], *([cores] if len(cores) > 1 else [])):
        for case in CASES:
            rate = race(some, case, turns)
            phase, precision, batch = case
            ours, plain, jax = (rate[contender] for contender in CONTENDERS)
            rows.append({"phase": phase, "precision": precision, "batch": batch, "cores": len(some),
                         "steps_per_second": ours, "plain_steps_per_second": plain,
                         "jax_steps_per_second": jax, "ratio": ours / jax, "times_plain": ours / plain})
            table.add_row(phase, precision, str(batch), str(len(some)), f"{ours:.1f}", f"{plain:.1f}",
                          f"{jax:.1f}", f"{ours / plain:.2f}", f"{ours / jax:.2f}")
    Console(width=110).print(table)
    write_json(json_path, {"results": rows, "versions": versions()})


if __name__ == "__main__":
    main()
