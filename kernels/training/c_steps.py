"""Shared parts of the C steps of critic and actor."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch

from swg_fast.kernels.cpu.c_loops import SCALAR

FOLDER = Path(__file__).parent
HEADERS = (SCALAR, *sorted(FOLDER.glob("*.h")))


class Moments:
    """A flat vector of parameters [P] with Adam's two moments [P], float32."""

    def __init__(self, parameters: torch.Tensor, state: dict[str, torch.Tensor]) -> None:
        self.tensors = (parameters, state["exp_avg"], state["exp_avg_sq"])


def check(data: torch.Tensor, rows: torch.Tensor, columns: int) -> None:
    """Raises `ValueError` if C would read outside of ``data`` [N, columns]."""
    if data.shape[1] != columns or int(rows.min()) < 0 or int(rows.max()) >= len(data):
        raise ValueError(f"rows {int(rows.min())}..{int(rows.max())} of {columns} columns are not all in the "
                         f"data, of shape {list(data.shape)}")


class Steps:
    """The steps of one C file, and the memory that they keep between calls."""

    def __init__(self, loaded: ctypes.CDLL, name: str, job: type[ctypes.Structure],
                 most_threads: int) -> None:
        pointer = ctypes.POINTER(job)
        self._room = getattr(loaded, f"{name}_room")
        self._room.argtypes, self._room.restype = [pointer], ctypes.c_long
        self._steps = getattr(loaded, f"{name}_steps")  # releases Python's lock while it runs
        self._steps.argtypes, self._steps.restype = [pointer, ctypes.c_long, ctypes.c_void_p], ctypes.c_int
        self._most_threads = most_threads
        self._memory: dict[Any, torch.Tensor] = {}

    def __call__(self, job: ctypes.Structure, layout: Any) -> None:
        """Takes ``job``'s steps. ``layout`` identifies the layout of its buffers.

        Raises `MemoryError` if the activations do not fit in memory.
        """
        if layout not in self._memory:
            self._memory = {layout: torch.zeros(self._room(ctypes.byref(job)), dtype=torch.float32,
                                                 device="cpu")}
        threads = min(torch.get_num_threads(), self._most_threads)
        if self._steps(ctypes.byref(job), threads, self._memory[layout].data_ptr()):
            raise MemoryError("no memory left for the networks' activations")
