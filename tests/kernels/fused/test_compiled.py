"""The fused kernels as compiled code: PTX for GPUs that this machine need not have, run by the emulator.

Schedules vary the order of warps and the time of asynchronous copies and products; bits must not vary.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch
from conftest import ddpm, make_network, relative_error

pytest.importorskip("triton", reason="Triton exists for Linux alone")

from emulator.emulation import Emulation
from emulator.problems import SCHEDULES, random, same_bits
from emulator.results import EXCHANGE
from one_step import check_gradient, eps_of, gradient_of, row, step_problem, walk, with_gradient

from swg_fast import NoiseSchedule, Policy
from swg_fast.kernels.fused import launch
from swg_fast.kernels.fused.configurations import Config, nearest
from swg_fast.kernels.fused.portable import kernels, phases, selection, stages
from swg_fast.kernels.shared.packing import pack
from swg_fast.reference import philox
from tests.analysis.l2_traffic import bytes_per_candidate

# One step: fp32 differs by the order of sums; tf32 keeps 10 bits of an operand's mantissa, bf16 7.
BOUNDS = {"fp32": 1e-5, "tf32": 1e-3, "bf16": 1e-2}


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("emulated")]


def check_step(monkeypatch, capability, dtype, head, config, hidden=64, M=70, rho=5.0, schedules=SCHEDULES):
    """A guided step is within its type's bound of the reference, the same in all schedules, without a race.
    """
    schedule, network, start = step_problem(hidden, head, M)
    fused = launch.KernelNetwork.lay_out(pack(network, 15, launch.DTYPES[dtype], "cpu"), dtype)
    table = row(ddpm(schedule, rho, 0.7), start.t, start)
    emulation = Emulation(capability).install(monkeypatch)
    outputs = [
        emulation.run(lambda: (with_gradient(fused, table, start, config),), *one) for one in schedules
    ]
    eps = eps_of(fused, table, start, config)
    assert not emulation.races, emulation.races[0]
    assert same_bits(outputs)
    expected = start.expected(network, schedule, guidance_scale=rho, temperature=0.7)
    assert relative_error(eps, expected.eps) < BOUNDS[dtype]
    if rho:
        gradient = gradient_of(eps, outputs[0][0])
        check_gradient(eps, gradient, expected, start.z, float(schedule.sigmas[start.t]), BOUNDS[dtype])
    return emulation


@pytest.mark.parametrize(  # every pair of values; tests marked compiled cover all triples of the shipped ones
    "capability,head,dtype",
    [
        (80, "early", "bf16"),
        (90, "joint", "bf16"),
        (90, "joint", "fp32"),
        *(pytest.param(*case, marks=pytest.mark.compiled)
          for case in ((80, "joint", "tf32"), (90, "early", "tf32"), (80, "early", "fp32"))),
    ],
)
def test_guided_step(monkeypatch, capability, head, dtype):
    config = Config(16, 32, 4, 1) if dtype == "fp32" else Config(64, 32, 4, 2)
    emulation = check_step(monkeypatch, capability, dtype, head, config, M=config.tile + 5)
    operations = set().union(*(result.operations for _, result in emulation.results))
    wanted = {"fp32": "fma_f32", "tf32": "mma_tf32", "bf16": "mma_bf16"}[dtype]
    assert ("wg_mma" if capability == 90 and dtype != "fp32" else wanted) in operations
    assert ("tanh_f32" in operations) is (dtype == "bf16")
    if dtype == "bf16":
        check_traffic(emulation, head, config, rows=2 * config.tile * (len(SCHEDULES) + 1))


@pytest.mark.parametrize("capability,head,config,rho", [
    (90, "early", Config(64, 32, 4, 2), 5.0), (80, "joint", Config(32, 32, 4, 1), 0.0)])
def test_states_share_tiles(monkeypatch, capability, head, config, rho):
    """The bits of each state alone, whose tile is then mostly empty; no race."""
    B, N = 4, 21
    network, schedule = make_network(5, 8, 64, 2, head), NoiseSchedule.vp(2)
    fused = launch.KernelNetwork.lay_out(pack(network, 2, torch.bfloat16, "cpu"), "bf16")
    table, words = ddpm(schedule, rho, 1.0), torch.arange(B) * 7
    rows = random(B, 5, seed=1)
    emulation = Emulation(capability).install(monkeypatch)

    def sample(states):
        return launch.sample(fused, table, rows[states], words[states],
                             launch.Asked(N, 9, return_candidates=True, config=config))

    together = emulation.run(lambda: sample(slice(None)), 1, "random")
    walked = len(emulation.results)
    alone = [sample(slice(b, b + 1)) for b in range(B)]
    # Two warps write bytes of one word in a layout conversion: no race (tests/emulator/README.md).
    races = [race for race in emulation.races if "st.shared.b8" not in race.first]
    assert walked == 2 and not races, races[0]
    apart = tuple(map(torch.cat, zip(*(one[:5] for one in alone), strict=True)))
    assert same_bits([together[:5], apart])
    assert torch.equal(together.indices, together.candidate_weights.argmax(1))


def test_unguided_nothing_is_kept(monkeypatch):
    """The scratch that the code moves is a stage's results for the next, and none is of a way back."""
    schedule, network, start = step_problem(64, "joint", 69)
    fused = launch.KernelNetwork.lay_out(pack(network, 15, torch.bfloat16, "cpu"), "bf16")
    config, emulation = Config(64, 32, 4, 2), Emulation(90).install(monkeypatch)
    eps = eps_of(fused, row(ddpm(schedule, 0.0, 0.7), start.t, start), start, config)
    expected = start.expected(network, schedule, guidance_scale=0.0, temperature=0.7)
    assert relative_error(eps, expected.eps) < BOUNDS["bf16"]
    moved = {name: count / (2 * config.tile) for name, count in emulation.traffic.items()}
    model = bytes_per_candidate(64, 3, config.tile, guided=False)
    assert moved["up"] + moved["down"] == model["weights"]
    assert 0 <= moved["low"] + moved["wide"] - model["scratch"] < 40 * 16 * 4
    guided, unguided = (launch.scratch_sizes(64, 3, 16, config.tile, one) for one in (True, False))
    assert unguided.LOW == 2 * 64 * config.tile < guided.LOW and unguided.WIDE < guided.WIDE


def check_traffic(emulation, head, config, rows):
    """The report's bytes are those that the code moves: exactly for weights; for scratch, except values with
    a few entries a row."""
    per_row = {name: bytes_moved / rows for name, bytes_moved in emulation.traffic.items()}
    model = bytes_per_candidate(64, 3, config.tile, head_width=256 * (head == "early"))
    assert per_row["up"] + per_row["down"] + (head == "early") * per_row["head"] == model["weights"]
    assert 0 <= per_row["low"] + per_row["wide"] - model["scratch"] < 40 * 16 * 4


def source_functions():
    """The function of each line of the kernels' modules."""
    lines = {}
    for module in (kernels, phases, selection, stages):
        for node in ast.parse(Path(module.__file__).read_text()).body:
            if isinstance(node, ast.FunctionDef):
                names = {
                    f"{Path(module.__file__).name}:{n}": node.name
                    for n in range(node.lineno, node.end_lineno + 1)
                }
                lines |= names
    return lines


@pytest.mark.parametrize(
    "capability,head,config", [(90, "joint", Config(64, 32, 4, 2)), (80, "early", Config(64, 32, 4, 2))]
)
def test_exchanges_between_threads_are_documented(monkeypatch, capability, head, config):
    """docs/kernel.md names each place where a thread reads another's write to memory."""
    page = (Path(__file__).parents[3] / "docs" / "kernel.md").read_text()
    documented = set(re.findall(r"^\| [^|]* \| `(\w+)` \| `(\w+)` \| [^|]*barrier", page, re.M))
    schedule, network, start = step_problem(64, head, config.tile + 5)
    fused = launch.KernelNetwork.lay_out(pack(network, 15, torch.bfloat16, "cpu"), "bf16")
    emulation = Emulation(capability, detect=2).install(monkeypatch)
    walk(fused, row(ddpm(schedule, 5.0, 0.7), start.t, start), start, config)
    functions = source_functions()
    found = {
        tuple(functions[where.split()[0]] for where in (race.first, race.second))
        for _, result in emulation.results
        for race in result.reports
        if race.kind == EXCHANGE
    }
    assert len(found) > 2 and found <= documented, found - documented


@pytest.mark.compiled
@pytest.mark.parametrize("head", ["early", "joint"])
@pytest.mark.parametrize(
    "capability,dtype,which",
    [
        (80, "bf16", "many"),
        (80, "bf16", "few"),
        (80, "tf32", "many"),
        (90, "bf16", "many"),
        (90, "bf16", "few"),
        (90, "tf32", "many"),
    ],
)
def test_shipped_guided_step(monkeypatch, capability, dtype, which, head):
    config = getattr(nearest(capability, 256, dtype), which)[0]
    check_step(monkeypatch, capability, dtype, head, config, hidden=256, M=config.tile + 5)


@pytest.mark.compiled
@pytest.mark.parametrize(
    "T,N,B,softmax,head,which",
    [
        (2, 150, 2, False, "early", "many"),
        (2, 150, 2, True, "joint", "many"),
        (15, 150, 1, False, "joint", "many"),
        (15, 150, 1, True, "early", "many"),
        (2, 37, 2, False, "joint", "few"),
        (15, 17, 1, False, "early", "few"),
    ],
)
def test_shipped_trajectories(monkeypatch, T, N, B, softmax, head, which):
    """Whole trajectories and the selection at hidden 256 on sm_90, with the shipped configurations."""
    config = getattr(nearest(90, 256, "bf16"), which)[0]
    network, schedule = make_network(5, 8, 256, 3, head), NoiseSchedule.vp(T)
    fused = launch.KernelNetwork.lay_out(pack(network, T, torch.bfloat16, "cpu"), "bf16")
    states, table = random(B, 5, seed=1), ddpm(schedule, 1.0, 1.0)
    emulation = Emulation(90).install(monkeypatch)
    outputs = [
        emulation.run(
            lambda: launch.sample(
                fused,
                table,
                states,
                torch.arange(B),
                launch.Asked(N, 9, softmax=softmax, return_candidates=True, config=config),
            ),
            *one,
        )
        for one in SCHEDULES
    ]
    assert not emulation.races, emulation.races[0]
    assert same_bits(outputs)
    actions, weights, indices, z, all_weights = outputs[0][:5]
    score = all_weights
    if softmax:
        low = float(table.weight_clip[0])
        noise = torch.stack([philox.gumbel(9, torch.arange(N), torch.tensor(b), T) for b in range(B)])
        score = all_weights.clamp(min=low).log() + noise
    assert torch.equal(indices, score.argmax(1))
    assert torch.equal(weights, all_weights.gather(1, indices[:, None])[:, 0])
    assert torch.equal(actions, z[torch.arange(B), indices, :-1])
    policy = Policy(network, schedule)
    want = policy.sample(states, n_candidates=N, seed=9, backend="torch", dtype="fp32",
                         return_candidates=True)
    away = (z[..., :-1] - want.candidates).abs().amax(-1)
    # bf16 trajectories diverge where guidance divides by a weight near 0; most do not.
    assert float(away.median()) < 0.02 and float((away < 0.1).float().mean()) > 0.7
