"""Steps of implicit Q-learning by `critic.c`."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from swg_fast.kernels.shared.c_arguments import address
from swg_fast.kernels.shared.c_compiler import compiled
from swg_fast.kernels.training.c_steps import FOLDER, HEADERS, Moments, Steps, check

FLOATS = ("q", "q_m", "q_v", "target", "value", "value_m", "value_v", "data")
MOST_THREADS = 8  # a [256, 256] product is too small for more


class _Job(ctypes.Structure):
    """critic.c's `struct critic`."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("S", "A", "H", "M")),
        *((name, ctypes.c_float) for name in
          ("discount", "polyak", "expectile", "epsilon", "low", "high")),
        *((name, ctypes.c_void_p) for name in (*FLOATS, "rows", "rates", "losses")),
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

    @property
    def q_size(self) -> int:
        """The number of both Q's parameters."""
        S, A, H = self.state_dim, self.action_dim, self.hidden_dim
        return 2 * ((S + A + H + 3) * H + 1)

    @property
    def value_size(self) -> int:
        """The number of V's parameters."""
        S, H = self.state_dim, self.hidden_dim
        return (2 * S if self.norm else 0) + (S + H + 3) * H + 1


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
        Raises `MemoryError` as `Steps` does, `TypeError` for tensors that C cannot read.
        """
        rows = rows.contiguous()
        check(data, rows, 2 * shape.state_dim + shape.action_dim + 2)
        losses = torch.empty(len(rows), 2, dtype=torch.float32, device="cpu")
        sizes = (*[shape.q_size] * 4, *[shape.value_size] * 3, data.numel())
        floats = zip(FLOATS, (*q.tensors, target, *value.tensors, data), sizes, strict=True)
        job = _Job(shape.state_dim, shape.action_dim, shape.hidden_dim, rows.shape[1],
                   shape.discount, shape.polyak, shape.expectile, shape.epsilon, shape.low, shape.high,
                   *(address(name, tensor, torch.float32, size) for name, tensor, size in floats),
                   address("rows", rows, torch.int64, rows.numel()),
                   address("rates", rates, torch.float32, len(rows)), losses.data_ptr(), len(rows), taken,
                   shape.norm)
        self._steps(job, (shape, rows.shape[1]))
        return losses


@lru_cache
def loops() -> CriticLoops | None:
    """The compiled steps; None if this machine has no C compiler."""
    return compiled(FOLDER / "critic.c", HEADERS, CriticLoops)
