"""Backend ``hopper``: the fused kernel in Gluon for sm_90, asked for by name until a GPU has timed it."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from swg_fast.backends.job import Model
from swg_fast.backends.triton import TritonBackend
from swg_fast.errors import UsageError


class HopperBackend(TritonBackend):
    name = "hopper"
    dtypes = ("bf16",)

    def __init__(self, model: Model, dtype: str, device: torch.device) -> None:
        if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] != 9:
            raise UsageError("backend 'hopper' needs a GPU of capability 9.0, such as an H100; "
                             "use backend='auto'")
        super().__init__(model, dtype, device)
        from swg_fast.kernels.fused import hopper_launch
        from swg_fast.kernels.fused.configs import GLUON

        network = model.network
        reason = hopper_launch.unsupported(network.hidden_dim, network.latent_dim, dtype, network.num_blocks)
        if reason:
            raise UsageError(f"backend 'hopper' does not support {reason}; use backend='triton'")
        warnings.warn("backend 'hopper' was proved by emulation alone: no GPU has run or timed it yet; "
                      "compare it with backend='triton' first", stacklevel=2)
        self.config = GLUON[network.hidden_dim]

    @classmethod
    def fastest_dtype(cls, device: torch.device) -> str:
        return "bf16"

    def tune(self, *arguments: Any, **keywords: Any) -> list[Any]:
        raise UsageError("backend 'hopper' has one configuration for each hidden_dim; tune backend 'triton'")
