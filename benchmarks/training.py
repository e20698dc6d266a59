"""Training steps a second on this machine, beside a jitted JAX step of the same networks.

    python benchmarks/training.py

Each contender has a process of its own and they take turns; medians and their ratios are printed and
written to benchmarks/results/training.json.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parent.parent
CASES = [("critic", "fp32", 256), ("actor", "fp32", 256), ("actor", "bf16", 256), ("actor", "fp32", 1024),
         ("actor", "bf16", 1024)]


def build(library: str, phase: str, precision: str, batch: int) -> Any:
    """A function that takes one training step, its random numbers and its batch included."""
    import numpy as np
    import torch

    from swg_fast.networks import ScoreNetwork
    from swg_fast.schedule import NoiseSchedule
    from swg_fast.training.critic import CriticTrainer
    from swg_fast.training.diffusion import DiffusionTrainer
    from swg_fast.training.settings import TrainSettings

    torch.manual_seed(0)
    settings = TrainSettings(actor_batch=batch, critic_batch=batch, precision=precision)
    rng = np.random.default_rng(0)
    critic = phase == "critic"
    data = rng.standard_normal((100_000, 29 * 2 + 8 + 2 if critic else 8 + 1 + 29)).astype(np.float32)
    cpu = torch.device("cpu")
    schedule = NoiseSchedule.vp(settings.num_steps)
    trainer: Any = CriticTrainer(29, 8, settings, cpu) if critic else DiffusionTrainer(
        ScoreNetwork(29, 8, dropout=settings.dropout).train(), schedule, settings, cpu)
    if library == "jax":
        from swg_fast.bench.peers.jax_training import actor_step, critic_step

        if critic:
            return critic_step(trainer.q, trainer.value, settings, data, 29)
        return actor_step(trainer.network, schedule, settings, data)
    rows, generator = torch.from_numpy(data), torch.Generator().manual_seed(0)

    def once() -> Any:
        draws = {name: value[0] for name, value in trainer.draw(generator, 1, len(rows)).items()}
        return trainer.step(rows[draws.pop("rows")], draws)

    return once


def serve(connection: Any, *case: Any) -> None:
    """Answers each message, a number of seconds, with the times of the steps taken in them."""
    once = build(*case)
    for _ in range(5):
        once()
    while True:
        seconds = connection.recv()
        if seconds is None:
            return
        times: list[float] = []
        while sum(times) < seconds:
            started = time.perf_counter()
            once()
            times.append(time.perf_counter() - started)
        connection.send(times)


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
    context = multiprocessing.get_context("spawn")
    rows, table = [], Table("phase", "type", "batch", "swg-fast steps/s", "jax steps/s", "ratio")
    for case in CASES:
        workers = {}
        for library in ("swg_fast", "jax"):
            mine, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, library, *case), daemon=True)
            process.start()
            workers[library] = (mine, process, [])
        for turn in range(turns + 1):
            for mine, _, times in workers.values():
                mine.send(0.5)
                answer = mine.recv()
                times += answer if turn else []  # the first turn warms up
                time.sleep(0.02)
        rate = {library: 1 / statistics.median(times) for library, (_, _, times) in workers.items()}
        for mine, process, _ in workers.values():
            mine.send(None)
            process.join()
        phase, precision, batch = case
        ours, jax = rate["swg_fast"], rate["jax"]
        rows.append({"phase": phase, "precision": precision, "batch": batch, "steps_per_second": ours,
                     "jax_steps_per_second": jax, "ratio": ours / jax})
        table.add_row(phase, precision, str(batch), f"{ours:.1f}", f"{jax:.1f}", f"{ours / jax:.2f}")
    Console().print(table)
    write_json(json_path, {"results": rows, "versions": versions()})


if __name__ == "__main__":
    main()
