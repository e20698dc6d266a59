"""The process of one contender of benchmarks/training.py."""

from __future__ import annotations

import time
from typing import Any

import click

from swg_fast.common.hardware import cores, keep_to_cores


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
    torch.set_num_threads(cores())
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


def serve(connection: Any, numbers: list[int], contender: str) -> None:
    """For each case that it receives: reports when it is ready, then answers each number of seconds with the
    times of the steps that it took in them. None ends a case; None instead of a case ends the process.

    On one core the times are the process's CPU times, which other processes do not lengthen.
    """
    keep_to_cores(numbers)
    clock = time.process_time if len(numbers) == 1 else time.perf_counter
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
