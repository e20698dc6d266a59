"""Training's float32 products by oneDNN on a CPU, where the library's own choice can be half as fast.

`accelerate` changes the classes of a module's layers, not their parameters: checkpoints, copies and
averages see no difference. Nothing changes on a GPU, in bf16 and for small layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from swg_fast.kernels.cpu.network_onednn import has_packed_linear

LARGE = 2**16  # entries of a weight matrix; up to here nothing is gained


class _Linear(torch.autograd.Function):
    """x W^T + b for x [M, in], W [out, in] of any strides, b [out] or None."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (_product(grad, weight.t()) if needs_x else None,
                _product(grad.t(), x.t()) if needs_weight else None,
                grad.sum(0) if ctx.biased and needs_bias else None)


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _suits(x: torch.Tensor, weight: torch.Tensor) -> bool:
    return (x.ndim == 2 and x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu"
            and weight.numel() > LARGE and not torch.is_autocast_enabled("cpu"))


class OneDnnLinear(nn.Linear):
    """`nn.Linear` through oneDNN where that suits its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if _suits(x, self.weight):
            return _Linear.apply(x, self.weight, self.bias)
        return F.linear(x, self.weight, self.bias)


def accelerate(module: nn.Module) -> None:
    """Lets ``module``'s layers compute through oneDNN, where this torch has it."""
    if not has_packed_linear():
        return
    for part in module.modules():
        if type(part) is nn.Linear:
            part.__class__ = OneDnnLinear
