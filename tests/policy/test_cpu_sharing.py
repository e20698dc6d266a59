"""Tiles of candidates, one a core, and products that all cores share give the same candidates."""

from __future__ import annotations

import pytest
import torch
from conftest import make_network, relative_error

from swg_fast import NoiseSchedule, Policy
from swg_fast.policy.backends import cpu

STATES = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
ONE_PASS = {"sampler": "ddim", "sampler_steps": 1, "guidance_scale": 0.0}


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("walk", [{}, ONE_PASS], ids=["walk", "one pass"])
@pytest.mark.parametrize("head", ["early", "joint"])
def test_both_give_the_same(walk, head, two_threads, monkeypatch):
    policy = Policy(make_network(5, 2, hidden_dim=64, num_blocks=3, weight_head=head), NoiseSchedule.vp(4))
    seen, found, tiles = [], {}, cpu.CpuBackend._walk

    def walked(backend, job, vectors, words, rows, start):
        seen.append(len(words.owners))
        return tiles(backend, job, vectors, words, rows, start)

    monkeypatch.setattr(cpu.CpuBackend, "_walk", walked)
    for few in (0, 2**30):
        monkeypatch.setattr(cpu, "FEW", few)
        monkeypatch.setattr(cpu, "FEW_OF_A_PASS", few)
        seen.clear()
        found[few] = policy.sample(STATES, n_candidates=333, temperature=1.0, seed=0, backend="cpu",
                                   dtype="fp32", return_candidates=True, **walk).candidates
        assert sum(seen) == 999 and (len(seen) > 1) is (few == 0)
    # Another number of rows may sum in another order on some processors.
    assert relative_error(found[0], found[2**30]) < 1e-5


def test_more_rows_of_one_pass_are_shared(two_threads, monkeypatch):
    policy, seen, pool = Policy(make_network(5, 2, hidden_dim=64), NoiseSchedule.vp(4)), [], cpu.worker_pool
    monkeypatch.setattr(cpu, "worker_pool", lambda threads: seen.append(threads) or pool(threads))
    for n, walk, tiled in ((cpu.FEW, {}, False), (cpu.FEW + 1, {}, True), (cpu.FEW + 1, ONE_PASS, False),
                           (cpu.FEW_OF_A_PASS + 1, ONE_PASS, True)):
        seen.clear()
        policy.sample(STATES[0], n_candidates=n, temperature=1.0, seed=0, backend="cpu", **walk)
        assert bool(seen) is tiled, (n, walk)
