"""Backend ``hopper``: the fused network in Gluon for sm_90, asked for by name until a GPU has timed it."""

from __future__ import annotations

import warnings

import torch

from swg_fast.backends.job import Candidates, Model, Samples, SamplingJob
from swg_fast.backends.triton import TritonBackend
from swg_fast.errors import UsageError


class HopperBackend(TritonBackend):
    name = "hopper"
    dtypes = ("bf16",)

    def __init__(self, model: Model, dtype: str, device: torch.device) -> None:
        if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] != 9:
            raise UsageError("backend 'hopper' needs a GPU of capability 9.0, an H100 or H200; "
                             "use backend='auto'")
        super().__init__(model, dtype, device)
        from swg_fast.kernels.fused import hopper_launch

        reason = hopper_launch.unsupported(model.network.hidden_dim, model.network.weight_head)
        if reason:
            raise UsageError(f"backend 'hopper' does not support {reason}; use backend='triton'")
        warnings.warn("backend 'hopper' has been proved by emulation alone: no GPU has run or timed it yet",
                      stacklevel=2)
        self.launch = hopper_launch

    @classmethod
    def fastest_dtype(cls, device: torch.device) -> str:
        return "bf16"

    def tune(self, *arguments: object, **keywords: object) -> list[object]:
        raise UsageError("backend 'hopper' has one configuration; tune backend 'triton'")

    def run(self, job: SamplingJob) -> Samples:
        if job.tree is not None or job.ranking is not None:
            raise UsageError("backend 'hopper' has no trees and no expected weights; use backend='triton'")
        return super().run(job)

    def candidates(self, job: SamplingJob, states: slice, first: int, count: int) -> Candidates:
        vectors = self.network.packed.hoist_states(job.states[states])
        *_, z, raw, expected = self.launch.sample(self.network, job.table, vectors, job.state_indices[states],
                                                  count, job.seed, return_candidates=True, first=first)
        return Candidates(z, raw, expected)
