"""Launching the Gluon network of `kernels.fused.hopper` with the sampler's rows around it: the same results'
layout, noise, table and selection as `kernels.fused.launch.sample`, two launches a row of the table."""

from __future__ import annotations

import functools
from typing import Any

import torch
from swg_fast.kernels.fused import launch, rows
from swg_fast.kernels.fused.keep import keep_best_kernel
from swg_fast.kernels.fused.launch import KernelNetwork, _key, _on_its_device, _resident_programs
from swg_fast.kernels.shared.table import SamplerTable

TILE, CHUNK, SLOTS, REGISTERS = 128, 32, 4, 240
HIDDEN_SIZES = (128, 256)


def unsupported(hidden: int, head: str) -> str | None:
    """In words, why the Gluon network cannot run this one; None where it can."""
    if hidden not in HIDDEN_SIZES:
        return f"hidden_dim {hidden} (it has {' and '.join(map(str, HIDDEN_SIZES))})"
    return "the early head (it has the joint one)" if head == "early" else None


def tensor_map(weights: torch.Tensor) -> Any:
    """``weights`` [.., H] for TMA, CHUNK rows at a time."""
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    flat = weights.reshape(-1, weights.shape[-1])
    return TensorDescriptor(flat, list(flat.shape), list(flat.stride()), [CHUNK, flat.shape[1]],
                            gl.NVMMASharedLayout(128, 16, 2))


def run_network(network: KernelNetwork, guided: bool, tiles: int, z: torch.Tensor, vectors: torch.Tensor,
                owners: torch.Tensor, time_row: torch.Tensor, eps: torch.Tensor, vjp: torch.Tensor,
                kept: torch.Tensor) -> None:
    """eps and d eps_w / dz of the first ``tiles`` tiles of z [.., DP]."""
    from swg_fast.kernels.fused.hopper import network_kernel

    input_z, up, up_bias, down, down_bias, output, output_bias = network.tensors[:7]
    constants = {name: network.constants[name] for name in ("D", "DP", "L", "H", "LN_EPS")}
    network_kernel[(tiles,)](z, vectors, owners, time_row, input_z, tensor_map(up), up_bias, tensor_map(down),
                             down_bias, output, output_bias, eps, vjp, kept, GUIDED=guided, BC=CHUNK,
                             SLOTS=SLOTS, REGISTERS=REGISTERS, **constants, num_warps=4)


@_on_its_device
def sample(network: KernelNetwork, table: SamplerTable, state_vectors: torch.Tensor,
           state_words: torch.Tensor, n_candidates: int, seed: int, *, softmax: bool = False,
           selection_temperature: float = 1.0, return_candidates: bool = False, first: int = 0,
           tree: None = None, ranking: None = None) -> tuple[torch.Tensor | None, ...]:
    """As `kernels.fused.launch.sample`, but for trees and rankings, which it does not have
    (`ValueError`). As many tiles as there are multiprocessors walk together; memory does not grow with N
    beyond a few numbers a tile."""
    if tree is not None or ranking is not None:
        raise ValueError("the Gluon network walks no trees and no rankings")
    B, device = len(state_vectors), state_vectors.device
    D, DP, H, L = (network.constants[name] for name in ("D", "DP", "H", "L"))
    tiles = -(-n_candidates // TILE)
    together = min(B * tiles, _resident_programs(device))
    new = functools.partial(launch._unwritten, device)
    z, clean, eps, vjp = (new(together * TILE, DP) for _ in range(4))
    weight, owners = new(together * TILE), new(together * TILE, dtype=torch.int64)
    kept = new(max(L - 1, 1), together * TILE, H, dtype=torch.bfloat16)
    best_score, best_weight, best_z = new(B, tiles), new(B, tiles), new(B, tiles, DP)
    best_index = new(B, tiles, dtype=torch.int32)
    every = (B, n_candidates) if return_candidates else (1,)
    all_z, all_weight = new(*every, D), new(*every)
    coefficients, sizes = table.coefficients.float().to(device), {"D": D, "DP": DP, "BM": TILE}
    w_min, w_max = map(float, table.weight_clip)
    for start in range(0, B * tiles, together):
        count = min(together, B * tiles - start)
        where = (start, tiles, first)
        rows.begin_kernel[(count,)](z, clean, owners, state_words, float(table.initial), *where,
                                    table.trained_steps, *_key(seed), **sizes)
        for j in reversed(range(table.num_steps)):
            step = table.steps[j]
            run_network(network, table.guided, count, z, state_vectors, owners,
                        network.packed.time_table[step], eps, vjp, kept)
            rows.row_kernel[(count,)](
                z, clean, weight, eps, vjp, state_words, coefficients[j], w_min, w_max, *where, step,
                *_key(seed), **sizes, GUIDED=table.guided, CLIP_STATE=table.clip_state,
                CLIP_CLEAN=table.clip_clean, MULTISTEP=table.multistep)
        rows.finish_kernel[(count,)](
            z, weight, state_words, w_min, 1.0 / selection_temperature, best_score, best_index, best_weight,
            best_z, all_z, all_weight, *where, table.trained_steps, n_candidates, *_key(seed), **sizes,
            SOFTMAX=softmax, WRITE_ALL=return_candidates)
    actions, weights, indices = new(B, D - 1), new(B), new(B, dtype=torch.int64)
    keep_best_kernel[(B,)](best_score, best_index, best_weight, best_z, actions, weights, indices, tiles,
                           D=D, DP=DP, BT=launch.REDUCE)
    return (actions, weights, indices, *((all_z, all_weight) if return_candidates else (None, None)), None)
