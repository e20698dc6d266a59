"""All parameters of some modules in one buffer, so that an optimiser step is a few large operations."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from swg_fast.kernels.shared.devices import runs_triton


class FlatParameters:
    """Moves the parameters of ``modules`` into one flat tensor, of which they become views.

    ``data`` [P] is the buffer and ``data.grad`` its gradient; optimise ``data`` alone. Averages
    (`average`) are then one `lerp_`, or on a GPU a part of the optimiser's launch (`take_step`).
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        parameters = [p for module in modules for p in module.parameters()]
        self.data = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in parameters]))
        self.data.grad = torch.zeros_like(self.data)
        offset = 0
        for p in parameters:
            part = slice(offset, offset + p.numel())
            p.data = self.data.data[part].view_as(p)
            p.grad = self.data.grad[part].view_as(p)
            offset += p.numel()

    def zero_grad(self) -> None:
        self.data.grad.zero_()

    @torch.no_grad()
    def average(self, source: FlatParameters, rate: torch.Tensor) -> None:
        """self <- (1 - rate) self + rate source, with a rate []."""
        self.data.lerp_(source.data, rate)


def adam_state(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The live state of an Adam over one flat parameter, zeros before its first step."""
    group = optimizer.param_groups[0]
    (parameter,) = group["params"]
    state = optimizer.state[parameter]
    if not state:
        device = parameter.device if group["capturable"] else torch.device("cpu")
        state |= {"step": torch.zeros((), device=device), "exp_avg": torch.zeros_like(parameter.data),
                  "exp_avg_sq": torch.zeros_like(parameter.data)}
    return state


def take_step(optimizer: torch.optim.Optimizer, flat: FlatParameters, average: FlatParameters | None = None,
              rate: torch.Tensor | None = None) -> None:
    """A step of ``optimizer``, an Adam or AdamW over ``flat`` alone, after which ``average`` (if any)
    follows ``flat`` at ``rate`` [], on the parameters' device."""
    if runs_triton(flat.data.device):
        from swg_fast.kernels.training.adam_triton import adam_step

        group = optimizer.param_groups[0]
        # What the kernel has: decay beside the gradient, as AdamW's.
        assert group["weight_decay"] == 0 or isinstance(optimizer, torch.optim.AdamW)
        assert not group["amsgrad"] and not group["maximize"]
        adam_step(flat.data, adam_state(optimizer), group["lr"], group["betas"], group["eps"],
                  group["weight_decay"], None if average is None else average.data.detach(), rate)
        return
    optimizer.step()
    if average is not None:
        assert rate is not None
        average.average(flat, rate)
