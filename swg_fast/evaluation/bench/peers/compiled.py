"""The analytic guided step through `torch.compile`, as a careful user of plain PyTorch would run it.

On CUDA with "reduce-overhead" (cuBLAS's products and CUDA graphs; "max-autotune" would take minutes a size).
On a CPU the weights are constants of the graph, whose layout the compiler may choose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from swg_fast.kernels.shared.analytic import eps_and_weight_vjp
from swg_fast.kernels.shared.packing import pack

KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16}
ROWS = {"cpu": 1024, "cuda": 65536}  # candidates at a time, as in the uncompiled backend


class GuidedStep(torch.nn.Module):
    """One step of [M, D]: the packed network, its gradient and a row of the sampler's table."""

    def __init__(self, network: Any, table: Any, dtype: str, device: torch.device) -> None:
        super().__init__()
        self.packed = pack(network, table.num_steps, KINDS[dtype], device)
        self.low, self.high = table.weight_clip

    def forward(self, z: torch.Tensor, base: torch.Tensor, row: torch.Tensor, noise: torch.Tensor
                ) -> tuple[torch.Tensor, torch.Tensor]:
        eps, vjp = eps_and_weight_vjp(self.packed, z, base, True)
        clean = z[:, -1:] - row[0] * eps[:, -1:]
        last = torch.zeros_like(z)
        last[:, -1] = 1.0
        weight = row[1] * clean
        inside = (weight >= self.low) & (weight <= self.high)
        gradient = torch.where(inside, (last - row[0] * vjp) / clean, 0.0).nan_to_num(nan=0.0)
        z = row[4] * z + row[5] * (eps - row[2] * gradient) + row[7] * noise
        raw = z[:, -1]
        return torch.cat([z[:, :-1].clamp(-1, 1), raw[:, None].clamp(self.low, self.high)], 1), raw


def make_sampler(network: Any, table: Any, dtype: str, device: torch.device
                 ) -> Callable[[np.ndarray, int, int], np.ndarray]:
    """A function (states [B, S], N, seed) -> kept actions [B, A], compiled at its first call of a size."""
    cuda = device.type == "cuda"
    if not cuda:
        import torch._inductor.config as inductor

        inductor.freezing = True
    step = GuidedStep(network, table, dtype, device).eval()
    compiled = torch.compile(step, mode="reduce-overhead" if cuda else None, dynamic=False)
    coefficients = table.coefficients.float().to(device)
    D, T = network.latent_dim, table.num_steps

    @torch.no_grad()
    def sample(states: np.ndarray, n: int, seed: int) -> np.ndarray:
        generator = torch.Generator(device).manual_seed(seed)
        vectors = step.packed.hoist_states(torch.from_numpy(states).to(device))
        parts = []
        rows = torch.arange(len(states) * n, device=device) // n
        for owner in rows.split(ROWS[device.type]):
            z = table.initial * torch.randn(len(owner), D, generator=generator, device=device)
            mine = vectors[owner]
            for t in reversed(range(T)):
                noise = torch.randn(len(owner), D, generator=generator, device=device)
                if cuda:
                    torch.compiler.cudagraph_mark_step_begin()
                z, raw = compiled(z, mine + step.packed.time_table[t], coefficients[t], noise)
                z, raw = z.clone(), raw.clone()
            parts.append((z, raw))
        z, raw = (torch.cat(column).unflatten(0, (len(states), n)) for column in zip(*parts, strict=True))
        best = raw.argmax(1)
        return z[torch.arange(len(states)), best, :-1].cpu().numpy()

    return sample
