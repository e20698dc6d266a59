"""Backend ``torch``: the analytic gradient in plain torch operations, on any device."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from swg_fast.backends.base import Backend, Model, SamplingJob, counters, draw_noise
from swg_fast.kernels.shared.analytic import guided_step
from swg_fast.kernels.shared.pack import ROW_MULTIPLE, pack

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}


class TorchBackend(Backend):
    name = "torch"
    dtypes = ("fp32", "bf16", "fp64")

    def __init__(self, model: Model, dtype: str, device: torch.device) -> None:
        super().__init__(model, dtype, device)
        self.packed = pack(model.network, model.schedule.num_steps, DTYPES[dtype], device)

    @torch.no_grad()
    def candidates(self, job: SamplingJob, rows: slice, first: int, count: int
                   ) -> tuple[torch.Tensor, torch.Tensor]:
        words = (part.reshape(-1) for part in counters(job, rows, first, count))
        initial, steps = draw_noise(job, *words)
        wide = self.packed.input_z.dtype
        vectors = self.packed.hoist_states(job.states[rows]).repeat_interleave(count, dim=0)
        M = len(vectors)
        pad = -M % ROW_MULTIPLE
        vectors, initial, steps = (F.pad(part, (0, 0, 0, pad)) for part in (vectors, initial, steps))
        z = job.table.initial * initial.to(wide)
        for t in reversed(range(job.table.num_steps)):
            z, weight, _, _ = guided_step(self.packed, job.table, t, z, vectors, steps[t].to(wide))
        return z[:M].float().unflatten(0, (-1, count)), weight[:M].float().unflatten(0, (-1, count))
