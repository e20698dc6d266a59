"""The guided step for CPUs: the mathematics of `kernels.shared.analytic`, arranged for one core's cache.

oneDNN's pre-packed linear layers do the products (over twice the rate of ``F.linear`` in fp32 on the
machines tried); SiLU and LayerNorm and their ways back are ATen's fused vector loops, which need no
compiler on the user's machine. A tile of some hundred candidates walks through all T steps before
the next, so that its activations stay in the core's second-level cache.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from swg_fast.kernels.shared.analytic import walk
from swg_fast.kernels.shared.packing import ROW_MULTIPLE, PackedNetwork
from swg_fast.kernels.shared.sampler_table import Latent, SamplerTable

TILE = 512  # rows; smaller tiles read the weights more often, larger ones spill the cache


def has_native_bf16() -> bool:
    """Whether the processor multiplies bf16 natively (AVX512-BF16, AMX, or Arm's BF16)."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    ) if has_packed_linear() else False


def has_packed_linear() -> bool:
    """Whether this torch has oneDNN's pre-packed linear layers."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def silu_and_slope_(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """SiLU(x), written over x, and its derivative s + y (1 - s), in two buffers and four passes.

    ATen's own ``silu_backward`` is one pass, but in bf16 it took eight times as long as this.
    """
    s = torch.sigmoid(x)
    y = x.mul_(s)
    slope = torch.rsub(s, 1.0)
    return y, slope.mul_(y).add_(s)


# TorchScript, because a trace cannot record these operators' lists of options by itself.
_LAYER_NORM = torch.jit.CompilationUnit("""
def vjp(grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor):
    return torch.ops.aten.native_layer_norm_backward(
        grad, x, [x.size(1)], mean, rstd, None, None, [True, False, False])[0]
""")
_ONEDNN = torch.jit.CompilationUnit("""
def linear(x: Tensor, w: Tensor, b: Optional[Tensor], activation: str):
    return torch.ops.mkldnn._linear_pointwise(x, w, b, activation, [], "")
""") if has_packed_linear() else None
_LINEAR = None if _ONEDNN is None else _ONEDNN.linear  # looked up here, not at each product


class PackedLinear:
    """y = activation(x W^T + b) with W [out, in] reordered once by oneDNN."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        weight = weight.contiguous()
        self.bias = None if bias is None else bias.to(weight.dtype)
        self.packed = has_packed_linear()
        self.weight = (torch.ops.mkldnn._reorder_linear_weight(weight, TILE)
                       if self.packed else weight)

    def __call__(self, x: torch.Tensor, activation: str = "none") -> torch.Tensor:
        if self.packed:
            return _LINEAR(x, self.weight, self.bias, activation)
        y = F.linear(x, self.weight, self.bias)
        return F.silu(y) if activation == "swish" else y


class PackedLayers:
    """A packed network's large products ready for oneDNN, forwards and backwards."""

    def __init__(self, packed: PackedNetwork) -> None:
        self.packed = packed
        self.early = packed.weight_head == "early"
        self.depth = 2 if self.early else packed.num_blocks  # blocks that the gradient passes
        L, back = range(packed.num_blocks), range(self.depth)
        self.up = [PackedLinear(packed.up[i], packed.up_bias[i]) for i in L]
        self.down = [PackedLinear(packed.down[i], packed.down_bias[i]) for i in L]
        self.up_back = [PackedLinear(packed.up[i].T, None) for i in back]
        self.down_back = [PackedLinear(packed.down[i].T, None) for i in back]
        if self.early:
            self.head = PackedLinear(packed.head_hidden, packed.head_hidden_bias)
            # The head's output layer is one row: its gradient is folded into the way back.
            self.head_back = PackedLinear(packed.head_hidden.T * packed.head_output, None)


class CpuNetwork(PackedLayers):
    """The guided step with ATen's operators between the products."""

    def __init__(self, packed: PackedNetwork) -> None:
        super().__init__(packed)
        self.output = PackedLinear(packed.output, packed.output_bias)
        self.layers = [*self.up, *self.down, *self.up_back, *self.down_back, self.output,
                       *([self.head, self.head_back] if self.early else [])]
        self.weights = tuple(layer.weight for layer in self.layers)
        self._traced: dict[bool, Any] = {}
        self._lock = threading.Lock()

    def eps_and_weight_vjp(self, z: torch.Tensor, base: torch.Tensor, guided: bool
                           ) -> tuple[torch.Tensor, ...]:
        """(eps, d eps_w / dz), the second if ``guided``: `_forward_and_back` as one recorded graph.

        A graph runs without Python's global lock, which some eighty small calls a step would
        otherwise contend for: two threads gain as much as two processes do.
        """
        with self._lock:
            if guided not in self._traced:
                self._traced[guided] = self._trace(guided)
        with torch.jit.optimized_execution(False):
            return self._traced[guided](z, base, self.weights)

    def _trace(self, guided: bool) -> Any:
        """Records the step. Reordered weights cannot be constants of a graph, so they are inputs."""
        layers = self.layers

        def step(z: torch.Tensor, base: torch.Tensor, weights: tuple[torch.Tensor, ...]
                 ) -> tuple[torch.Tensor, ...]:
            for layer, weight in zip(layers, weights, strict=True):
                layer.weight = weight
            return self._forward_and_back(z, base, guided)

        rows = 2 * ROW_MULTIPLE
        of = self.packed.input_z  # the type that a step is given
        example = (of.new_zeros(rows, of.shape[1]), of.new_zeros(rows, of.shape[0]), self.weights)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return torch.jit.trace(step, example, check_trace=False)
            finally:
                for layer, weight in zip(layers, self.weights, strict=True):
                    layer.weight = weight

    def _forward_and_back(self, z: torch.Tensor, base: torch.Tensor, guided: bool
                          ) -> tuple[torch.Tensor, ...]:
        packed, dtype = self.packed, self.packed.dtype
        shape = [packed.hidden_dim]
        h = torch.addmm(base, z, packed.input_z.T)
        saved = []
        for i in range(packed.num_blocks):
            x, mean, rstd = torch.native_layer_norm(h, shape, None, None, packed.layer_norm_eps)
            x = x.to(dtype)
            if guided and i < self.depth:
                y, slope = silu_and_slope_(self.up[i](x))
                saved.append((h, mean, rstd, slope))
            else:
                y = self.up[i](x, "swish")
            h = h + self.down[i](y)
            if i == 1:
                branch = h
        y, slope = silu_and_slope_(h) if guided and not self.early else (F.silu(h), None)
        eps = self.output(y.to(dtype)).to(h.dtype)
        if self.early:
            y, slope = silu_and_slope_(self.head(branch.to(dtype)))
            eps_w = (y * packed.head_output).sum(dim=1, keepdim=True, dtype=h.dtype)
            eps = torch.cat([eps, eps_w.add_(packed.head_output_bias)], dim=1)
        if not guided:
            return (eps,)
        grad = self.head_back(slope).to(h.dtype) if self.early else slope.mul_(packed.output[-1])
        for i in reversed(range(self.depth)):
            h, mean, rstd, slope = saved[i]
            inner = slope.mul_(self.down_back[i](grad.to(dtype)))
            outer = self.up_back[i](inner).to(h.dtype)
            grad = grad + _LAYER_NORM.vjp(outer, h, mean, rstd)
        return eps, grad @ packed.input_z

    def walk(self, table: SamplerTable, states: torch.Tensor, rows: Sequence[int], start: Latent,
             noise: dict[int, torch.Tensor]) -> Latent:
        """The table's ``rows`` for one tile of M candidates: `kernels.shared.analytic.walk`.

        states [M, H] is hoisted; noise [M, D] by row.
        """
        def network(z: torch.Tensor, j: int) -> tuple[torch.Tensor, torch.Tensor | None]:
            base = states + self.packed.time_table[table.steps[j]]
            eps, *vjp = self.eps_and_weight_vjp(z, base, table.guides(j))
            return eps, vjp[0] if vjp else None

        return walk(table, network, rows, start, noise)
