"""The fused kernels against the reference: under Triton's interpreter, or on a GPU if the machine has one
(see conftest)."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import (
    DATA,
    DEVICE,
    ddim,
    ddpm,
    ddpm_x0,
    dpmpp_2m,
    dpmpp_2m_sde,
    every_pair,
    make_network,
    poison_kernel_memory,
    relative_error,
)
from one_step import Start, centred, eps_of, gradient_of, row, walk, with_gradient

from swg_fast import NoiseSchedule, Policy, UsageError, reference
from swg_fast.kernels.fused import launch
from swg_fast.kernels.fused.configurations import Config
from swg_fast.kernels.fused.layout import tree_layout
from swg_fast.kernels.shared.packing import pack
from swg_fast.kernels.shared.sampler_table import COLUMNS, Tree
from swg_fast.method.networks import Ranker
from swg_fast.policy import swg_jax_import

pytestmark = pytest.mark.slow

# One step: fp32 differs by the order of sums; tf32 keeps 10 bits of an operand's mantissa, bf16 7.
BOUNDS = {"fp32": 1e-5, "tf32": 2e-3, "bf16": 2e-2}
SMALL = Config(16, 32, 4, 1)


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    poison_kernel_memory(monkeypatch)
    monkeypatch.setattr(launch, "LAYERS_UP_TO", 0)  # test_layered.py tests the layered kernels


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def kernel_network(network, T, dtype):
    return launch.KernelNetwork.lay_out(pack(network, T, launch.DTYPES[dtype], DEVICE), dtype)


@pytest.mark.parametrize("dtype,A,head_rho", every_pair(
    ["fp32", "tf32", "bf16"], [2, 8, 24], [("early", 0.0), ("joint", 5.0), ("early", 5.0), ("joint", 0.0)]),
    ids=lambda value: f"D{value + 1}" if isinstance(value, int) else str(value))
def test_guided_step(dtype, A, head_rho):
    head, rho = head_rho
    schedule, start = NoiseSchedule.vp(15), Start(random(2, 5, seed=1), 17, A + 1, 6)
    network = centred(make_network(5, A, 64, 3, head).to(DEVICE), schedule, start)
    expected = start.expected(network, schedule, guidance_scale=rho, temperature=0.7)
    fused, table = kernel_network(network, 15, dtype), row(ddpm(schedule, rho, 0.7), start.t, start)
    bound, eps = BOUNDS[dtype], eps_of(fused, table, start, SMALL)
    assert relative_error(eps.cpu(), expected.eps.cpu()) < bound
    if rho:
        gradient = gradient_of(eps, with_gradient(fused, table, start, SMALL))
        assert float(expected.grad_log_weight.abs().max()) > 0
        # Rows whose weight lies within rounding of a clip may fall on either side of it.
        same = (gradient.abs().sum(1) > 0) == (expected.grad_log_weight.abs().sum(1) > 0)
        assert int((~same).sum()) <= (0 if dtype == "fp32" else 1)
        # Multiplied by the clean weight that divides it, so that only the gradient's own error shows.
        sigma = float(schedule.sigmas[start.t])
        mine, theirs = ((g * (start.z - sigma * eps)[:, -1:])[same].cpu()
                        for g, eps in ((gradient, eps), (expected.grad_log_weight, expected.eps)))
        assert relative_error(mine, theirs) < bound
        if dtype != "fp32":
            return
    z, weight = walk(fused, table, start, SMALL)
    assert relative_error(z.cpu(), expected.z.cpu()) < bound
    assert relative_error(weight.cpu(), expected.weight.cpu()) < 5 * bound


@pytest.mark.parametrize("hidden,blocks,head", [(128, 1, "joint"), (64, 6, "early"), (256, 2, "early")])
@pytest.mark.parametrize("N", [1, 16, 17])
def test_other_shapes(hidden, blocks, head, N):
    schedule = NoiseSchedule.cosine(7)
    start = Start(torch.zeros(1, 0, device=DEVICE), N, 4, 3, T=7, scale=0.5)
    network = make_network(0, 3, hidden, blocks, head).to(DEVICE)
    fused, table = kernel_network(network, 7, "fp32"), row(ddpm_x0(schedule, 2.0, 1.0), start.t, start)
    expected = start.expected(network, schedule, guidance_scale=2.0, temperature=1.0, sampler="ddpm_x0")
    assert relative_error(walk(fused, table, start, SMALL)[0].cpu(), expected.z.cpu()) < 1e-5
    assert relative_error(eps_of(fused, table, start, SMALL).cpu(), expected.eps.cpu()) < 1e-5


@pytest.mark.parametrize("head", ["early", "joint"])
@pytest.mark.parametrize("config", [Config(64, 64, 4, 1), Config(128, 32, 8, 2)], ids=str)
def test_tiles_of_several_passes(config, head):
    """Tiles so large that the passes between products take their rows in parts."""
    schedule, start = NoiseSchedule.vp(15), Start(random(2, 5, seed=1), config.tile + 3, 4, 4, scale=0.3)
    network = make_network(5, 3, 64, 3, head).to(DEVICE)
    fused, table = kernel_network(network, 15, "fp32"), row(ddpm(schedule, 2.0, 1.0), start.t, start)
    expected = start.expected(network, schedule, guidance_scale=2.0, temperature=1.0)
    assert relative_error(eps_of(fused, table, start, config).cpu(), expected.eps.cpu()) < 1e-5
    # Guidance divides by the weight.
    assert relative_error(walk(fused, table, start, config)[0].cpu(), expected.z.cpu()) < 2e-5


@pytest.mark.parametrize("j", [0, 2, 5])
@pytest.mark.parametrize("make", [ddim, dpmpp_2m, dpmpp_2m_sde])
@pytest.mark.parametrize("head", ["early", "joint"])
def test_solvers_step(head, make, j):
    """Row j. If it reads the last x0, it follows a row that keeps z and leaves half of z as x0."""
    schedule = NoiseSchedule.vp(15)
    network = make_network(5, 3, 64, 3, head).to(DEVICE)
    table = make(schedule, 2.0, 0.7, sampler_steps=6)
    steps, at = (*table.steps[::-1], -1), len(table.steps) - 1 - j
    start = Start(random(1, 5), 17, 4, steps[at], scale=0.3)
    only = row(table, j, start)
    last = None
    if only.multistep:
        before = torch.tensor([{"state": 1.0, "clean_scale": 0.5}.get(name, 0.0) for name in COLUMNS])
        only = replace(only, coefficients=torch.stack([only.coefficients[0], before.double()]),
                       steps=(start.t, steps[at - 1]))
        last = (steps[at - 1], reference.sampler.clip(0.5 * start.z, table.weight_clip))
    fused = kernel_network(network, 15, "fp32")
    z, weight = walk(fused, only, start, SMALL)
    expected = start.expected(network, schedule, guidance_scale=2.0, temperature=0.7, sampler=make.__name__,
                              to=steps[at + 1], last=last)
    assert relative_error(z.cpu(), expected.z.cpu()) < 1e-5
    assert relative_error(weight.cpu(), expected.weight.cpu()) < 1e-4
    # The next row's last x0 is this x0; a row passes it on as z.
    if only.multistep:
        after = torch.tensor([1.0 if name == "previous" else 0.0 for name in COLUMNS])
        shown = replace(only, coefficients=torch.stack([after.double(), *only.coefficients]),
                        steps=(0, *only.steps), clip_state=False)
        assert relative_error(walk(fused, shown, start, SMALL)[0].cpu(), expected.clean.cpu()) < 1e-5


@pytest.mark.parametrize("rho", [0.0, 3.0])
@pytest.mark.parametrize("sampler,steps,temperature", [
    ("ddim", 3, 1.0), ("dpmpp_2m", 3, 1.0), ("dpmpp_2m_sde", 4, 1.0), ("dpmpp_2m_sde", 2, 0.0),
    ("dpmpp_2m_sde", 1, 1.0)])
@pytest.mark.filterwarnings("ignore:temperature 0")
def test_solvers_are_the_references(sampler, steps, temperature, rho):
    head = "early" if rho else "joint"
    policy = Policy(make_network(5, 3, 64, 3, head), NoiseSchedule.vp(15), device=DEVICE)
    keywords = {"n_candidates": 19, "guidance_scale": rho, "temperature": temperature, "seed": 9,
                "sampler": sampler, "sampler_steps": steps, "return_candidates": True}
    expected = policy.sample(random(2, 5), backend="reference", **keywords)
    got = policy.sample(random(2, 5), backend="triton", dtype="fp32", **keywords)
    assert relative_error(got.candidates.cpu(), expected.candidates.cpu()) < 1e-4
    assert relative_error(got.candidate_weights.cpu(), expected.candidate_weights.cpu()) < 1e-4
    if temperature:
        assert torch.equal(got.indices.cpu(), expected.indices.cpu())


@pytest.mark.parametrize("head,sampler,steps,leaves,shared", [
    ("early", "dpmpp_2m_sde", 3, 4, 1), ("joint", "ddpm", None, 12, 1), ("early", "ddpm_x0", None, 36, 1)])
def test_trees_and_rankings_are_the_references(request, head, sampler, steps, leaves, shared):
    """Groups of several roots in several tiles, whole tiles and parts of one; the same launch ranks them."""
    if leaves == 4:
        request.getfixturevalue("overflow_checked")
    policy = Policy(make_network(5, 3, 64, 2, head), NoiseSchedule.vp(15 if steps else 3), device=DEVICE)
    keywords = {"n_candidates": 36, "guidance_scale": 3.0, "temperature": 1.0, "return_candidates": True,
                "sampler": sampler, "sampler_steps": steps, "leaves": leaves, "branch_after": shared,
                "ranking_mean": 0.3, "ranking_draws": 2, "select": "expected_weight", "seed": 0}
    expected = policy.sample(random(2, 5), backend="reference", **keywords)
    got = policy.sample(random(2, 5), backend="triton", dtype="fp32", **keywords)
    assert relative_error(got.candidates.cpu(), expected.candidates.cpu()) < 1e-4
    assert relative_error(got.expected_weights.cpu(), expected.expected_weights.cpu()) < 1e-4
    assert torch.equal(got.indices.cpu(), expected.indices.cpu())
    assert relative_error(got.actions.cpu(), expected.actions.cpu()) < 1e-4
    parts = policy.sample(random(2, 5), backend="triton", dtype="fp32", chunk=24, **keywords | {
        "select": "max_weight", "keep_share": 0.3, "return_candidates": False})
    weights, ranks = expected.candidate_weights.cpu(), expected.expected_weights.cpu()
    kept = reference.keep_among(weights, ranks, 0.3)
    # Guidance leaves many candidates at one weight; rounding chooses one in the share that is as good.
    best = weights.gather(1, kept[:, None])[:, 0]
    # Weights in the hundreds come from division by a clean weight near 0, which magnifies their rounding.
    assert relative_error(parts.weights.cpu(), best) < 1e-3
    share = ranks.sort(dim=1, descending=True).values[:, math.ceil(0.3 * 36) - 1]
    assert (ranks.gather(1, parts.indices.cpu()[:, None])[:, 0] >= share - 1e-4).all()


@pytest.mark.usefixtures("overflow_checked")
@pytest.mark.parametrize("ranking", ["ranker", "read"])
def test_a_ranking_of_what_the_kernel_draws(ranking):
    torch.manual_seed(0)
    policy = Policy(make_network(5, 3, 64, 2), NoiseSchedule.vp(15), device=DEVICE, ranker=Ranker(5, 3, 16),
                    card={"training": {"settings": {"read_share": 0.1}}})
    keywords = {"n_candidates": 19, "temperature": 1.0, "sampler": "dpmpp_2m_sde", "sampler_steps": 2,
                "select": "expected_weight", "ranking": ranking, "return_candidates": True, "seed": 0}
    expected = policy.sample(random(2, 5), backend="reference", **keywords)
    got = policy.sample(random(2, 5), backend="triton", dtype="fp32", **keywords)
    assert relative_error(got.expected_weights.cpu(), expected.expected_weights.cpu()) < 1e-4
    assert torch.equal(got.indices.cpu(), expected.expected_weights.cpu().argmax(1))


@pytest.mark.parametrize("states,N,tile,resident", [
    (1, 1024, 16, 132), (1, 1024, 128, 132), (64, 4096, 128, 132), (2, 48, 16, 3), (1, 4096, 64, 1)])
@pytest.mark.parametrize("leaves", [2, 4, 16])
def test_groups_of_roots(states, N, tile, resident, leaves):
    """A group fits its roots' tile, groups cover all roots, and no program walks more rows than without a
    tree."""
    if N % leaves:
        return
    made = tree_layout(states * N // leaves, Tree(leaves, 4), 6, tile, resident)
    assert made.group <= tile and made.group * made.items >= states * N // leaves
    assert made.tiles * tile >= made.stride == made.group * leaves
    longest = -(-made.items // resident) * (4 + 2 * made.tiles)
    assert longest <= -(-states * -(-N // tile) // resident) * 6


@pytest.mark.usefixtures("overflow_checked")
@pytest.mark.parametrize("case", ["early_a8_s29", "joint_a8_s29", "early_a3_s11_unguided"])
def test_golden_networks(case):
    """A step of a golden file's network; `tests/reference` compares the reference with the file's steps."""
    g = {k: np.asarray(v) for k, v in np.load(DATA / "golden" / f"{case}.npz").items()}
    network = swg_jax_import.score_network({k: v for k, v in g.items() if k.startswith("params/")})
    schedule = NoiseSchedule("vp", torch.from_numpy(g["betas"]))
    network = network.to(DEVICE)
    fused = kernel_network(network, 15, "fp32")
    keywords = {"guidance_scale": float(g["guidance_scale"]), "temperature": float(g["temperature"])}
    table = ddpm(schedule, *keywords.values(), "official")
    states = torch.from_numpy(g["states"]).to(DEVICE)
    for t in (14, 7, 0):
        start = Start(states[:1], 16, network.latent_dim, t)
        only = row(table, t, start)
        expected = start.expected(network, schedule, **keywords, weight_readout="official")
        assert relative_error(eps_of(fused, only, start, SMALL).cpu(), expected.eps.cpu()) < 2e-5
        assert relative_error(walk(fused, only, start, SMALL)[0].cpu(), expected.z.cpu()) < 2e-5


def test_noise_is_the_references():
    """The kernel's own noise, measured by a step that adds nothing else: z' = xi."""
    schedule = NoiseSchedule.vp(4)
    words = torch.randint(2**31, (5,), generator=torch.Generator().manual_seed(2))
    start = Start(torch.zeros(5, 2, device=DEVICE), 8, 9, 2, T=4, seed=0xFEDCBA9876543210, first=2**30 + 977,
                  words=words)
    table = row(ddpm(schedule, 0.0, 1.0, clip_denoised=False), start.t, start)
    coefficients = torch.zeros_like(table.coefficients)
    coefficients[:, COLUMNS.index("noise")] = 1.0
    fused = kernel_network(make_network(2, 8, 64, 2), 4, "fp32")
    z, _ = walk(fused, replace(table, coefficients=coefficients), start, SMALL)
    # Normals that agree to a few units of fp32 rounding come from equal words.
    assert float((z - start.noise).abs().max()) < 2e-6
    assert relative_error(z.cpu(), start.noise.cpu()) < 1e-6


@pytest.mark.parametrize("select,N,head", every_pair(
    ["max_weight", "softmax", "max_q"], [1, 16, 37], ["early", "joint"]))
def test_sample_keeps_the_references_candidate(head, select, N, critic):
    policy = Policy(make_network(5, 3, 64, 3, head), NoiseSchedule.vp(3), critic, device=DEVICE)
    states = random(2, 5)
    keywords = {"n_candidates": N, "guidance_scale": 3.0, "temperature": 1.0, "select": select, "seed": 9}
    expected = policy.sample(states, backend="reference", **keywords)
    got = policy.sample(states, backend="triton", dtype="fp32", **keywords)
    tie = (got.weights - expected.weights).abs() < 1e-6  # two candidates may end in one corner
    assert ((got.indices == expected.indices) | tie).all()
    assert relative_error(got.actions.cpu(), expected.actions.cpu()) < 1e-4
    assert relative_error(got.weights.cpu(), expected.weights.cpu()) < 1e-4


@pytest.mark.usefixtures("overflow_checked")
def test_all_candidates_and_chunks():
    policy = Policy(make_network(5, 3, 64, 2), NoiseSchedule.vp(3), device=DEVICE)
    states, keywords = random(2, 5), {"n_candidates": 35, "seed": 0}
    expected = policy.sample(states, backend="reference", return_candidates=True, **keywords)
    got = policy.sample(states, backend="triton", dtype="fp32", return_candidates=True, **keywords)
    assert relative_error(got.candidates.cpu(), expected.candidates.cpu()) < 1e-4
    near = expected.candidate_weights.abs() < 5  # larger weights come from division by a weight near 0
    assert near.float().mean() > 0.5
    assert relative_error(got.candidate_weights[near].cpu(), expected.candidate_weights[near].cpu()) < 1e-4
    parts = policy.sample(states, backend="triton", dtype="fp32", chunk=16, **keywords)
    assert torch.equal(parts.indices, got.indices)


@pytest.mark.parametrize("select", ["max_weight", "softmax"])
def test_two_launches_a_call(monkeypatch, select):
    launched = []
    for name in ("sample_kernel", "keep_best_kernel"):
        kernel = getattr(launch, name)

        class Counting:
            def __init__(self, kernel, name):
                self.kernel, self.name = kernel, name

            def __getitem__(self, grid):
                launched.append(self.name)
                return self.kernel[grid]

        monkeypatch.setattr(launch, name, Counting(kernel, name))
    policy = Policy(make_network(5, 3, 64, 2), NoiseSchedule.vp(2), device=DEVICE)
    policy.sample(random(3, 5), n_candidates=50, select=select, backend="triton", dtype="fp32", seed=0)
    assert launched == ["sample_kernel", "keep_best_kernel"]


def test_unsupported_shapes_say_so():
    with pytest.raises(UsageError, match="hidden_dim 96"):
        Policy(make_network(5, 3, 96, 2), NoiseSchedule.vp(2), device=DEVICE).backend("triton")
    with pytest.raises(UsageError, match="7 blocks"):
        Policy(make_network(5, 3, 64, 7), NoiseSchedule.vp(2), device=DEVICE).backend("triton")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_error_names_the_way():
    program = ("import torch; from swg_fast import *\n"
               "try: Policy(ScoreNetwork(5, 3, 64, 2), NoiseSchedule.vp(2)).backend('triton')\n"
               "except UsageError as error: print(error)")
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                         env=os.environ | {"TRITON_INTERPRET": "0"})
    assert "needs an NVIDIA GPU" in out.stdout and "TRITON_INTERPRET=1" in out.stdout


def test_bf16_trajectories_follow_the_same_distribution(monkeypatch):
    """Trajectories diverge in bf16, distributions must not: the distance of bf16 from fp32 samples is within
    a few times that between fp32 samples of two seeds."""
    from swg_fast.evaluation.toy import sliced_wasserstein

    policy = Policy(make_network(2, 2, 64, 2), NoiseSchedule.vp(4), device=DEVICE)
    N = 512
    if DEVICE.type == "cpu":  # the interpreter's time grows with the number of tiles
        monkeypatch.setattr(launch.KernelNetwork, "config", lambda *_, **__: Config(128, 64, 4, 1))

    def draw(dtype, seed, backend="triton"):
        drawn = policy.sample(torch.zeros(1, 2, device=DEVICE), n_candidates=N, select="none", seed=seed,
                              backend=backend,
                              dtype=dtype, return_candidates=True)
        return drawn.candidates[0].cpu().numpy()

    exact, other = draw("fp32", 1, "torch"), draw("fp32", 2, "torch")
    assert sliced_wasserstein(draw("bf16", 1), exact) < 1.5 * sliced_wasserstein(exact, other)
