"""Packs a score network into the tensors that sampling reads, folded and hoisted.

- Input layer: W_in [z, s, c(t)] = W_z z + W_s s + (W_t c(t) + b). The last term is a table over t,
  the second one vector a state; only W_z z is left for every candidate and step.
- LayerNorm: its scale and shift go into the next layer, W' = W diag(gamma), b' = b + W beta.

Folding is done in float64 and rounded once to the type asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from swg_fast.kernels.shared.devices import settle

# Below a few rows a library switches to other products, which round otherwise. Rows padded to a
# multiple of this keep a candidate's value independent of what it is computed beside.
ROW_MULTIPLE = 16


@dataclass(frozen=True)
class PackedNetwork:
    """H hidden, L blocks, A actions, D = A + 1, S states, E the early head's width.

    input_z [H, D], input_s [H, S], time_table [T, H] and read_row [H], the one of step T at which a network
    may have learnt to read the weight off a clean action, are always float32 or wider; up [L, 4H, H],
    down [L, H, 4H], output [A or D, H], head_hidden [E, H] and head_output [E] have the compute
    type; biases are float32 or wider. The head's tensors are None for ``joint``.
    """

    weight_head: str
    layer_norm_eps: float
    input_z: torch.Tensor
    input_s: torch.Tensor
    time_table: torch.Tensor
    read_row: torch.Tensor
    up: torch.Tensor
    up_bias: torch.Tensor
    down: torch.Tensor
    down_bias: torch.Tensor
    output: torch.Tensor
    output_bias: torch.Tensor
    head_hidden: torch.Tensor | None
    head_hidden_bias: torch.Tensor | None
    head_output: torch.Tensor | None
    head_output_bias: torch.Tensor | None

    @property
    def hidden_dim(self) -> int:
        return self.input_z.shape[0]

    @property
    def latent_dim(self) -> int:
        return self.input_z.shape[1]

    @property
    def state_dim(self) -> int:
        return self.input_s.shape[1]

    @property
    def num_blocks(self) -> int:
        return self.up.shape[0]

    @property
    def num_steps(self) -> int:
        return self.time_table.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.up.dtype

    @property
    def device(self) -> torch.device:
        return self.up.device

    def time_row(self, t: int | None) -> torch.Tensor:
        """What step t adds to the input layer, [H]; None for the step to read at."""
        return self.read_row if t is None else self.time_table[t]

    def hoist_states(self, states: torch.Tensor) -> torch.Tensor:
        """W_s s, [B, H]. A state's vector does not depend on the other states of the batch."""
        rows = F.pad(states.to(self.input_s.dtype), (0, 0, 0, -len(states) % ROW_MULTIPLE))
        return (rows @ self.input_s.T)[: len(states)]

    def flops_per_candidate(self, guided: bool) -> int:
        """Floating-point operations of all T steps, a multiply and an add each counted."""
        H, D, L = self.hidden_dim, self.latent_dim, self.num_blocks
        block = 2 * 2 * H * 4 * H
        forward = 2 * H * D + L * block + 2 * H * self.output.shape[0]
        depth, head = (2, 2 * self.head_hidden.shape[0] * (H + 1)) if self.head_hidden is not None \
            else (L, 2 * H)
        forward += head if self.head_hidden is not None else 0
        backward = depth * block + head + 2 * H * D
        return self.num_steps * (forward + (backward if guided else 0))


@torch.no_grad()
def pack(network: Any, num_steps: int, dtype: torch.dtype = torch.float32,
         device: torch.device | str = "cpu") -> PackedNetwork:
    """Packs a `ScoreNetwork` for steps 0..num_steps-1 in compute type ``dtype`` on ``device``."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32

    def double(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to("cpu", torch.float64)

    def cast(tensor: torch.Tensor, to: torch.dtype = dtype) -> torch.Tensor:
        return tensor.to(device, to).contiguous()

    D, S = network.latent_dim, network.state_dim
    weight = double(network.input.weight)
    input_z, input_s, input_t = weight[:, :D], weight[:, D:D + S], weight[:, D + S:]
    table = _time_embedding(network, num_steps + 1) @ input_t.T + double(network.input.bias)

    blocks = list(network.blocks)
    ups = [double(b.up.weight) for b in blocks]
    up = torch.stack([w * double(b.norm.weight) for w, b in zip(ups, blocks, strict=True)])
    up_bias = torch.stack([double(b.up.bias) + w @ double(b.norm.bias)
                           for w, b in zip(ups, blocks, strict=True)])
    early = network.weight_head == "early"
    packed = PackedNetwork(
        weight_head=network.weight_head,
        layer_norm_eps=blocks[0].norm.eps,
        input_z=cast(input_z, wide),
        input_s=cast(input_s, wide),
        time_table=cast(table[:-1], wide),
        read_row=cast(table[-1], wide),
        up=cast(up),
        up_bias=cast(up_bias, wide),
        down=cast(torch.stack([double(b.down.weight) for b in blocks])),
        down_bias=cast(torch.stack([double(b.down.bias) for b in blocks]), wide),
        output=cast(double(network.output.weight)),
        output_bias=cast(double(network.output.bias), wide),
        head_hidden=cast(double(network.weight_hidden.weight)) if early else None,
        head_hidden_bias=cast(double(network.weight_hidden.bias), wide) if early else None,
        head_output=cast(double(network.weight_output.weight[0])) if early else None,
        head_output_bias=cast(double(network.weight_output.bias), wide) if early else None,
    )
    settle(packed.device)  # any stream may read it
    return packed


def _time_embedding(network: Any, num_steps: int) -> torch.Tensor:
    """The embedding of steps 0..num_steps-1 in float64, [T, width], without moving the network."""
    frequencies = network.time_features.frequencies.detach().to("cpu", torch.float64)
    phase = 2 * torch.pi * torch.arange(num_steps, dtype=torch.float64, device="cpu")[:, None] * frequencies
    x = torch.cat([phase.cos(), phase.sin()], dim=1)
    first, _, second = network.time_mlp
    for layer, activate in ((first, True), (second, False)):
        x = x @ layer.weight.detach().to(x).T + layer.bias.detach().to(x)
        x = torch.nn.functional.silu(x) if activate else x
    return x
