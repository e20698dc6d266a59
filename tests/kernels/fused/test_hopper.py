"""The Gluon network for sm_90 as compiled code, at its real size, in the emulator."""

from __future__ import annotations

import pytest
import torch
from conftest import make_network, relative_error

pytest.importorskip("triton", reason="Triton exists for Linux alone")

from emulator import Kernel, TensorMap
from emulator.compiling import compile_kernel
from emulator.problems import random, same_bits
from swg_fast.kernels.fused import launch
from swg_fast.kernels.shared.analytic import eps_and_weight_vjp
from swg_fast.kernels.shared.pack import pack

H, BC, SLOTS, L, A, DP, T = 256, 32, 4, 3, 8, 16, 15
SCHEDULES = ((0, "late"), (1, "random"), (2, "random"), (0, "issue"))
TILE = f"tensordesc<bf16[{BC}, {H}],NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)>"


def compiled(guided):
    pointers = {"z": "*fp32", "state_vectors": "*fp32", "owners": "*i64", "time_row": "*fp32",
                "input_z": "*fp32", "up_bias": "*fp32", "down_bias": "*fp32", "output": "*bf16",
                "output_bias": "*fp32", "eps": "*fp32", "vjp": "*fp32", "kept": "*bf16", "up": TILE,
                "down": TILE, "M": "i32"}
    return compile_kernel("swg_fast.kernels.fused.hopper", "network_kernel", pointers,
                          {"D": A + 1, "DP": DP, "L": L, "GUIDED": guided, "H": H, "BC": BC, "SLOTS": SLOTS,
                           "LN_EPS": 1e-6, "REGISTERS": 240}, 90)


def emulate(guided, M, schedules, edit=lambda ptx: ptx):
    """(eps, vjp) of each schedule, races, the packed network, z and its rows' base of the input layer."""
    network = make_network(5, A, H, L, "joint")
    packed, wide = pack(network, T, torch.bfloat16), pack(network, T)
    z, states, owners, step = random(M, A + 1), random(3, 5, seed=1), torch.arange(M) % 3, 6
    laid_out = launch.KernelNetwork.lay_out(packed, "bf16").tensors
    input_z, up, up_bias, down, down_bias, output, output_bias = laid_out[:7]
    grid = -(-M // 128)
    tiles = grid * 128
    vectors, owned = wide.hoist_states(states), torch.nn.functional.pad(owners, (0, tiles - M))
    row = packed.time_table[step].contiguous()
    kernel_code = compiled(guided)
    kernel = Kernel(edit(kernel_code.ptx), kernel_code.shared)

    def mapped(weights):
        flat = weights.reshape(-1, H)
        return (TensorMap(flat, (BC, 64), 128), *flat.shape, *flat.stride())

    outputs, races = [], []
    for seed, asynchronous in schedules:
        eps, vjp = torch.full((2, tiles, DP), torch.nan)
        kept = torch.full((L - 1, tiles, H), torch.nan, dtype=torch.bfloat16)
        inputs = (z, vectors, owned, row, input_z)
        result = kernel((grid,), *inputs, *mapped(up), up_bias, *mapped(down), down_bias, output, output_bias,
                        eps, vjp, kept, M, seed=seed, asynchronous=asynchronous,
                        readonly=(*inputs, up_bias, down_bias, output, output_bias))
        outputs.append((eps[:M], vjp[:M] if guided else None))
        races += result.races
    return outputs, races, (wide, z, vectors[owners] + row)


def check(guided, M, schedules):
    outputs, races, (wide, z, base) = emulate(guided, M, schedules)
    assert not races, races[0]
    assert same_bits(outputs)
    eps, vjp = outputs[0]
    expected, expected_vjp = eps_and_weight_vjp(wide, z, base, guided)
    assert relative_error(eps[:, :A + 1], expected) < 1e-2
    if guided:
        assert relative_error(vjp[:, :A + 1], expected_vjp) < 1e-2


@pytest.mark.compiled
@pytest.mark.parametrize("guided,M", [(True, 70), (True, 131), (False, 5)])
def test_network(guided, M):
    """Within bf16's bound of the analytic gradient in float32; no race; the same bits in all schedules,
    with copies and products as late as allowed and at random."""
    check(guided, M, SCHEDULES)
