"""Backend ``cpu``: tiles of candidates, each on one core for all T steps."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.nn import functional as F

from swg_fast.common.errors import UsageError
from swg_fast.kernels.cpu import c_loops
from swg_fast.kernels.cpu.network_c import NativeNetwork
from swg_fast.kernels.cpu.network_onednn import TILE, CpuNetwork, has_native_bf16, has_packed_linear
from swg_fast.kernels.shared.packing import ROW_MULTIPLE, pack
from swg_fast.kernels.shared.sampler_table import Latent, Ranking, Words
from swg_fast.policy.backends.job import SamplingJob
from swg_fast.policy.backends.streaming import LEAST_BYTES, Backend, row_noise
from swg_fast.policy.model import Model
from swg_fast.policy.rankings.ranked import Support

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Rows in all that are better shared product by product than cut into tiles: of a walk, and of one pass, which
# is over before the workers have begun (benchmarks/sharing.py).
FEW, FEW_OF_A_PASS = 256, 2048
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
        loops = c_loops.library() if has_packed_linear() and NativeNetwork.supports(packed) else None
        self.network: Any = CpuNetwork(packed) if loops is None else NativeNetwork(packed, loops)

    @classmethod
    def fastest_dtype(cls, device: torch.device) -> str:
        """bf16 where the processor has it, which depends on the machine alone."""
        return "bf16" if has_native_bf16() else "fp32"

    def default_chunk(self) -> int:
        return 16 * TILE

    def bytes_each(self, job: SamplingJob) -> int:
        return LEAST_BYTES + 16 * job.plan.latent_dim  # all else belongs to a tile

    def hoist(self, states: torch.Tensor) -> torch.Tensor:
        return self.network.packed.hoist_states(states)

    def walk(self, job: SamplingJob, vectors: torch.Tensor, words: Words, rows: Sequence[int],
             start: Latent | None) -> Latent:
        def tile(part: slice) -> Latent:
            return self._walk(job, vectors, words.part(part), rows, start and start.take(part))

        parts = self._tiles(len(words.owners), tile, len(rows))
        return Latent(*(None if column[0] is None else torch.cat(column)
                        for column in zip(*parts, strict=True)))

    def expect(self, job: SamplingJob, vectors: torch.Tensor, words: Words, z: torch.Tensor) -> torch.Tensor:
        if not isinstance(self.network, NativeNetwork):
            return super().expect(job, vectors, words, z)

        def tile(part: slice) -> torch.Tensor:  # without the action's entries, which cost a block and more
            return self.network.expect(job.plan.ranking, vectors, words.part(part), job.seed, z[part])

        return torch.cat(self._tiles(len(z), tile))

    def renoised(self, job: SamplingJob, r: Ranking, vectors: torch.Tensor, words: Words, z: torch.Tensor
                 ) -> Support:
        def tile(part: slice) -> Support:
            if isinstance(self.network, NativeNetwork):
                return Support(*self.network.renoised(r, vectors, words.part(part), job.seed, z[part]))
            return Backend.renoised(self, job, r, vectors, words.part(part), z[part])

        return Support(*(torch.cat(parts) for parts in zip(*self._tiles(len(z), tile), strict=True)))

    def read(self, vectors: torch.Tensor, words: Words, z: torch.Tensor) -> torch.Tensor:
        def tile(part: slice) -> torch.Tensor:
            if isinstance(self.network, NativeNetwork):
                return self.network.read(vectors, words.part(part), z[part])
            return Backend.read(self, vectors, words.part(part), z[part])

        return torch.cat(self._tiles(len(z), tile))

    def predict(self, vectors: torch.Tensor, words: Words, z: torch.Tensor, t: int | None) -> torch.Tensor:
        M, words = len(z), words.padded(ROW_MULTIPLE)
        base = vectors[words.owners] + self.network.packed.time_row(t)
        z = F.pad(z, (0, 0, 0, -M % ROW_MULTIPLE))
        return self.network.eps_and_weight_vjp(z, base, False)[0][:M]

    def _tiles(self, M: int, work: Callable[[slice], Any], steps: int | None = None) -> list[Any]:
        """``work`` of M rows in tiles, each on one core. steps: of a walk; one of them is one pass."""
        threads = torch.get_num_threads()
        # Small calls are cut so that every core has a share; rows stay a multiple of ROW_MULTIPLE.
        share = -(-M // threads)
        few = FEW_OF_A_PASS if steps == 1 else FEW
        tile = M if few >= M else min(TILE, -(-share // ROW_MULTIPLE) * ROW_MULTIPLE)
        parts = [slice(first, min(first + tile, M)) for first in range(0, M, tile)]
        if threads == 1 or len(parts) == 1:
            return [work(part) for part in parts]
        return list(worker_pool(threads).map(work, parts))

    def _walk(self, job: SamplingJob, vectors: torch.Tensor, words: Words, rows: Sequence[int],
              start: Latent | None) -> Latent:
        if isinstance(self.network, NativeNetwork):
            return self.network.walk(job.plan.table, vectors, words, job.seed, rows, start)
        M, words = len(words.owners), words.padded(ROW_MULTIPLE)
        start = None if start is None else start.padded(ROW_MULTIPLE)
        start, noise = row_noise(job, words, rows, start, torch.float32)
        return self.network.walk(job.plan.table, vectors[words.owners], rows, start, noise).take(slice(M))


def worker_pool(threads: int) -> ThreadPoolExecutor:
    """``threads`` workers, each computing on one core. Tiles of several callers may share them."""
    with _lock:
        if threads not in _pools:
            _pools[threads] = ThreadPoolExecutor(threads, "swg-fast", initializer=_one_core)
            list(_pools[threads].map(_wait_for_all(threads), range(threads)))
            torch.set_num_threads(threads)  # the initialisers changed what new threads begin with
        return _pools[threads]


def _forget_workers() -> None:
    """In a forked child, which has none of them, and perhaps a lock that nobody will open."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_workers)


def _one_core() -> None:
    torch.get_num_threads()  # a thread's first use takes over the process's setting: have it done
    torch.set_num_threads(1)


def _wait_for_all(threads: int) -> Any:
    """A task that ends when all workers have begun one, so that all are initialised."""
    barrier = threading.Barrier(threads)
    return lambda _: barrier.wait()
