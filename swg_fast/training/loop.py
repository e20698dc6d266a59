"""The loop that both phases share: draws, steps, logs, checkpoints, interruption."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from swg_fast.common.errors import UsageError
from swg_fast.common.interrupts import deferred, held
from swg_fast.common.progress import Spare
from swg_fast.common.seeds import stream_seed
from swg_fast.training.history import append_line
from swg_fast.training.logger import Writer
from swg_fast.training.phase_clock import Clock
from swg_fast.training.saved_state import (
    KEEP,
    NOWHERE,
    Origin,
    gather_state,
    load_newest_state,
    save_state,
)
from swg_fast.training.step_taker import STRETCH, step_taker

BLOCK = 64  # steps whose random numbers and batches are drawn at once


class Interrupted(Exception):
    """Training stopped early and saved its state; ``--resume`` continues from there. ``code`` is the exit
    code that a shell expects."""

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.code = 128 + (number or signal.SIGINT)


class Diverged(UsageError):
    """The losses or parameters are no longer finite. They were not saved."""


@dataclass(frozen=True)
class Scoring:
    """Scores a policy every so many steps of the diffusion; ``of`` plays it and returns its score."""

    every: int
    of: Callable[[Any], float]


@dataclass
class LoopOptions:
    """How a phase runs; nothing here changes what it computes."""

    folder: Path  # where the states go
    log_every: int = 1000
    save_every: int = 10_000
    keep_states: int = KEEP  # how many of a phase's newest states stay on disk
    progress: bool = True
    resume: bool = False
    origin: Origin = NOWHERE  # what the states belong to
    stop_after: int | None = None  # stop (resumably) after this many steps of the phase
    writer: Writer | None = None  # draws the curves
    history: Path | None = None  # every log line goes here, one JSON object a line
    graph: bool = True  # on CUDA, capture the step
    profile: bool = False  # wait for the device at the end of every part that `clocks` counts
    clocks: dict[str, Clock] = field(default_factory=dict)  # the loop writes each phase's times here
    scoring: Scoring | None = None  # scores the policy now and then while the diffusion trains
    policy: Callable[[], Any] | None = None  # makes what `scoring` scores: the policy as it is


def run_phase(trainer: Any, rows: torch.Tensor, held_out: torch.Tensor, total: int, seed: int,
              options: LoopOptions) -> float:
    """Trains for steps 0..total-1, from the newest saved state if asked to; returns steps/s.

    All randomness is a function of (seed, phase, step), so that a resumed run takes exactly the
    steps that an uninterrupted one would.
    """
    from tqdm import tqdm

    first = load_newest_state(options.folder, trainer, options.origin) if options.resume else 0
    if first >= total:
        return 0.0
    stop = total if options.stop_after is None else min(total, options.stop_after)
    sums, counted = torch.zeros(len(trainer.loss_names), device=trainer.device), 0
    take = step_taker(trainer, options.graph)
    clock = options.clocks[trainer.phase] = Clock(trainer.device, options.profile)
    started = time.perf_counter()
    bar = tqdm(total=total, initial=first, desc=trainer.phase, unit="step", smoothing=0.05,
               disable=not options.progress, mininterval=0.5, file=Spare("stderr"))
    step = first
    good = first  # the newest state on disk; 0 where there is none
    with deferred() as asked, bar:
        while step < stop:
            offset = step % BLOCK
            if offset == 0 or step == first:
                with clock.part("random numbers"):
                    draws = _draw_block(trainer, len(rows), seed, step // BLOCK, trainer.device)
                chosen = draws.pop("rows")
            count = _stretch(step, stop, trainer, options)
            some = slice(offset, offset + count)
            mine = {name: tensor[some] for name, tensor in draws.items()}
            with clock.part("steps"):
                sums += take(rows, chosen[some], mine, step).sum(0)
            counted += count
            step += count
            with clock.part("progress bar"):
                bar.update(count)
            stopping = step == stop or asked() is not None
            if step % options.log_every == 0 or step == stop:
                _check_finite(trainer, sums, step, good, options)
                with clock.part("held-out losses and logs"):
                    _log(trainer, held_out, seed, step, (sums / counted).tolist(),
                         (step - first) / (time.perf_counter() - started), options, bar)
                sums, counted = sums.zero_(), 0
            if options.scoring is not None and options.policy is not None and asked() is None and (
                    step % options.scoring.every == 0 or step == total):
                with clock.part("scores"):
                    started += _score(options, step, bar)
            if step % options.save_every == 0 or stopping:
                with clock.part("saved states"):
                    _check_finite(trainer, sums, step, good, options, state=True)
                    with held():  # however often Ctrl-C is pressed, the state is whole
                        save_state(options.folder, trainer, step, options.keep_states, options.origin)
                good = step
            if asked() is not None or (stopping and step < total):
                raise Interrupted(f"{trainer.phase} stopped at step {step} of {total}; "
                                  "its state is saved; continue with --resume", asked())
    return (stop - first) / (time.perf_counter() - started)


def _check_finite(trainer: Any, sums: torch.Tensor, step: int, good: int, options: LoopOptions,
                  state: bool = False) -> None:
    """Raises `Diverged` where a loss since the last log is not finite or, with ``state``, where the state
    is not. A NaN stays in the sum of losses, so no step has to wait for its own."""
    bad = [name for name, value in zip(trainer.loss_names, sums.tolist(), strict=True)
           if not math.isfinite(value)]
    if state and not bad:
        bad = [name for name, tensor in gather_state(trainer).items() if not bool(tensor.isfinite().all())]
    if bad:
        kept = f"the last good state, of step {good}, is kept in {options.folder}" if good else \
            "no state was saved before"
        rate = f"a lower {trainer.rate_name} or " if hasattr(trainer, "rate_name") else ""
        raise Diverged(f"{trainer.phase} diverged by step {step}: {', '.join(bad)} not finite; {kept}. Start "
                       f"again in another --out, with {rate}data of smaller values")


def _stretch(step: int, stop: int, trainer: Any, options: LoopOptions) -> int:
    """How many steps to take at once: up to the next draw, log or saved state, and few enough to
    notice an interruption soon."""
    quick = trainer.device.type == "cuda" or (trainer.loops is not None and trainer.phase == "critic")
    most = BLOCK if quick else STRETCH
    every = [BLOCK, options.log_every, options.save_every, most]
    every += [options.scoring.every] if options.scoring is not None else []
    return min(stop - step, *(n - step % n for n in every))


def _draw_block(trainer: Any, rows: int, seed: int, block: int,
                device: torch.device) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(stream_seed(seed, trainer.phase, "block", block))
    return {k: v.to(device) for k, v in trainer.draw(generator, BLOCK, rows).items()}


def _score(options: LoopOptions, step: int, bar: Any) -> float:
    """Scores the policy, writes its score, and returns the seconds that this took."""
    assert options.scoring is not None and options.policy is not None
    started = time.perf_counter()
    score = options.scoring.of(options.policy())
    if options.history is not None:
        append_line(options.history, "score", {"step": step, "score/mean": score})
    if options.writer is not None:
        options.writer.add_scalar("score/mean", score, step)
    bar.write(f"step {step:,}: score {score:.4g}", file=Spare("stderr"))
    return time.perf_counter() - started


def _log(trainer: Any, held_out: torch.Tensor, seed: int, done: int, means: list[float],
         rate: float, options: LoopOptions, bar: Any) -> None:
    line: dict[str, float] = {"step": done, f"{trainer.phase}/steps_per_second": round(rate, 2)}
    line |= {f"{trainer.phase}/{n}": v for n, v in zip(trainer.loss_names, means, strict=True)}
    if len(held_out):
        # The same held-out batch and noise each time, so that the curve shows the network alone.
        draws = _draw_block(trainer, len(held_out), seed, -1, trainer.device)
        batch = held_out[draws.pop("rows")[:8].reshape(-1)]
        flat = {name: tensor[:8].flatten(0, 1) for name, tensor in draws.items()}
        values = trainer.evaluate(batch, flat).tolist()
        line |= {f"{trainer.phase}/held_out_{n}": v
                 for n, v in zip(trainer.loss_names, values, strict=True)}
    if options.history is not None:
        append_line(options.history, trainer.phase, line)
    if options.writer is not None:
        for name, value in line.items():
            if name != "step":
                options.writer.add_scalar(name, value, done)
    bar.set_postfix({n: f"{v:.4f}" for n, v in zip(trainer.loss_names, means, strict=True)})
