"""Backend ``torch``: the analytic gradient in plain torch operations, on any device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from swg_fast.kernels.shared import analytic
from swg_fast.kernels.shared.devices import multiplies_bf16
from swg_fast.kernels.shared.packing import ROW_MULTIPLE, pack
from swg_fast.kernels.shared.sampler_table import Latent, Words
from swg_fast.policy.backends.job import SamplingJob
from swg_fast.policy.backends.streaming import Backend, predicted, row_noise
from swg_fast.policy.model import Model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}


class TorchBackend(Backend):
    name = "torch"
    dtypes = ("fp32", "bf16", "fp64")

    def __init__(self, model: Model, dtype: str, device: torch.device) -> None:
        super().__init__(model, dtype, device)
        self.packed = pack(model.network, model.schedule.num_steps, DTYPES[dtype], device)

    @classmethod
    def fastest_dtype(cls, device: torch.device) -> str:
        """bf16 on a GPU that multiplies it natively, at twice fp32's speed and more; else fp32."""
        return "bf16" if multiplies_bf16(device) else "fp32"

    def hoist(self, states: torch.Tensor) -> torch.Tensor:
        return self.packed.hoist_states(states)

    def walk(self, job: SamplingJob, vectors: torch.Tensor, words: Words, rows: Sequence[int],
             start: Latent | None) -> Latent:
        M, packed, table = len(words.owners), self.packed, job.plan.table
        words = words.padded(ROW_MULTIPLE)
        start = None if start is None else start.padded(ROW_MULTIPLE)
        start, noise = row_noise(job, words, rows, start, packed.input_z.dtype)
        base = vectors[words.owners]

        def network(z: torch.Tensor, j: int) -> tuple[torch.Tensor, torch.Tensor | None]:
            at = base + packed.time_table[table.steps[j]]
            return analytic.eps_and_weight_vjp(packed, z, at, table.guides(j))

        return analytic.walk(table, network, rows, start, noise).take(slice(M))

    def predict(self, vectors: torch.Tensor, words: Words, z: torch.Tensor, t: int | None) -> torch.Tensor:
        return predicted(self.packed, vectors, words, z, t)
