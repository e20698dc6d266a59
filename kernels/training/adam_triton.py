"""Adam over one flat parameter on a GPU, and the running average that follows it, in one launch; a
second one counts the step.

PyTorch's fused Adam gives 65,536 entries to a block, so a million parameters occupy a tenth of a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import triton
import triton.language as tl

from swg_fast.kernels.shared.devices import current

BLOCK = 1024  # entries a program


@triton.jit(do_not_specialize=["decay"])
def adam_kernel(p, grad, m, v, average, steps, rate, size, decay, follow, beta1: tl.constexpr,
                beta2: tl.constexpr, log_beta1: tl.constexpr, log_beta2: tl.constexpr, epsilon: tl.constexpr,
                AVERAGED: tl.constexpr, BLOCK: tl.constexpr):
    """One program's entries. ``steps`` includes this step; logarithms are to base 2."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    lr = tl.load(rate)
    taken = tl.load(steps).to(tl.float64)  # 1 - beta^taken begins at 0.001, where float32 has lost digits
    correction1 = (1.0 - tl.exp2(taken * log_beta1)).to(tl.float32)
    correction2 = (1.0 - tl.exp2(taken * log_beta2)).to(tl.float32)
    g = tl.load(grad + at, mask=inside, other=0.0)
    first = tl.load(m + at, mask=inside, other=0.0)
    second = tl.load(v + at, mask=inside, other=0.0)
    old = tl.load(p + at, mask=inside, other=0.0)
    first = beta1 * first + (1.0 - beta1) * g
    second = beta2 * second + (1.0 - beta2) * g * g
    new = old - lr * decay * old
    new -= lr / correction1 * first / (tl.sqrt(second) / tl.sqrt(correction2) + epsilon)
    tl.store(m + at, first, mask=inside)
    tl.store(v + at, second, mask=inside)
    tl.store(p + at, new, mask=inside)
    if AVERAGED:
        mean = tl.load(average + at, mask=inside, other=0.0)
        tl.store(average + at, mean + tl.load(follow) * (new - mean), mask=inside)


def adam_step(parameter: torch.Tensor, state: Mapping[str, torch.Tensor], rate: torch.Tensor,
              betas: tuple[float, float], epsilon: float, decay: float,
              average: torch.Tensor | None = None, follow: torch.Tensor | None = None) -> None:
    """One step of AdamW (Loshchilov and Hutter 2019; Adam, Kingma and Ba 2015, if ``decay`` is 0) of
    ``parameter`` [P] by its gradient, in place, as in torch.optim. ``state`` holds step [], exp_avg [P] and
    exp_avg_sq [P]; ``rate`` [] is the learning rate. Then average [P] <- (1 - follow) average + follow
    parameter, if given with its rate ``follow`` []. All are float32 on the parameter's device."""
    data, grad = parameter.detach(), parameter.grad
    every = (data, grad, state["exp_avg"], state["exp_avg_sq"], data if average is None else average)
    assert all(x is not None and x.is_contiguous() and x.dtype == torch.float32 and x.shape == data.shape
               for x in every)
    state["step"].add_(1)
    with current(data.device):
        adam_kernel[triton.cdiv(data.numel(), BLOCK),](
            *every, state["step"], rate, data.numel(), decay, rate if follow is None else follow, *betas,
            *map(math.log2, betas), epsilon, AVERAGED=average is not None, BLOCK=BLOCK, num_warps=4)
