"""The layered kernels against the reference and the portable kernel: under Triton's interpreter, or on a GPU
if the machine has one (see conftest)."""

from __future__ import annotations

import functools

import pytest
import torch
from conftest import DEVICE, ddpm, make_network, poison_kernel_memory, relative_error

from swg_fast import NoiseSchedule, Policy
from swg_fast.kernels.fused import launch
from swg_fast.kernels.fused.configurations import LAYERS, LAYERS_UP_TO, Config, layered
from swg_fast.kernels.fused.layered import launch as layered_launch
from swg_fast.kernels.fused.layered import plan as layered_plan
from swg_fast.kernels.fused.records import Work
from swg_fast.kernels.shared.packing import pack
from swg_fast.kernels.shared.sampler_table import Ranking, Tree

pytestmark = pytest.mark.slow

# Two steps: fp32 differs by the order of sums; tf32 keeps 10 bits of an operand's mantissa, bf16 7.
BOUNDS = {"fp32": 1e-4, "tf32": 6e-3, "bf16": 5e-2}
SMALL = Config(16, 128, 4, 2, kind="layers")
PORTABLE = Config(16, 64, 4, 1)


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    poison_kernel_memory(monkeypatch)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def both(monkeypatch, policy, states, dtype, config, **keywords):
    """The candidates drawn by the reference and by a configuration's kernels."""
    monkeypatch.setattr(launch.KernelNetwork, "config", lambda *_, **__: config)
    keywords = {"temperature": 1.0, "seed": 9, "return_candidates": True} | keywords
    return (policy.sample(states, backend="reference", **keywords),
            policy.sample(states, backend="triton", dtype=dtype, **keywords))


@pytest.mark.parametrize("rho", [0.0, 3.0])
@pytest.mark.parametrize("dtype", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("head", ["early", "joint"])
def test_candidates_are_the_references(monkeypatch, head, dtype, rho):
    policy = Policy(make_network(5, 3, 64, 3, head), NoiseSchedule.vp(2), device=DEVICE)
    expected, got = both(monkeypatch, policy, random(2, 5), dtype, SMALL, n_candidates=17, guidance_scale=rho)
    # Division by a clean weight near 0 magnifies rounding and leads to the clips; other rows are compared.
    plain = expected.candidate_weights.abs() < (10 if rho else torch.inf)
    assert int(plain.sum()) >= 20
    for mine, theirs in ((got.candidates, expected.candidates),
                         (got.candidate_weights, expected.candidate_weights)):
        assert relative_error(mine[plain].cpu(), theirs[plain].cpu()) < BOUNDS[dtype]
    if dtype == "fp32":  # clipped to one action, candidates tie, and any of them may be kept
        kept = expected.candidate_weights.gather(1, got.indices[:, None])[:, 0]
        assert relative_error(kept, expected.weights) < BOUNDS["fp32"]
        assert torch.equal(got.indices, got.candidate_weights.argmax(1))  # the first of its own


@pytest.mark.parametrize("hidden,blocks,head,A,config", [
    (64, 1, "joint", 2, SMALL), (64, 2, "early", 24, Config(32, 64, 4, 1, kind="layers")),
    (128, 4, "joint", 8, Config(32, 64, 4, 4, kind="layers")),
    (256, 2, "early", 8, Config(16, 128, 4, 3, kind="layers"))])
def test_other_shapes(monkeypatch, hidden, blocks, head, A, config):
    T = 2 if hidden == 64 else 1  # to shorten the interpreter's run
    policy = Policy(make_network(5, A, hidden, blocks, head), NoiseSchedule.vp(T), device=DEVICE)
    expected, got = both(monkeypatch, policy, random(3, 5), "fp32", config, n_candidates=5,
                         guidance_scale=2.0)
    assert relative_error(got.candidates.cpu(), expected.candidates.cpu()) < BOUNDS["fp32"]
    assert torch.equal(got.indices, expected.indices)


@pytest.mark.parametrize("sampler,steps", [
    ("ddpm", None), ("ddpm_x0", None), ("ddim", 2), ("dpmpp_2m", 3), ("dpmpp_2m_sde", 3)])
def test_samplers_are_the_references(monkeypatch, sampler, steps):
    head = "joint" if steps == 3 else "early"
    policy = Policy(make_network(5, 3, 64, 2, head), NoiseSchedule.vp(15 if steps else 2), device=DEVICE)
    expected, got = both(monkeypatch, policy, random(2, 5), "fp32", SMALL, n_candidates=16,
                         guidance_scale=3.0, sampler=sampler, sampler_steps=steps)
    assert relative_error(got.candidates.cpu(), expected.candidates.cpu()) < BOUNDS["fp32"]
    # The highest weights come from division by a clean weight near 0, which magnifies their rounding.
    assert relative_error(got.candidate_weights.cpu(), expected.candidate_weights.cpu()) < 1e-3
    assert torch.equal(got.indices, expected.indices)


@pytest.mark.usefixtures("overflow_checked")
@pytest.mark.parametrize("B,N", [(1, 1), (1, 100), (5, 3)])
def test_ragged_sizes(monkeypatch, B, N):
    policy = Policy(make_network(5, 3, 64, 2), NoiseSchedule.vp(2), device=DEVICE)
    expected, got = both(monkeypatch, policy, random(B, 5), "fp32", Config(32, 128, 4, 2, kind="layers"),
                         n_candidates=N, guidance_scale=1.0)
    assert relative_error(got.candidates.cpu(), expected.candidates.cpu()) < BOUNDS["fp32"]
    assert torch.equal(got.indices, expected.indices)
    assert relative_error(got.actions.cpu(), expected.actions.cpu()) < BOUNDS["fp32"]
    assert relative_error(got.weights.cpu(), expected.weights.cpu()) < 1e-3  # as above


@pytest.mark.parametrize("select", ["max_weight", "softmax"])
def test_the_references_candidate_is_kept(monkeypatch, select):
    """Among more candidates than one program's, with words of 64 and 32 bits."""
    policy = Policy(make_network(5, 3, 64, 2), NoiseSchedule.vp(2), device=DEVICE)
    expected, got = both(monkeypatch, policy, random(2, 5), "fp32", Config(64, 128, 4, 2, kind="layers"),
                         n_candidates=layered_plan.KEEP_ROWS + 3, guidance_scale=1.0, select=select,
                         selection_temperature=0.7, seed=0xFEDCBA9876543210, state_indices=[7, 2**31],
                         return_candidates=False)
    tie = (got.weights - expected.weights).abs() < 1e-6  # two candidates may end in one corner
    assert ((got.indices == expected.indices) | tie).all()
    assert relative_error(got.weights.cpu(), expected.weights.cpu()) < 1e-3  # as above


def problem(head="joint", T=2, rho=1.0, dtype="fp32", B=2):
    """A network for the kernels, a table, and states with their words."""
    network = make_network(5, 3, 64, 2, head).to(DEVICE)
    fused = launch.KernelNetwork.lay_out(pack(network, T, launch.DTYPES[dtype], DEVICE), dtype)
    return fused, ddpm(NoiseSchedule.vp(T), rho, 1.0), random(B, 5), torch.arange(B, device=DEVICE)


@pytest.mark.parametrize("head", ["early", "joint"])
def test_the_portable_kernels_candidates(head):
    """A range of candidates that does not begin at 0 agrees up to the order of sums."""
    fused, table, states, words = problem(head)
    ours, portable = (launch.sample(fused, table, states, words, launch.Asked(
        20, 9, first=1000, return_candidates=True, config=config)) for config in (SMALL, PORTABLE))
    assert relative_error(ours[3].cpu(), portable[3].cpu()) < BOUNDS["fp32"]
    assert torch.equal(ours[2], portable[2])


def recorded(once):
    """Replaces `capture` on a machine without a GPU: repeats a run's launches on the same memory, with
    Python's computations in between frozen."""
    calls = []

    class Recorded:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            return lambda *a, **k: calls.append(functools.partial(self.kernel[grid], *a, **k))

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in vars(layered_plan) if name.endswith("_kernel")]:
            patch.setattr(layered_plan, name, Recorded(getattr(layered_plan, name)))
        for name in ("bring", "judge"):
            part = getattr(layered_plan.Plan, name)
            patch.setattr(layered_plan.Plan, name, lambda plan, part=part: calls.append(lambda: part(plan)))
        once()
    return lambda: [call() for call in calls]


def test_a_replay_serves_other_decisions(monkeypatch):
    """Other states, words, seeds and first candidates of one shape; earlier results stay unchanged."""
    if DEVICE.type == "cpu":
        monkeypatch.setattr(layered_launch, "capture", recorded)
        monkeypatch.setattr(layered_launch, "replays", lambda device: True)
    fused, table, states, words = problem()

    def draw(network, turn):
        return launch.sample(network, table, states * (1 + turn), words + turn, launch.Asked(
            5, 2**63 + turn, first=7 * turn, return_candidates=True, config=SMALL))

    drawn = [draw(fused, turn) for turn in range(4)]
    for turn, got in enumerate(drawn):
        assert len(fused.plans) == 1
        fresh = problem()[0]
        for mine, theirs in zip(got[:5], draw(fresh, turn)[:5], strict=True):
            assert torch.equal(mine, theirs)
    assert not torch.equal(drawn[2][3], drawn[3][3])


def test_the_last_plans_are_kept(monkeypatch):
    monkeypatch.setattr(layered_plan.Plan, "launches", lambda plan: None)
    fused, table, states, words = problem()

    def draw(n):
        launch.sample(fused, table, states, words, launch.Asked(n, 0, config=SMALL))

    with torch.inference_mode():
        draw(1)
    for n in (*range(1, layered_launch.KEPT + 1), 1, 100):
        draw(n)
    kept = [plan.plan.asked.n_candidates for plan in fused.plans.values()]
    assert kept == [*range(3, layered_launch.KEPT + 1), 1, 100]


def test_what_takes_them():
    """Few candidates take the layered kernels, which refuse a tree and a ranking."""
    fused, table, states, words = problem()
    assert fused.config(Work(2, LAYERS_UP_TO // 2, True)).kind == "layers"
    assert fused.config(Work(1, LAYERS_UP_TO + 1, True)).kind == "portable"
    assert fused.config(Work(1, 16, True, leaves=4)).kind == "portable"
    for search in ({"tree": Tree(4, 1)}, {"ranking": Ranking(1, 2, 0.3, 0.5, 2)}):
        with pytest.raises(ValueError, match="no trees and no rankings"):
            launch.sample(fused, table, states, words, launch.Asked(16, 0, config=SMALL, **search))
        launch.sample(fused, table, states, words, launch.Asked(4, 0, **search))
    assert not fused.plans


@pytest.mark.parametrize("candidates,tile,chunk", [
    (4096, 64, 128), (1024, 64, 128), (512, 32, 128), (256, 32, 64), (128, 16, 64), (64, 16, 32),
    (1, 16, 32)])
def test_configurations_fill_the_multiprocessors(candidates, tile, chunk):
    first, *rest = layered(256, "bf16", candidates, 132)
    assert (first.tile, first.chunk) == (tile, chunk) and {first, *rest} == set(LAYERS)
    assert all(c.tile == 16 for c in layered(256, "fp32", candidates, 132))
