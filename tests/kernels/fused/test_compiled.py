"""The fused kernels as compiled code: PTX for GPUs that are not here, run by the emulator.

Schedules differ in who runs when and in when asynchronous copies and products act; bits must not.
"""

from __future__ import annotations

import pytest
import torch
from conftest import make_network, poison_kernel_memory, relative_error

pytest.importorskip("triton", reason="Triton exists for Linux alone")

from emulator.emulation import Emulation
from swg_fast.kernels.fused import launch
from swg_fast.kernels.fused.configs import Config
from swg_fast.kernels.shared.pack import pack

from swg_fast import NoiseSchedule, reference
from swg_fast.samplers import ddpm

# One step: fp32 differs by the order of sums; tf32 keeps 10 bits of an operand's mantissa, bf16 7.
BOUNDS = {"fp32": 1e-5, "tf32": 1e-3, "bf16": 1e-2}
SCHEDULES = ((0, "late"), (1, "random"))


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("a GPU is here: the kernels run on it")
    poison_kernel_memory(monkeypatch)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same_bits(outputs):
    return all(torch.equal(a.nan_to_num(nan=7e7), b.nan_to_num(nan=7e7))
               for other in outputs[1:] for a, b in zip(outputs[0], other, strict=True) if a is not None)


def step_problem(hidden, head, M, A=8):
    """A step's inputs with predicted weights around the middle of the clip, so that guidance acts."""
    schedule, network = NoiseSchedule.vp(15), make_network(5, A, hidden, 3, head)
    z, states, noise, owner = random(M, A + 1), random(3, 5, seed=1), random(M, A + 1, seed=2), torch.arange(M) % 3
    with torch.no_grad():
        eps_w = network(z, states[owner], torch.tensor(6))[:, -1]
        bias = network.output.bias if head == "joint" else network.weight_output.bias
        bias[-1] += ((z[:, -1] - 0.1) / float(schedule.sigmas[6]) - eps_w).median()
    return schedule, network, z, states, noise, owner


def check_step(monkeypatch, capability, dtype, head, config, hidden=64, M=70, rho=5.0, schedules=SCHEDULES):
    """A guided step within its type's bound of the reference, the same in all schedules, without a race."""
    schedule, network, z, states, noise, owner = step_problem(hidden, head, M)
    fused = launch.KernelNetwork.lay_out(pack(network, 15, launch.DTYPES[dtype], "cpu"), dtype)
    vectors, table = fused.packed.hoist_states(states), ddpm(schedule, rho, 0.7)
    emulation = Emulation(capability).install(monkeypatch)
    outputs = [emulation.run(lambda: launch.guided_step(fused, table, 6, z, vectors, owner, noise, config=config),
                             *one) for one in schedules]
    assert not emulation.races, emulation.races[0]
    assert same_bits(outputs)
    expected = reference.guided_step(network, schedule, states[owner], z, 6, noise, guidance_scale=rho,
                                     temperature=0.7)
    _, _, eps, gradient = outputs[0]
    assert relative_error(eps, expected.eps) < BOUNDS[dtype]
    if rho:
        # Rows whose weight lies within rounding of a clip may fall on either side of it; the gradient times
        # the clean weight, which it divides by, shows the gradient's error alone.
        theirs, sigma = expected.grad_log_weight, float(schedule.sigmas[6])
        both = (gradient.abs().sum(1) > 0) == (theirs.abs().sum(1) > 0)
        assert int(theirs.abs().sum(1).count_nonzero()) > M // 8 and int((~both).sum()) <= 2
        mine, theirs = ((g * (z - sigma * e)[:, -1:])[both]
                        for g, e in ((gradient, eps), (theirs, expected.eps)))
        assert relative_error(mine, theirs) < BOUNDS[dtype]
    return emulation


@pytest.mark.parametrize("dtype,config", [("bf16", Config(64, 32, 4, 2)), ("tf32", Config(64, 32, 4, 2)),
                                          ("fp32", Config(16, 32, 4, 1))], ids=["bf16", "tf32", "fp32"])
@pytest.mark.parametrize("head", ["early", "joint"])
@pytest.mark.parametrize("capability", [80, 90])
def test_guided_step(monkeypatch, capability, head, dtype, config):
    emulation = check_step(monkeypatch, capability, dtype, head, config, M=config.tile + 5)
    operations = set().union(*(result.operations for _, result in emulation.results))
    wanted = {"fp32": "fma_f32", "tf32": "mma_tf32", "bf16": "mma_bf16"}[dtype]
    assert ("wg_mma" if capability == 90 and dtype != "fp32" else wanted) in operations
    assert ("tanh_f32" in operations) is (dtype == "bf16")
