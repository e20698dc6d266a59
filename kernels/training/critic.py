"""Steps of implicit Q-learning by `critic.c`."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from swg_fast.kernels.shared.c_compiler import compiled
from swg_fast.kernels.training.c_steps import FOLDER, HEADERS, Moments, Steps, check

MOST_THREADS = 8  # a [256, 256] product is too small for more


class _Job(ctypes.Structure):
    """critic.c's `struct critic`."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("S", "A", "H", "M")),
        *((name, ctypes.c_float) for name in
          ("discount", "polyak", "expectile", "epsilon", "low", "high")),
        *((name, ctypes.c_void_p) for name in ("q", "q_m", "q_v", "target", "value", "value_m", "value_v",
                                               "data", "rows", "rates", "losses")),
        *((name, ctypes.c_long) for name in ("count", "steps", "norm")),
    ]


@dataclass(frozen=True)
class CriticShape:
    """The constants of a critic's training."""

    state_dim: int
    action_dim: int
    hidden_dim: int
    discount: float
    polyak: float
    expectile: float
    epsilon: float  # of V's LayerNorm
    low: float  # targets are clipped to low..high
    high: float
    norm: bool  # whether V has a LayerNorm on its input


class CriticLoops:
    """critic.c, compiled for this machine."""

    def __init__(self, path: Path) -> None:
        self._steps = Steps(ctypes.CDLL(str(path)), "critic", _Job, MOST_THREADS)

    def steps(self, shape: CriticShape, q: Moments, target: torch.Tensor, value: Moments,
              data: torch.Tensor, rows: torch.Tensor, rates: torch.Tensor, taken: int) -> torch.Tensor:
        """Takes a step in place for each of ``rows`` [count, M] (int64) of ``data`` [N, 2 S + A + 2], [s, s',
        a, r, 1 - terminal]. Returns the losses of V and Q, [count, 2].

        ``rates`` [count] are the learning rates; ``taken`` is the number of earlier steps. The result does
        not depend on the number of threads.
        Raises `MemoryError` as `Steps` does."""
        tensors = (*q.tensors, target, *value.tensors, data)
        assert all(t.dtype == torch.float32 and t.is_contiguous() for t in (*tensors, rates))
        assert len(rates) == len(rows)
        rows = rows.contiguous()
        check(data, rows, 2 * shape.state_dim + shape.action_dim + 2)
        losses = torch.empty(len(rows), 2)
        job = _Job(shape.state_dim, shape.action_dim, shape.hidden_dim, rows.shape[1],
                   shape.discount, shape.polyak, shape.expectile, shape.epsilon, shape.low, shape.high,
                   *(t.data_ptr() for t in (*tensors, rows, rates, losses)), len(rows), taken, shape.norm)
        self._steps(job, (shape, rows.shape[1]))
        return losses


@lru_cache
def loops() -> CriticLoops | None:
    """The compiled steps; None if this machine has no C compiler."""
    return compiled(FOLDER / "critic.c", HEADERS, CriticLoops)
