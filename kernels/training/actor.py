"""Steps of the joint diffusion by `actor.c`."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from swg_fast.kernels.shared.c_arguments import address
from swg_fast.kernels.shared.c_compiler import compiled
from swg_fast.kernels.training.c_steps import FOLDER, HEADERS, Moments, Steps, check

MOST_BLOCKS, MOST_THREADS = 16, 32
HEAD = 256  # the early weight head's width, as in actor.h
FLOATS = ("p", "p_m", "p_v", "average", "data", "signal", "noise")


class _Job(ctypes.Structure):
    """actor.h's `struct actor`."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("S", "A", "H", "L", "M", "times", "E", "early")),
        *((name, ctypes.c_float) for name in ("epsilon", "weight_decay", "weight_loss")),
        ("dropout", ctypes.c_double), ("seed", ctypes.c_uint64),
        *((name, ctypes.c_void_p) for name in (*FLOATS, "rows", "t", "xi", "rates", "ema_rates", "losses")),
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
    weight_loss: float  # the factor of the loss of the weight's entry
    dropout: float
    dropout_seed: int

    @property
    def size(self) -> int:
        """The number of the network's parameters."""
        S, A, H, E = self.state_dim, self.action_dim, self.hidden_dim, self.time_embed_dim
        first = E // 2 + 2 * E * (3 * E + 2) + H * (A + 1 + S + 2 * E + 1)
        last = A * (H + 1) + HEAD * (H + 2) + 1 if self.early else (A + 1) * (H + 1)
        return first + self.num_blocks * H * (8 * H + 7) + last


@dataclass(frozen=True)
class Batches:
    """The inputs of ``count`` steps: the rows [count, M] (int64) of the data, the schedule's steps t [count,
    M] (int64), the noise xi [count, M, A + 1], and the rates [count] of learning and of the average."""

    rows: torch.Tensor
    t: torch.Tensor
    xi: torch.Tensor
    rates: torch.Tensor
    ema_rates: torch.Tensor


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
        Raises `MemoryError` as `Steps` does, `TypeError` for tensors that C cannot read.
        """
        rows, t, xi = batches.rows.contiguous(), batches.t.contiguous(), batches.xi.contiguous()
        check(data, rows, shape.action_dim + 1 + shape.state_dim)
        check(schedule.T, t, 2)
        losses = torch.empty(len(rows), 2, dtype=torch.float32, device="cpu")
        sizes = (*[shape.size] * 4, data.numel(), *[schedule.shape[1]] * 2)
        floats = zip(FLOATS, (*network.tensors, average, data, *schedule), sizes, strict=True)
        job = _Job(shape.state_dim, shape.action_dim, shape.hidden_dim, shape.num_blocks, rows.shape[1],
                   schedule.shape[1], shape.time_embed_dim, shape.early, shape.epsilon, shape.weight_decay,
                   shape.weight_loss, shape.dropout, shape.dropout_seed,
                   *(address(name, tensor, torch.float32, size) for name, tensor, size in floats),
                   address("rows", rows, torch.int64, rows.numel()),
                   address("t", t, torch.int64, rows.numel()),
                   address("xi", xi, torch.float32, rows.numel() * (shape.action_dim + 1)),
                   address("rates", batches.rates, torch.float32, len(rows)),
                   address("ema_rates", batches.ema_rates, torch.float32, len(rows)),
                   losses.data_ptr(), len(rows), step, taken)
        self._steps(job, (shape, rows.shape[1], schedule.shape[1]))
        return losses


@lru_cache
def loops() -> ActorLoops | None:
    """The compiled steps; None if this machine has no C compiler."""
    return compiled(FOLDER / "actor.c", HEADERS, ActorLoops)
