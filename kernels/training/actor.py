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
        *((name, ctypes.c_long) for name in ("S", "A", "H", "L", "M", "times", "E", "early", "bf16")),
        *((name, ctypes.c_float) for name in ("epsilon", "weight_decay", "ema_rate", "weight_loss")),
        ("dropout", ctypes.c_double), ("seed", ctypes.c_uint64),
        *((name, ctypes.c_void_p) for name in ("p", "p_m", "p_v", "average", "data", "signal", "noise",
                                               "rows", "t", "xi", "rates", "losses")),
        *((name, ctypes.c_long) for name in ("count", "step", "steps")),
    ]


@dataclass(frozen=True)
class ActorShape:
    """What of the diffusion does not change while it is trained."""

    state_dim: int
    action_dim: int
    hidden_dim: int
    num_blocks: int
    time_embed_dim: int
    early: bool
    bf16: bool  # the products' operands; sums, parameters and the residual stay float32
    epsilon: float  # of LayerNorm
    weight_decay: float
    ema_rate: float
    weight_loss: float  # what the loss of the weight's entry counts beside an action's entry
    dropout: float


class ActorLoops:
    """actor.c, compiled for this machine."""

    def __init__(self, path: Path) -> None:
        loaded = ctypes.CDLL(str(path))
        self.has_bf16 = bool(loaded.has_bf16())
        self._steps = Steps(loaded, "actor", _Job, MOST_THREADS)

    def supports(self, shape: ActorShape) -> bool:
        return shape.num_blocks <= MOST_BLOCKS and (self.has_bf16 or not shape.bf16)

    def steps(self, shape: ActorShape, network: Moments, average: torch.Tensor, schedule: torch.Tensor,
              data: torch.Tensor, rows: torch.Tensor, t: torch.Tensor, xi: torch.Tensor,
              rates: torch.Tensor, seed: int, step: int, taken: int) -> torch.Tensor:
        """Takes a step with each of ``rows`` [count, M] (int64) of ``data`` [N, A + 1 + S], [a, w, s], in
        place; returns the losses of action and weight, [count, 2].

        schedule [2, T] holds sqrt(abar) and sqrt(1 - abar); t [count, M] (int64) and xi [count, M, A + 1]
        are what is drawn, rates [count] the learning rates. Dropout is a function of ``seed`` and the
        number of the step, of which ``step`` is the first; ``taken`` is how many Adam has counted. The
        result is the same for any number of threads.
        Raises `MemoryError` as `Steps` does.
        """
        rows, t, xi = rows.contiguous(), t.contiguous(), xi.contiguous()
        check(data, rows, shape.action_dim + 1 + shape.state_dim)
        assert int(t.min()) >= 0 and int(t.max()) < schedule.shape[1] and t.dtype == torch.int64
        floats = (*network.tensors, average, data, *schedule)
        assert all(x.dtype == torch.float32 and x.is_contiguous() for x in (*floats, xi, rates))
        losses = torch.empty(len(rows), 2)
        job = _Job(shape.state_dim, shape.action_dim, shape.hidden_dim, shape.num_blocks, rows.shape[1],
                   schedule.shape[1], shape.time_embed_dim, shape.early, shape.bf16, shape.epsilon,
                   shape.weight_decay, shape.ema_rate, shape.weight_loss, shape.dropout, seed,
                   *(x.data_ptr() for x in (*floats, rows, t, xi, rates, losses)), len(rows), step, taken)
        self._steps(job, (shape, rows.shape[1], schedule.shape[1]))
        return losses


@lru_cache
def loops() -> ActorLoops | None:
    """The compiled steps; None where this machine has no C compiler."""
    return compiled(FOLDER / "actor.c", HEADERS, ActorLoops)
