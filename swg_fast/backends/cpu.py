"""Backend ``cpu``: tiles of candidates, each on one core for all T steps."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.nn import functional as F

from swg_fast.backends.base import Backend, Model, SamplingJob, counters, draw_noise
from swg_fast.errors import UsageError
from swg_fast.kernels.cpu import native
from swg_fast.kernels.cpu.aten import TILE, CpuNetwork, has_native_bf16, has_packed_linear
from swg_fast.kernels.cpu.compiled import NativeNetwork
from swg_fast.kernels.shared.pack import ROW_MULTIPLE, pack

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
FEW = 128  # rows in all that are better shared product by product than cut into tiles
_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()


class CpuBackend(Backend):
    name = "cpu"
    dtypes = ("fp32", "bf16")

    def __init__(self, model: Model, dtype: str, device: torch.device) -> None:
        if device.type != "cpu":
            raise UsageError(f"backend 'cpu' runs on the CPU and the policy is on {device}; "
                             "load the policy with device='cpu' or use backend='auto'")
        if dtype == "bf16" and not has_native_bf16():
            raise UsageError("this processor has no native bf16 (AVX512-BF16 or AMX); "
                             "use dtype='fp32', which is faster here")
        super().__init__(model, dtype, device)
        packed = pack(model.network, model.schedule.num_steps, DTYPES[dtype])
        loops = native.library() if has_packed_linear() and NativeNetwork.supports(packed) else None
        self.network = CpuNetwork(packed) if loops is None else NativeNetwork(packed, loops)

    @classmethod
    def fastest_dtype(cls, device: torch.device) -> str:
        """bf16 where the processor has it, which depends on the machine alone."""
        return "bf16" if has_native_bf16() else "fp32"

    def default_chunk(self) -> int:
        return 16 * TILE

    @torch.no_grad()
    def candidates(self, job: SamplingJob, rows: slice, first: int, count: int
                   ) -> tuple[torch.Tensor, torch.Tensor]:
        vectors = self.network.packed.hoist_states(job.states[rows])
        candidates, states = (part.reshape(-1) for part in counters(job, rows, first, count))
        owner = torch.arange(len(vectors)).repeat_interleave(count)
        threads = torch.get_num_threads()
        # Small calls are cut so that every core has a share; rows stay a multiple of ROW_MULTIPLE.
        share = -(-len(owner) // threads)
        tile = min(TILE, -(-share // ROW_MULTIPLE) * ROW_MULTIPLE)

        def walk(start: int) -> tuple[torch.Tensor, torch.Tensor]:
            part = slice(start, start + tile)
            return self._tile(job, vectors, owner[part], candidates[part], states[part])

        starts = range(0, len(owner), tile)
        if len(owner) <= FEW:
            parts = [self._tile(job, vectors, owner, candidates, states)]
        elif threads == 1 or len(starts) == 1:
            parts = [walk(start) for start in starts]
        else:
            parts = list(worker_pool(threads).map(walk, starts))
        z, weight = (torch.cat(column) for column in zip(*parts, strict=True))
        return z.unflatten(0, (-1, count)), weight.unflatten(0, (-1, count))

    @torch.no_grad()
    def _tile(self, job: SamplingJob, vectors: torch.Tensor, owner: torch.Tensor,
              candidates: torch.Tensor, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if isinstance(self.network, NativeNetwork):
            return self.network.walk(job.table, vectors, owner, candidates, states, job.seed)
        M = len(owner)
        parts = (vectors[owner], *draw_noise(job, candidates, states))
        padded = (F.pad(part, (0, 0, 0, -M % ROW_MULTIPLE)) for part in parts)
        z, weight = self.network.walk(job.table, *padded)
        return z[:M], weight[:M]


def worker_pool(threads: int) -> ThreadPoolExecutor:
    """``threads`` workers, each computing on one core. Tiles of several callers may share them."""
    with _lock:
        if threads not in _pools:
            _pools[threads] = ThreadPoolExecutor(threads, "swg-fast", initializer=_one_core)
            list(_pools[threads].map(_wait_for_all(threads), range(threads)))
            torch.set_num_threads(threads)  # the initialisers changed what new threads begin with
        return _pools[threads]


def _one_core() -> None:
    torch.get_num_threads()  # a thread's first use takes over the process's setting: have it done
    torch.set_num_threads(1)


def _wait_for_all(threads: int) -> Any:
    """A task that ends when all workers have begun one, so that all are initialised."""
    barrier = threading.Barrier(threads)
    return lambda _: barrier.wait()
