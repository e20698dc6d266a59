"""The Gluon network for sm_90 as compiled code, at its real size, in the emulator; and the rows of the
sampler's table around it."""

from __future__ import annotations

import pytest
import torch
from conftest import DEVICE, make_network, poison_kernel_memory, relative_error

pytest.importorskip("triton", reason="Triton exists for Linux alone")

from emulator import Kernel, TensorMap
from emulator.compiling import compile_kernel
from emulator.emulation import Emulation
from emulator.problems import random, same_bits
from swg_fast.kernels.fused import hopper_launch, launch
from swg_fast.kernels.fused.configs import CONFIGS
from swg_fast.kernels.shared.analytic import eps_and_weight_vjp
from swg_fast.kernels.shared.pack import pack

from swg_fast import NoiseSchedule, Policy, UsageError
from swg_fast.samplers import ddpm, sampler_table

H, BC, SLOTS, L, A, DP, T = 256, 32, 4, 3, 8, 16, 15
SCHEDULES = ((0, "late"), (1, "random"), (2, "random"), (0, "issue"))
TILE = f"tensordesc<bf16[{BC}, {H}],NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)>"


def compiled(guided):
    floats = ["z", "state_vectors", "time_row", "input_z", "up_bias", "down_bias", "output_bias",
              "eps", "vjp"]
    types = dict.fromkeys(floats, "*fp32") | dict.fromkeys(("output", "kept"), "*bf16")
    types |= {"owners": "*i64", "up": TILE, "down": TILE}
    return compile_kernel("swg_fast.kernels.fused.hopper", "network_kernel", types,
                          {"D": A + 1, "DP": DP, "L": L, "GUIDED": guided, "H": H, "BC": BC, "SLOTS": SLOTS,
                           "LN_EPS": 1e-6, "REGISTERS": hopper_launch.REGISTERS}, 90)


def mapped(weights):
    """A tensor map as the compiled kernel takes it."""
    flat = weights.reshape(-1, H)
    return (TensorMap(flat, (BC, 64), 128), *flat.shape, *flat.stride())


class Network:
    """Stands for `hopper_launch.run_network`: the compiled network under one schedule."""

    def __init__(self, guided, seed, asynchronous, edit=lambda ptx: ptx):
        code = compiled(guided)
        self.kernel, self.races = Kernel(edit(code.ptx), code.shared), []
        self.schedule = {"seed": seed, "asynchronous": asynchronous}

    def __call__(self, network, guided, tiles, z, vectors, owners, time_row, eps, vjp, kept):
        input_z, up, up_bias, down, down_bias, output, output_bias = network.tensors[:7]
        inputs, row = (z, vectors, owners), time_row.clone()
        result = self.kernel((tiles,), *inputs, row, input_z, *mapped(up), up_bias, *mapped(down), down_bias,
                             output, output_bias, eps, vjp, kept, **self.schedule,
                             readonly=(*inputs, row, input_z, up_bias, down_bias, output, output_bias))
        self.races += result.races


def problem(M):
    """(laid out network, its float32 packing, z, state vectors, owners) of M rows in whole tiles."""
    network = make_network(5, A, H, L, "joint")
    packed = launch.KernelNetwork.lay_out(pack(network, T, torch.bfloat16), "bf16")
    z = torch.zeros(-(-M // 128) * 128, DP)
    z[:M, : A + 1] = random(M, A + 1)
    wide = pack(network, T)
    return packed, wide, z, wide.hoist_states(random(3, 5, seed=1)), torch.arange(len(z)) % 3


def check(guided, M, schedules):
    packed, wide, z, vectors, owners = problem(M)
    row, outputs = wide.time_table[6], []
    for schedule in schedules:
        eps, vjp = torch.full((2, *z.shape), torch.nan)
        kept = torch.full((L - 1, len(z), H), torch.nan, dtype=torch.bfloat16)
        network = Network(guided, *schedule)
        network(packed, guided, len(z) // 128, z, vectors, owners, row, eps, vjp, kept)
        assert not network.races, network.races[0]
        outputs.append((eps, vjp if guided else None))
    assert same_bits(outputs)
    expected = eps_and_weight_vjp(wide, z[:, : A + 1], vectors[owners] + row, guided)
    for mine, theirs in zip(outputs[0], expected[: 1 + guided], strict=False):
        assert relative_error(mine[:M, : A + 1], theirs[:M]) < 1e-2


@pytest.mark.compiled
@pytest.mark.parametrize("guided,M", [(True, 70), (True, 131), (False, 5)])
def test_network(guided, M):
    """Within bf16's bound of the analytic gradient in float32; no race; the same bits in all schedules,
    with copies and products as late as allowed and at random."""
    check(guided, M, SCHEDULES)


def analytic(network, guided, tiles, z, vectors, owners, time_row, eps, vjp, kept):
    """The network in float32."""
    D = network.constants["D"]
    e, v = eps_and_weight_vjp(network.packed, z[:, :D], vectors[owners] + time_row, guided)
    eps.zero_()[:, :D] = e
    if guided:
        vjp.zero_()[:, :D] = v


@pytest.mark.parametrize("sampler,select", [("ddpm", "max_weight"), ("dpmpp_2m", "softmax"),
                                            ("ddpm_x0", "none")])
def test_rows_around_the_network(monkeypatch, sampler, select):
    """Drawing, the table's rows and the selection, with the network in float32: the same is kept."""
    poison_kernel_memory(monkeypatch)
    monkeypatch.setattr(hopper_launch, "run_network", analytic)
    network, N = make_network(5, 3, 64, 2, "joint").to(DEVICE), 300
    policy, states = Policy(network, NoiseSchedule.vp(4), device=DEVICE), random(2, 5).to(DEVICE)
    keywords = {"guidance_scale": 1.0, "temperature": 1.0}
    want = policy.sample(states, N, select=select, seed=9, backend="torch", dtype="fp32", sampler=sampler,
                         return_candidates=True, **keywords)
    laid_out = launch.KernelNetwork.lay_out(pack(network, 4, torch.float32, DEVICE), "fp32")
    table = sampler_table(sampler, policy.model.schedule, **keywords)
    actions, weights, indices, z, all_weights, _ = hopper_launch.sample(
        laid_out, table, laid_out.packed.hoist_states(states), torch.arange(2, device=DEVICE), N, 9,
        softmax=select == "softmax", return_candidates=True)
    assert relative_error(z[..., :-1].cpu(), want.candidates.cpu()) < 1e-4
    if select != "none":
        tie = (weights - want.weights).abs() < 1e-6
        assert ((indices == want.indices) | tie).all()
        assert relative_error(actions.cpu(), want.actions.cpu()) < 1e-4


@pytest.mark.compiled
def test_trajectories_are_the_portable_kernels(monkeypatch):
    """All of it compiled, T = 2: candidates as near to the portable kernel's as bf16 lets them be."""
    poison_kernel_memory(monkeypatch)
    network, schedule, N = make_network(5, A, H, L, "joint"), NoiseSchedule.vp(2), 150
    laid_out = launch.KernelNetwork.lay_out(pack(network, 2, torch.bfloat16), "bf16")
    vectors, table = laid_out.packed.hoist_states(random(2, 5, seed=1)), ddpm(schedule, 1.0, 1.0)
    arguments = (laid_out, table, vectors, torch.arange(2), N, 9)
    emulation = Emulation(90).install(monkeypatch)
    config = CONFIGS[90, 256, "bf16"].many[0]
    portable = launch.sample(*arguments, return_candidates=True, config=config)
    ours = Network(True, 1, "random")
    monkeypatch.setattr(hopper_launch, "run_network", ours)
    actions, weights, indices, z, all_weights, _ = hopper_launch.sample(*arguments, return_candidates=True)
    assert not ours.races and not emulation.races
    away = (z - portable[3]).abs().amax(-1)
    assert float(away.median()) < 0.02
    assert torch.equal(indices, all_weights.argmax(1))
    assert torch.equal(actions, z[torch.arange(2), indices, :-1])


def test_what_it_does_not_do_is_said():
    policy = Policy(make_network(5, 3, 256, 2, "joint"), NoiseSchedule.vp(2), device="cpu")
    with pytest.raises(UsageError, match="needs a GPU of capability 9.0"):
        policy.backend("hopper", "bf16")
    assert "early head" in hopper_launch.unsupported(256, "early")
    assert "hidden_dim 64" in hopper_launch.unsupported(64, "joint")
    assert hopper_launch.unsupported(256, "joint") is None
