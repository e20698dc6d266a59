"""Steps of the joint diffusion by `actor.c`."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from swg_fast.kernels.shared.c_compiler import compiled
from swg_fast.kernels.training.c_steps import FOLDER, HEADERS, Moments, Steps, check

MOST_BLOCKS, MOST_THREADS = 16, 32


class _Job(ctypes.Structure):
    """actor.h's `struct actor`."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("S", "A", "H", "L", "M", "times", "E", "early")),
        *((name, ctypes.c_float) for name in ("epsilon", "weight_decay", "ema_rate", "weight_loss")),
        ("dropout", ctypes.c_double), ("seed", ctypes.c_uint64),
        *((name, ctypes.c_void_p) for name in ("p", "p_m", "p_v", "average", "data", "signal", "noise",
                                               "rows", "t", "xi", "rates", "losses")),
        *((name, ctypes.c_long) for name in ("count", "step", "steps")),
    ]


@dataclass(frozen=True)
class ActorShape:
    """The constants of a diffusion's training; at most `MOST_BLOCKS` blocks."""

    state_dim: int
    action_dim: int
    hidden_dim: int
    num_blocks: int
    time_embed_dim: int
    early: bool
    epsilon: float  # of LayerNorm
    weight_decay: float
    ema_rate: float
    weight_loss: float  # the factor of the loss of the weight's entry
    dropout: float
    dropout_seed: int


@dataclass(frozen=True)
class Batches:
    """The inputs of ``count`` steps: the rows [count, M] (int64) of the data, the schedule's steps t [count,
    M] (int64), the noise xi [count, M, A + 1], and the learning rates [count]."""

    rows: torch.Tensor
    t: torch.Tensor
    xi: torch.Tensor
    rates: torch.Tensor


class ActorLoops:
    """actor.c, compiled for this machine."""

    def __init__(self, path: Path) -> None:
        self._steps = Steps(ctypes.CDLL(str(path)), "actor", _Job, MOST_THREADS)

    def steps(self, shape: ActorShape, network: Moments, average: torch.Tensor, schedule: torch.Tensor,
              data: torch.Tensor, batches: Batches, step: int, taken: int) -> torch.Tensor:
        """Takes a step in place for each of ``batches`` of ``data`` [N, A + 1 + S], whose rows are [a, w, s].
        Returns the losses of action and weight, [count, 2].

        schedule [2, T] holds sqrt(abar) and sqrt(1 - abar). ``step`` is the number of the first step, which
        determines dropout's masks; ``taken`` is the number of steps that Adam has counted. The result does
        not depend on the number of threads.
        Raises `MemoryError` as `Steps` does."""
        rows, t, xi = batches.rows.contiguous(), batches.t.contiguous(), batches.xi.contiguous()
        rates = batches.rates
        check(data, rows, shape.action_dim + 1 + shape.state_dim)
        assert int(t.min()) >= 0 and int(t.max()) < schedule.shape[1] and t.dtype == torch.int64
        floats = (*network.tensors, average, data, *schedule)
        assert all(x.dtype == torch.float32 and x.is_contiguous() for x in (*floats, xi, rates))
        losses = torch.empty(len(rows), 2)
        job = _Job(shape.state_dim, shape.action_dim, shape.hidden_dim, shape.num_blocks, rows.shape[1],
                   schedule.shape[1], shape.time_embed_dim, shape.early, shape.epsilon, shape.weight_decay,
                   shape.ema_rate, shape.weight_loss, shape.dropout, shape.dropout_seed,
                   *(x.data_ptr() for x in (*floats, rows, t, xi, rates, losses)), len(rows), step, taken)
        self._steps(job, (shape, rows.shape[1], schedule.shape[1]))
        return losses


@lru_cache
def loops() -> ActorLoops | None:
    """The compiled steps; None if this machine has no C compiler."""
    return compiled(FOLDER / "actor.c", HEADERS, ActorLoops)
