"""The fused kernels at real sizes, compiled, with their shipped configurations, on machines with a GPU. There
the tests of `test_portable.py` run without the interpreter too."""

from __future__ import annotations

import pytest
import torch
from conftest import ddpm, make_network, poison_kernel_memory, relative_error
from one_step import Start, eps_of, gradient_of, row, walk, with_gradient

from swg_fast import NoiseSchedule, Policy
from swg_fast.kernels.fused import launch
from swg_fast.kernels.fused.configurations import CONFIGS, GLUON
from swg_fast.kernels.fused.records import Work
from swg_fast.kernels.shared.packing import pack
from swg_fast.kernels.shared.sampler_table import Ranking, Tree
from swg_fast.method.samplers import sampler_table

HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
# One step: fp32 differs by the order of sums; tf32 keeps 10 bits of an operand's mantissa, bf16 7.
BOUNDS = {"fp32": 1e-5, "tf32": 2e-3, "bf16": 2e-2}


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    poison_kernel_memory(monkeypatch)


def gluon(hidden):
    """The compute type and the configuration of the Gluon kernels."""
    if not HOPPER or hidden not in GLUON:
        pytest.skip("the Gluon kernels are for capability 9.0, hidden 128 and 256")
    return "bf16", GLUON[hidden]


def test_scratch_fits_beside_a_million_candidates():
    """Scratch is under 64 MiB on an H100's 132 multiprocessors for any N: sizes depend on the tile alone."""
    config = CONFIGS[90, 256, "bf16"].many[1]  # the portable kernel's scratch is larger
    sizes = launch.scratch_sizes(256, 3, 16, config.tile)
    scratch = 132 * (2 * sizes.LOW + 4 * sizes.WIDE)
    tiles = 2**20 // config.tile * (3 + 16) * 4  # each tile's result for the last reduction
    assert scratch + tiles < 64 * 2**20


@gpu
@pytest.mark.parametrize("hidden", [64, 128, 256])
@pytest.mark.parametrize("dtype", ["fp32", "tf32", "bf16", "gluon"])
@pytest.mark.parametrize("head", ["early", "joint"])
@pytest.mark.parametrize("N", [1, 43, 13_333])
def test_guided_step(head, dtype, hidden, N):
    device, schedule = torch.device("cuda"), NoiseSchedule.vp(15)
    network = make_network(29, 8, hidden, 3, head).to(device)
    dtype, config = gluon(hidden) if dtype == "gluon" else (dtype, None)
    fused = launch.KernelNetwork.lay_out(pack(network, 15, launch.DTYPES[dtype], device), dtype)
    config = config or fused.config(Work(3, N, guided=True, draws=1))
    start = Start(torch.randn(3, 29, device=device), N, 9, 6)
    table, M, z = row(ddpm(schedule, 5.0, 0.7), start.t, start), 3 * N, start.z
    eps = eps_of(fused, table, start, config)
    gradient = gradient_of(eps, with_gradient(fused, table, start, config))
    expected = start.expected(network, schedule, guidance_scale=5.0, temperature=0.7)
    assert relative_error(eps.cpu(), expected.eps.cpu()) < BOUNDS[dtype]
    # The gradient times the clean weight that divides it, for rows whose weight both find inside the clip.
    sigma = float(schedule.sigmas[start.t])
    pairs = ((gradient, eps), (expected.grad_log_weight, expected.eps))
    ours, theirs = (gradient.abs().sum(1) > 0 for gradient, _ in pairs)
    both = ours & theirs
    assert int((ours ^ theirs).sum()) <= 1 + M // 50
    if both.any():
        mine, theirs = ((g * (z - sigma * e)[:, -1:])[both].cpu() for g, e in pairs)
        assert relative_error(mine, theirs) < BOUNDS[dtype]
    if dtype == "fp32":
        # Near the clip, rounding of the clean weight grows by a division or moves a row to the clip's other
        # side; rows away from it are compared.
        far = ((z[:, -1] - sigma * expected.eps[:, -1]).abs() > 0.05) & both
        stepped, _ = walk(fused, table, start, config)
        assert relative_error(stepped[far].cpu(), expected.z[far].cpu()) < 1e-4


@gpu
@pytest.mark.parametrize("N", [1, 1000, 2**14 + 1])
@pytest.mark.parametrize("select", ["max_weight", "softmax"])
def test_the_references_candidate_is_kept(select, N):
    policy = Policy(make_network(29, 8, 256, 3, "joint"), NoiseSchedule.vp(15), device="cuda")
    states = torch.randn(2, 29, device="cuda")
    keywords = {"n_candidates": N, "guidance_scale": 1.0, "temperature": 1.0, "select": select, "seed": 9}
    expected = policy.sample(states, backend="torch", dtype="fp32", **keywords)
    got = policy.sample(states, backend="triton", dtype="fp32", **keywords)
    tie = (got.weights - expected.weights).abs() < 1e-4
    assert ((got.indices == expected.indices) | tie).all()


@gpu
def test_a_million_candidates_take_little_memory():
    policy = Policy(make_network(29, 8, 256, 3, "joint"), NoiseSchedule.vp(15), device="cuda")
    state = torch.randn(1, 29, device="cuda")
    policy.sample(state, n_candidates=1000, temperature=1.0, backend="triton", dtype="bf16", seed=0)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    policy.sample(state, n_candidates=2**20, temperature=1.0, backend="triton", dtype="bf16", seed=0)
    assert torch.cuda.max_memory_allocated() - held < 64 * 2**20


def distance(a, b):
    """The mean 1-Wasserstein distance of two point sets [n, A] over 64 fixed directions."""
    directions = torch.randn(a.shape[1], 64, generator=torch.Generator().manual_seed(0))
    directions /= directions.norm(dim=0)
    return float(((a @ directions).sort(dim=0).values - (b @ directions).sort(dim=0).values).abs().mean())


@gpu
def test_bf16_trajectories():
    """Trajectories diverge, but their distribution and the quality of the kept candidates agree."""
    policy = Policy(make_network(29, 8, 256, 3, "joint"), NoiseSchedule.vp(15), device="cuda")
    states, N = torch.randn(8, 29, device="cuda"), 4096

    def draw(dtype, seed):
        return policy.sample(states, n_candidates=N, seed=seed, backend="triton", dtype=dtype,
                             return_candidates=True)

    exact, other, low = draw("fp32", 1), draw("fp32", 2), draw("bf16", 1)
    for b in range(len(states)):
        one, two, three = (drawn.candidates[b].cpu() for drawn in (exact, other, low))
        assert distance(three, one) < 1.5 * distance(two, one)
    # The weight in fp32 of the candidate that bf16 keeps is among the best hundredth.
    kept = exact.candidate_weights.gather(1, low.indices[:, None])
    rank = (exact.candidate_weights > kept).float().mean(1)
    assert float(rank.median()) < 0.01


@gpu
@pytest.mark.parametrize("hidden,head,name,rho,T,N,B,search", [
    (256, "joint", "ddpm", 1.0, 15, 1000, 3, "plain"),
    (256, "early", "ddpm", 5.0, 15, 70, 5, "softmax"),
    (256, "joint", "dpmpp_2m", 1.0, 4, 2**15, 2, "tree and ranking"),
    (256, "early", "ddpm", 0.0, 3, 40, 1, "ranking"),
    (128, "joint", "ddpm", 1.0, 4, 3000, 7, "tree"),
    (128, "early", "dpmpp_2m", 1.0, 15, 2**16 + 1, 1, "plain"),
])
def test_the_gluon_kernels_candidates_are_the_portable_ones(hidden, head, name, rho, T, N, B, search):
    """Candidates agree within bf16's precision; each kernel keeps its best; a second run gives equal bits."""
    dtype, config = gluon(hidden)
    policy = Policy(make_network(5, 8, hidden, 3, head), NoiseSchedule.vp(T), device="cuda")
    packed = pack(policy.model.network, T, launch.DTYPES[dtype], policy.device)
    fused = launch.KernelNetwork.lay_out(packed, dtype)
    table = sampler_table(name, policy.model.schedule, guidance_scale=rho, temperature=1.0)
    keywords = {"softmax": search == "softmax", "return_candidates": True}
    if "tree" in search:
        keywords["tree"] = Tree(leaves=8, shared=1)
    if "ranking" in search:
        keywords["ranking"] = Ranking(step=1, draws=2, mean=0.5, trained_steps=T,
                                      sigma=float(policy.model.schedule.sigmas[1]))
    states = torch.randn(B, 5, device="cuda")
    words = torch.arange(B, device="cuda")

    def sample(config):
        return launch.sample(fused, table, states, words, launch.Asked(N, 9, config=config, **keywords))

    ours, again, portable = sample(config), sample(config), sample(CONFIGS[90, hidden, "bf16"].many[1])
    assert all(torch.equal(one, two) for one, two in zip(ours, again, strict=True)
               if torch.is_tensor(one))
    actions, weights, indices, z, raw, expected = ours[:6]
    assert not z.isnan().any() and not raw.isnan().any()
    away = (z - portable[3]).abs().amax(-1)
    # Trajectories diverge where guidance divides by a weight near 0; most do not.
    assert float(away.median()) < 0.02 and float((away < 0.1).float().mean()) > 0.8
    assert float((raw - portable[4]).abs().median()) < 0.02 * max(1.0, float(portable[4].abs().median()))
    if search != "softmax":
        assert torch.equal(indices, (raw if expected is None else expected).argmax(1))
    assert torch.equal(weights, raw.gather(1, indices[:, None])[:, 0])
    assert torch.equal(actions, z[torch.arange(B), indices, :-1])
