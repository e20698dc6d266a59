"""The layered kernels as compiled code, run by the emulator (see `test_compiled.py`)."""

from __future__ import annotations

import pytest
import torch
from conftest import ddpm, dpmpp_2m_sde, make_network

pytest.importorskip("triton", reason="Triton exists for Linux alone")

from emulator.emulation import Emulation
from emulator.problems import SCHEDULES, random, same_bits

from swg_fast import NoiseSchedule, Policy
from swg_fast.kernels.fused import launch
from swg_fast.kernels.fused.configurations import LAYERS, Config
from swg_fast.kernels.shared.packing import pack

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("emulated")]


def check(monkeypatch, capability, hidden, head, config, N=19, multistep=False):
    """Two steps and the selection, near fp32, the same in all schedules, without a race."""
    network, schedule, B = make_network(5, 8, hidden, 3, head), NoiseSchedule.vp(2), 2
    fused = launch.KernelNetwork.lay_out(pack(network, 2, torch.bfloat16, "cpu"), "bf16")
    states, make = random(B, 5, seed=1), dpmpp_2m_sde if multistep else ddpm
    table = make(schedule, 1.0, 1.0)
    emulation = Emulation(capability).install(monkeypatch)

    def draw():
        fused.plans.clear()  # new memory, filled with NaN
        return launch.sample(fused, table, states, torch.arange(B),
                             launch.Asked(N, 9, return_candidates=True, config=config))

    outputs = [emulation.run(draw, *one) for one in SCHEDULES]
    # Two warps write bytes of one word in a layout conversion: no race (tests/emulator/README.md).
    races = [race for race in emulation.races if "st.shared.b8" not in race.first]
    assert not races, races[0]
    assert same_bits(outputs)
    actions, weights, indices, z, raw = outputs[0][:5]
    assert torch.equal(indices, raw.argmax(1))
    assert torch.equal(weights, raw.gather(1, indices[:, None])[:, 0])
    assert torch.equal(actions, z[torch.arange(B), indices, :-1])
    want = Policy(network, schedule).sample(states, n_candidates=N, seed=9, backend="torch", dtype="fp32",
                                            sampler=make.__name__, return_candidates=True)
    away = (z[..., :-1] - want.candidates).abs().amax(-1)
    # bf16 trajectories diverge where guidance divides by a weight near 0; most do not.
    assert float(away.median()) < 0.02 and float((away < 0.1).float().mean()) > 0.7
    return set().union(*(result.operations for _, result in emulation.results))


@pytest.mark.parametrize("capability,head,config,multistep", [
    (80, "joint", Config(16, 32, 4, 3, kind="layers"), False),
    (90, "early", Config(32, 64, 4, 4, kind="layers"), True),
    (90, "joint", Config(64, 128, 8, 4, kind="layers"), False)])
def test_two_steps(monkeypatch, capability, head, config, multistep):
    operations = check(monkeypatch, capability, 64, head, config, multistep=multistep)
    assert "tanh_f32" in operations
    assert ("wg_mma" if capability == 90 and config.tile >= 64 else "mma_bf16") in operations


@pytest.mark.compiled
@pytest.mark.parametrize("head", ["early", "joint"])
@pytest.mark.parametrize("config", LAYERS, ids=str)
@pytest.mark.parametrize("capability", [80, 90])
def test_shipped(monkeypatch, capability, config, head):
    check(monkeypatch, capability, 256, head, config)
