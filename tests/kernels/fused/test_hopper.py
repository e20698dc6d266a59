"""The Gluon kernels for sm_90 as compiled code, at their real sizes, in the emulator: a step against the
reference; whole trajectories with trees, rankings and solvers against the portable kernel."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from conftest import ddpm, make_network, relative_error

pytest.importorskip("triton", reason="Triton exists for Linux alone")

from emulator import MachineError
from emulator.emulation import Emulation
from emulator.problems import random, same_bits
from one_step import check_gradient, eps_of, gradient_of, row, step_problem, walk, with_gradient

from swg_fast import NoiseSchedule
from swg_fast.kernels.fused import launch
from swg_fast.kernels.fused.configurations import CONFIGS, GLUON, suitable
from swg_fast.kernels.fused.hopper import launch as hopper_launch
from swg_fast.kernels.shared.packing import pack
from swg_fast.kernels.shared.sampler_table import COLUMNS, Ranking, Tree
from swg_fast.method.samplers import sampler_table
from swg_fast.reference import philox
from tests.analysis.l2_traffic import gluon_bytes_per_candidate

BOUND = 1e-2  # of a step in bf16, whose operands keep 8 bits
SCHEDULES = ((0, "late"), (1, "random"), (0, "issue"))


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("emulated")]


def step(monkeypatch, hidden, head, rho, M, edit=None):
    """A guided step: (a function that runs it under a schedule, its emulation, eps, the reference's step, its
    start, sigma)."""
    schedule, network, start = step_problem(hidden, head, M)
    fused = launch.KernelNetwork.lay_out(pack(network, 15, torch.bfloat16), "bf16")
    table = row(ddpm(schedule, rho, 0.7), start.t, start)
    emulation = Emulation(90, edit).install(monkeypatch)

    def run(seed, asynchronous):
        return emulation.run(lambda: (with_gradient(fused, table, start, GLUON[hidden]),), seed, asynchronous)

    eps = eps_of(fused, table, start, GLUON[hidden])
    expected = start.expected(network, schedule, guidance_scale=rho, temperature=0.7)
    return run, emulation, eps, expected, start, float(schedule.sigmas[start.t])


def check_step(monkeypatch, hidden, head, rho, M, schedules=SCHEDULES):
    run, emulation, eps, expected, start, sigma = step(monkeypatch, hidden, head, rho, M)
    outputs = [run(*one) for one in schedules]
    assert not emulation.races, emulation.races[0]
    assert same_bits(outputs)
    assert relative_error(eps, expected.eps) < BOUND
    if rho:
        check_gradient(eps, gradient_of(eps, outputs[0][0]), expected, start.z, sigma, BOUND)
    check_traffic(emulation, hidden, head, rho, rows=-(-M // 128) * 128 * (len(schedules) + 1))


def check_traffic(emulation, hidden, head, rho, rows):
    """The report's bytes are those that the code moves: exactly for weights; for scratch, except values with
    a few entries a row."""
    per_row = {name: bytes_moved / rows for name, bytes_moved in emulation.traffic.items()}
    model = gluon_bytes_per_candidate(hidden, 3, 64, head_width=256 * (head == "early"), guided=rho > 0)
    streamed = ["up", "down", "ends", *(["head"] if head == "early" else [])]
    assert sum(per_row[name] for name in streamed) == model["weights"]
    walks_own = 5 * 16 * 4 + 2 * 4  # z is stored twice and loaded three times, the weight once each
    assert 0 <= per_row["low"] + per_row["wide"] - model["scratch"] - walks_own < 8 * 16 * 4


@pytest.mark.compiled
@pytest.mark.parametrize("rho,M", [(5.0, 70), (5.0, 131), (0.0, 5)])
@pytest.mark.parametrize("head", ["early", "joint"])
@pytest.mark.parametrize("hidden", [128, 256])
def test_step(monkeypatch, hidden, head, rho, M):
    """Within bf16's bound of the reference; no race; the same bits in all schedules, with copies and products
    at issue, at random and as late as allowed."""
    check_step(monkeypatch, hidden, head, rho, M)


def both_kernels(monkeypatch, hidden, head, name, rho, T, N, B, schedules, interval=None, **keywords):
    """The Gluon kernel's results for B states, the same in all schedules, and the portable kernel's; of the
    steps of an ``interval`` or of all guided."""
    network, schedule = make_network(5, 8, hidden, 3, head), NoiseSchedule.vp(T)
    fused = launch.KernelNetwork.lay_out(pack(network, T, torch.bfloat16), "bf16")
    table = sampler_table(name, schedule, guidance_scale=rho, temperature=1.0, guidance_interval=interval)
    states = random(B, 5, seed=1)
    emulation = Emulation(90).install(monkeypatch)

    def sample(config):
        return launch.sample(fused, table, states, torch.arange(B),
                             launch.Asked(N, 9, return_candidates=True, config=config, **keywords))

    outputs = [emulation.run(lambda: sample(GLUON[hidden]), *one) for one in schedules]
    assert not emulation.races, emulation.races[0]
    assert same_bits(outputs)
    return outputs[0], sample(CONFIGS[90, hidden, "bf16"].many[1]), table


@pytest.mark.compiled
@pytest.mark.parametrize("hidden,head,name,rho,T,N,B,search", [
    (256, "joint", "dpmpp_2m", 1.0, 2, 24, 3, "tree and ranking"),
    (256, "early", "ddpm", 1.0, 2, 70, 1, "softmax"),
    (256, "joint", "ddpm_x0", 1.0, 2, 70, 1, "plain"),
    (256, "early", "ddpm", 0.0, 2, 40, 1, "ranking"),
    (128, "joint", "ddpm", 1.0, 2, 300, 1, "tree"),
    (128, "early", "dpmpp_2m", 1.0, 15, 70, 1, "plain"),
    (256, "joint", "ddpm", 1.0, 2, 9, 15, "plain"),  # tiles of several states
    (128, "early", "ddpm", 0.0, 1, 1, 70, "softmax"),
    (128, "joint", "ddpm", 3.0, 3, 70, 1, "interval"),
    (128, "early", "ddpm", 3.0, 3, 24, 1, "interval, tree and ranking"),
])
def test_trajectories_are_the_portable_kernels(monkeypatch, hidden, head, name, rho, T, N, B, search):
    """Results agree with the portable kernel's within bf16's precision, and the best candidate is kept."""
    keywords = {"softmax": search == "softmax"}
    if "tree" in search:
        keywords["tree"] = Tree(leaves=4, shared=1)
    if "ranking" in search:
        sigma = float(NoiseSchedule.vp(T).sigmas[1])
        keywords["ranking"] = Ranking(step=1, draws=2, mean=0.5, sigma=sigma, trained_steps=T)
    ours, portable, table = both_kernels(
        monkeypatch, hidden, head, name, rho, T, N, B, ((1, "random"), (0, "late")),
        (1, 1) if "interval" in search else None, **keywords)
    assert table.partly_guided is ("interval" in search)
    actions, weights, indices, z, raw, expected = ours[:6]
    away = (z - portable[3]).abs().amax(-1)
    # Trajectories diverge where guidance divides by a weight near 0; most do not.
    assert float(away.median()) < 0.02 and float((away < 0.1).float().mean()) > 0.8
    assert float((raw - portable[4]).abs().median()) < 0.02 * max(1.0, float(portable[4].abs().median()))
    score = raw
    if "ranking" in search:
        assert float((expected - portable[5]).abs().median()) < BOUND * float(portable[5].abs().median())
        score = expected
    if search == "softmax":
        noise = torch.stack([philox.gumbel(9, torch.arange(N), torch.tensor(b), T) for b in range(B)])
        score = raw.clamp(min=float(table.weight_clip[0])).log() + noise
    assert torch.equal(indices, score.argmax(1))
    assert torch.equal(weights, raw.gather(1, indices[:, None])[:, 0])
    assert torch.equal(actions, z[torch.arange(B), indices, :-1])


@pytest.mark.compiled
def test_noise_is_the_references(monkeypatch):
    """Measured by a step that adds nothing else: z' = xi."""
    schedule, network, start = step_problem(128, "joint", 70)
    start = replace(start, first=977, seed=2**40 + 3, words=torch.tensor([5]))
    fused = launch.KernelNetwork.lay_out(pack(network, 15, torch.bfloat16), "bf16")
    table = row(ddpm(schedule, 0.0, 0.7), start.t, start)
    coefficients = torch.zeros_like(table.coefficients)
    coefficients[:, COLUMNS.index("noise")] = 1.0
    Emulation(90).install(monkeypatch)
    z, _ = walk(fused, replace(table, coefficients=coefficients, clip_state=False), start, GLUON[128])
    assert relative_error(z, start.noise) < 1e-6


def left_out(ptx, pattern):
    """The kernel without one of the matching instructions, for each of them."""
    for match in re.finditer(pattern + r"[^;]*;", ptx):
        yield ptx[: match.start()] + ptx[match.end():]


@pytest.mark.compiled
@pytest.mark.parametrize("pattern", [r"fence\.proxy\.async", r"wgmma\.wait_group\.sync\.aligned"])
def test_faults_are_seen(monkeypatch, pattern):
    """Without a fence or a wait of the network the machine finds a race, other bits, or an error. (The
    compiler repeats some instructions needlessly; most are needed.)"""
    run, emulation, *_ = step(monkeypatch, 128, "joint", 5.0, 70)
    whole = run(0, "late")
    ptx = emulation.compiled["sample_kernel"].ptx
    seen = total = 0
    for faulty in list(left_out(ptx, pattern))[::3]:
        emulation.edit, emulation.results[:] = (lambda _, faulty=faulty: faulty), []
        try:
            out = run(0, "late")
            seen += bool(emulation.races) or not same_bits([whole, out])
        except MachineError:
            seen += 1
        total += 1
    assert total > 2 and seen > total / 2, (seen, total)


def test_scratch_and_what_is_not_supported():
    sizes = hopper_launch.scratch_sizes(256, 3, 16, 64)
    assert 132 * hopper_launch.GROUPS * (2 * sizes.LOW + 4 * sizes.WIDE) < 64 * 2**20
    assert hopper_launch.unsupported(256, 9, "bf16") is None
    assert "hidden_dim 64" in hopper_launch.unsupported(64, 9, "bf16")
    assert "tf32" in hopper_launch.unsupported(256, 9, "tf32")
    assert "16 actions" in hopper_launch.unsupported(256, 17, "bf16")
    assert "5 blocks" in hopper_launch.unsupported(256, 9, "bf16", 5)
    assert hopper_launch.unsupported(128, 9, "bf16", 6) is None


def test_many_candidates_on_capability_9_take_them():
    """Supported networks take them; few candidates, and other GPUs, take the portable kernels."""
    many, few = 132 * 64, 132 * 64 - 1
    for hidden in GLUON:
        assert suitable(90, hidden, "bf16", many, 132)[0] is GLUON[hidden]
        rest = [(90, hidden, "bf16", few, 132), (90, hidden, "bf16", 2**20, 132, False),
                (90, hidden, "fp32", 2**20, 132), (80, hidden, "bf16", 2**20, 108),
                (100, hidden, "bf16", 2**20, 148)]
        assert not any(suitable(*one)[0].kind == "gluon" for one in rest)
