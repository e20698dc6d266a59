"""The guided step with its gradient written out: one forward pass keeps what the backward pass needs, and the
vector-Jacobian product of eps_w is written by hand, without an autograd graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from swg_fast.kernels.shared.packing import PackedNetwork
from swg_fast.kernels.shared.sampler_table import Latent, SamplerTable

# z [M, D] and a row of the table -> eps [M, D] and, where the row is guided, d eps_w / dz [M, D].
Network = Callable[[torch.Tensor, int], tuple[torch.Tensor, torch.Tensor | None]]


def silu_and_slope(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """SiLU(x) = x s and its derivative s + x s (1 - s), s = sigmoid(x)."""
    s = torch.sigmoid(x)
    y = x * s
    return y, s + y * (1 - s)


def normalise(h: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """LayerNorm without scale and shift: x = (h - mean) / std, and 1 / std [M, 1]."""
    x, _, rstd = torch.native_layer_norm(h, h.shape[-1:], None, None, eps)
    return x, rstd


def normalise_vjp(grad: torch.Tensor, x: torch.Tensor, rstd: torch.Tensor) -> torch.Tensor:
    """The gradient through `normalise` [M, H]: rstd (g - mean(g) - x mean(g x))."""
    along = (grad * x).mean(dim=-1, keepdim=True)
    return rstd * (grad - grad.mean(dim=-1, keepdim=True) - x * along)


def eps_and_weight_vjp(
    packed: PackedNetwork, z: torch.Tensor, base: torch.Tensor, guided: bool = True
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """eps [M, D] and, if ``guided``, d eps_w / dz [M, D].

    ``z`` is [M, D]; ``base`` [M, H] is the hoisted part of the input layer: the state's vector plus
    the step's row of the time table. The residual stream stays in ``base``'s type, products run in
    the packed network's.
    """
    dtype = packed.dtype
    early = packed.weight_head == "early"
    depth = 2 if early else packed.num_blocks  # blocks that the gradient passes
    h = torch.addmm(base, z, packed.input_z.T)
    saved = []
    for i in range(packed.num_blocks):
        x, rstd = normalise(h, packed.layer_norm_eps)
        a = F.linear(x.to(dtype), packed.up[i], packed.up_bias[i].to(dtype))
        if guided and i < depth:
            y, slope = silu_and_slope(a)
            saved.append((x, rstd, slope))
        else:
            y = F.silu(a)
        h = h + F.linear(y, packed.down[i], packed.down_bias[i].to(dtype))
        if i == 1:
            branch = h
    y, slope = silu_and_slope(h)
    eps = F.linear(y.to(dtype), packed.output, packed.output_bias.to(dtype)).to(h.dtype)
    if early:
        hidden = F.linear(branch.to(dtype), packed.head_hidden, packed.head_hidden_bias.to(dtype))
        y, slope = silu_and_slope(hidden)
        # A row sum, not a matrix-vector product, whose order of summation depends on M.
        eps_w = (y * packed.head_output).sum(dim=1, keepdim=True, dtype=h.dtype)
        eps_w = eps_w + packed.head_output_bias
        eps = torch.cat([eps, eps_w], dim=1)
    if not guided:
        return eps, None
    if early:
        grad = ((slope * packed.head_output) @ packed.head_hidden).to(h.dtype)
    else:
        grad = slope * packed.output[-1].to(h.dtype)
    for i in reversed(range(depth)):
        x, rstd, slope = saved[i]
        inner = (grad.to(dtype) @ packed.down[i]) * slope
        grad = grad + normalise_vjp((inner @ packed.up[i]).to(h.dtype), x, rstd)
    return eps, grad @ packed.input_z


def log_weight_gradient(z: torch.Tensor, eps: torch.Tensor, vjp: torch.Tensor,
                        row: dict[str, float], clip: tuple[float, float]) -> torch.Tensor:
    """grad_z log clip(w0) [M, D] from eps and d eps_w / dz; zero outside the clip, NaN is 0."""
    clean = z[:, -1:] - row["sigma"] * eps[:, -1:]
    numerator = -row["sigma"] * vjp
    numerator[:, -1] += 1.0
    weight = row["readout"] * clean
    inside = (weight >= clip[0]) & (weight <= clip[1])
    gradient = torch.where(inside, numerator / clean, 0.0)
    return torch.where(gradient.isnan(), 0.0, gradient)


def clip_latent(z: torch.Tensor, clip: tuple[float, float]) -> torch.Tensor:
    """Actions to [-1, 1], the weight to ``clip``; in place."""
    z[:, :-1].clamp_(-1.0, 1.0)
    z[:, -1].clamp_(*clip)
    return z


class Step(NamedTuple):
    """One row's results: the next z [M, D], its weight before any clip [M], x0 [M, D] (None for a
    row that does not use it), eps [M, D] and the gradient [M, D] (None where unguided)."""

    z: torch.Tensor
    weight: torch.Tensor
    clean: torch.Tensor | None
    eps: torch.Tensor
    gradient: torch.Tensor | None


def update(table: SamplerTable, j: int, z: torch.Tensor, eps: torch.Tensor, vjp: torch.Tensor | None,
           noise: torch.Tensor | None, last: torch.Tensor | None = None) -> Step:
    """Row j of the sampler's table. ``vjp`` is d eps_w / dz where the row is guided, ``last`` the
    x0 of the row before where row j reads it."""
    row = table.row(j)
    guided, gradient, clean = eps, None, None
    if table.guides(j):
        gradient = log_weight_gradient(z, eps, vjp, row, table.weight_clip)
        guided = eps - row["guidance"] * gradient
    new = row["state"] * z + row["epsilon"] * guided
    clipped = 0.0  # what the clip of x0 takes off the new weight
    if row["clean"] != 0.0:
        clean = row["clean_scale"] * (z - row["sigma"] * guided)
        if table.clip_clean:
            raw = clean[:, -1].clone()
            clip_latent(clean, table.weight_clip)
            clipped = row["clean"] * (raw - clean[:, -1])
        new += row["clean"] * clean
    if row["previous"] != 0.0:
        new += row["previous"] * last
    if row["noise"] != 0.0:
        new += row["noise"] * noise
    weight = new[:, -1] + clipped
    if table.clip_state:
        clip_latent(new, table.weight_clip)
    return Step(new, weight, clean, eps, gradient)


def guided_step(
    packed: PackedNetwork, table: SamplerTable, j: int, z: torch.Tensor, state_vectors: torch.Tensor,
    noise: torch.Tensor | None, last: torch.Tensor | None = None,
) -> Step:
    """Row j of the table for z [M, D].

    ``state_vectors`` [M, H] is `PackedNetwork.hoist_states` by row; ``noise`` [M, D] may be None
    where the row adds none, ``last`` [M, D] where it reads no x0.
    """
    base = state_vectors + packed.time_table[table.steps[j]]
    return update(table, j, z, *eps_and_weight_vjp(packed, z, base, table.guides(j)), noise, last)


def walk(table: SamplerTable, network: Network, rows: Sequence[int], start: Latent,
         noise: dict[int, torch.Tensor]) -> Latent:
    """The table's ``rows`` in order, from ``start``. ``noise[j]`` [M, D] is row j's, where it adds any."""
    z, clean, weight = start
    for j in rows:
        z, weight, clean, _, _ = update(table, j, z, *network(z, j), noise.get(j), clean)
    return Latent(z, clean if table.multistep else None, weight)
