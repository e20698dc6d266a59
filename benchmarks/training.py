"""Training steps a second on this machine, beside a jitted JAX step of the same networks.

    python -m benchmarks.training

Contenders: this project's compiled steps, its plain PyTorch step (which runs in bf16 and without a C
compiler) and JAX, all in fp32. Each has its own process, bound to its number of cores, and they take turns.
Medians and their ratios are printed and written to benchmarks/results/training.json, together with a whole
run's costs besides its steps and whether it resumes bit for bit (`training_run`).
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from benchmarks.training_run import markdown, measure
from swg_fast.cli.ending import run

ROOT = Path(__file__).parent.parent
CASES = [("critic", "fp32", 256), ("actor", "fp32", 256), ("actor", "fp32", 1024)]
PAGE = ROOT / "docs" / "cpu-notes.md"
MARKERS = "<!-- training tables -->", "<!-- end -->"
CONTENDERS = ("swg_fast", "plain", "jax")


def build(contender: str, phase: str, precision: str, batch: int, device: Any = "cpu") -> tuple[Any, int]:
    """(a function that takes some training steps, including random numbers and batches; the number of these
    steps). On CUDA this project's steps are captured graphs, and the plain ones eager."""
    import numpy as np
    import torch

    from swg_fast.method.networks import ScoreNetwork
    from swg_fast.method.schedule import NoiseSchedule
    from swg_fast.training.critic import CriticTrainer
    from swg_fast.training.diffusion import DiffusionTrainer
    from swg_fast.training.loop import BLOCK
    from swg_fast.training.settings import TrainSettings
    from swg_fast.training.step_taker import STRETCH, step_taker

    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    settings = TrainSettings(actor_batch=batch, critic_batch=batch, precision=precision)
    rng = np.random.default_rng(0)
    critic = phase == "critic"
    data = rng.standard_normal((100_000, 29 * 2 + 8 + 2 if critic else 8 + 1 + 29)).astype(np.float32)
    device = torch.device(device)
    schedule = NoiseSchedule.vp(settings.num_steps)
    trainer: Any = CriticTrainer(29, 8, settings, device) if critic else DiffusionTrainer(
        ScoreNetwork(29, 8, dropout=settings.dropout).train(), schedule, settings, device)
    if contender == "jax":
        from swg_fast.evaluation.bench.peers.jax_training import actor_step, critic_step

        if critic:
            return critic_step(trainer.q, trainer.value, settings, data, 29), 1
        return actor_step(trainer.network, schedule, settings, data), 1
    count = STRETCH
    if contender == "plain":
        trainer.loops, count = None, 1
    elif device.type == "cuda":
        count = BLOCK  # as many as the training loop takes in a call
    elif trainer.loops is None:
        raise click.ClickException("no compiled steps on this machine: no C compiler")
    rows, generator = torch.from_numpy(data).to(device), torch.Generator().manual_seed(0)
    take, done = step_taker(trainer, graph=contender != "plain"), 0

    def some() -> Any:
        nonlocal done
        draws = trainer.draw(generator, count, len(rows))
        draws = {name: tensor.to(device) for name, tensor in draws.items()}
        losses = take(rows, draws.pop("rows"), draws, done)
        done += count
        return losses

    return some, count


def serve(connection: Any, cores: list[int], contender: str) -> None:
    """For each case that it receives: reports when it is ready, then answers each number of seconds with the
    times of the steps that it took in them. None ends a case; None instead of a case ends the process.

    On one core the times are the process's CPU times, which other processes do not lengthen.
    """
    os.sched_setaffinity(0, cores)
    clock = time.process_time if len(cores) == 1 else time.perf_counter
    for case in iter(connection.recv, None):
        some, count = build(contender, *case)
        for _ in range(2):
            some()
        connection.send(contender)
        for seconds in iter(connection.recv, None):
            times: list[float] = []
            while sum(times) * count < seconds:
                started = clock()
                some()
                times.append((clock() - started) / count)
            connection.send(times)


@contextmanager
def workers(cores: list[int]) -> Iterator[dict[str, Any]]:
    """A connection to each contender's process on ``cores``."""
    context = multiprocessing.get_context("spawn")
    connections, processes = {}, []
    for contender in CONTENDERS:
        connections[contender], theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(theirs, cores, contender), daemon=True))
        processes[-1].start()
        theirs.close()
    yield connections
    for connection, process in zip(connections.values(), processes, strict=True):
        connection.send(None)
        process.join()


def race(connections: dict[str, Any], case: tuple[str, str, int], turns: int) -> dict[str, float]:
    """Median steps a second of each contender."""
    for connection in connections.values():
        connection.send(case)
    for connection in connections.values():
        connection.recv()
    found: dict[str, list[float]] = {contender: [] for contender in connections}
    for turn in range(turns + 1):
        for contender, connection in connections.items():
            connection.send(0.5)
            answer = connection.recv()
            found[contender] += answer if turn else []  # the first turn warms up
            time.sleep(0.02)
    for connection in connections.values():
        connection.send(None)
    return {contender: 1 / statistics.median(times) for contender, times in found.items()}


def whole_run(core: int) -> dict[str, Any]:
    """`training_run.measure` in its own process on one core."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=measure, args=(theirs, [core]), daemon=True)
    process.start()
    theirs.close()
    found: dict[str, Any] = mine.recv()
    process.join()
    return found


@click.command()
@click.option("--turns", default=6)
@click.option("--json", "json_path", type=Path, default=ROOT / "benchmarks" / "results" / "training.json")
@click.option("--one-core", is_flag=True, help="Leave out the rows on all cores, for a busy machine.")
def main(turns: int, json_path: Path, one_core: bool) -> None:
    import torch

    from swg_fast.common.atomic_files import write_json
    from swg_fast.common.console import versions
    from swg_fast.common.hardware import device_name

    if find_spec("jax") is None:
        raise click.ClickException("the peer needs jax; pip install 'swg-fast[bench]'")
    cores = sorted(os.sched_getaffinity(0))
    rows = []
    for some in ([cores[0]], *([cores] if len(cores) > 1 and not one_core else [])):
        with workers(some) as connections:
            for case in CASES:
                rate = race(connections, case, turns)
                phase, precision, batch = case
                ours, plain, jax = (rate[contender] for contender in CONTENDERS)
                rows.append({"phase": phase, "precision": precision, "batch": batch, "cores": len(some),
                             "steps_per_second": ours, "plain_steps_per_second": plain,
                             "jax_steps_per_second": jax, "ratio": ours / jax, "times_plain": ours / plain})
                click.echo(f"{phase} {precision} {batch}, {len(some)} core(s): {ours:.1f} steps/s, plain "
                           f"{plain:.1f}, jax {jax:.1f}")
    found = {
        "machine": device_name(torch.device("cpu")), "cores": len(cores), "results": rows,
        "whole_run": whole_run(cores[0]), "versions": versions()}
    write_json(json_path, found)
    click.echo(markdown(found))


if __name__ == "__main__":
    run(main)
