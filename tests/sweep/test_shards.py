"""Sharded sampling: ranges, and the same kept candidate as one process."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import make_network, relative_error

from swg_fast import NoiseSchedule, Policy, TwinQ, UsageError
from swg_fast.method.networks import Ranker
from swg_fast.policy.backends.job import Samples
from swg_fast.policy.backends.streaming import Backend
from swg_fast.sweep.shards import merge, ranges, search_range, sharded, unit_of


def make_policy():
    torch.manual_seed(3)
    return Policy(make_network(5, 3, hidden_dim=64), NoiseSchedule.vp(4), TwinQ(5, 3, 16).eval(),
                  card={"training": {"weights": {"mean": 0.5}}}, ranker=Ranker(5, 3, 16))


STATES = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)


@pytest.mark.parametrize("n,shards,unit", [(4096, 4, 512), (5000, 3, 512), (100, 8, 128), (2**24, 64, 8192),
                                           (2**24 + 1, 7, 8192), (1, 1, 1)])
def test_ranges_cover_every_candidate_once(n, shards, unit):
    found = ranges(n, shards, unit)
    assert found[0][0] == 0 and found[-1][1] == n and 1 <= len(found) <= shards
    assert all(a[1] == b[0] for a, b in zip(found, found[1:], strict=False))
    assert all(first % unit == 0 and last > first for first, last in found)
    sizes = [-(-(last - first) // unit) for first, last in found]
    assert max(sizes) - min(sizes) <= 1


class InParts(Backend):
    """Runs a job in this process, split as among ``shards`` actors."""

    def __init__(self, inner, shards):
        super().__init__(inner.model, inner.dtype, inner.device)
        self.inner, self.shards, self.name = inner, shards, "parts"

    def run(self, job, judge=None) -> Samples:
        unit = unit_of(job, self.shards, job.chunk or self.inner.default_chunk())
        parts = ranges(job.config.n_candidates, self.shards, unit)
        assert len(parts) > 1
        return merge(job, [search_range(self.inner, job, *part) for part in parts], self.inner)


CASES = {
    "max_weight": {}, "softmax": {"select": "softmax"}, "max_q": {"select": "max_q"},
    "expected_weight": {"select": "expected_weight", "ranking_draws": 2},
    "share": {"keep_share": 0.1, "ranking_draws": 2, "select": "max_q"},
    "ranker": {"keep_share": 0.1, "ranking": "ranker"},
    "lower bound": {"select": "lcb_weight", "keep_share": 0.1, "ranking": "ranker"},
    "tree": {"leaves": 4, "branch_after": 2},
    "solver": {"sampler": "dpmpp_2m_sde", "sampler_steps": 3, "guidance_scale": 0.0},
}


@pytest.mark.slow
@pytest.mark.parametrize("name,backend", [  # a backend draws in chunks, whatever the caller asks for
    (name, ("torch", "cpu")[i % 2]) for i, name in enumerate(CASES)])
def test_shards_keep_what_one_process_keeps(name, backend, monkeypatch):
    policy = make_policy()
    settings = {"n_candidates": 1536, "guidance_scale": 1.0, "temperature": 1.0, "seed": 7, "chunk": 512,
                "backend": backend, "dtype": "fp32"} | CASES[name]
    whole = policy.sample(STATES, **settings)
    inner = policy.backend(backend, "fp32")
    monkeypatch.setattr(policy, "backend", lambda *_: InParts(inner, 3))
    parts = policy.sample(STATES, **settings)
    assert torch.equal(whole.indices, parts.indices) and len(set(whole.indices.tolist())) > 1
    assert torch.equal(whole.actions, parts.actions) and torch.equal(whole.weights, parts.weights)
    if name == "tree":  # a shard takes whole groups of roots, and 300 candidates make one
        return
    # Fewer candidates than chunks give other batches, so results are equal up to rounding.
    monkeypatch.setattr(policy, "backend", lambda *_: inner)
    whole = policy.sample(STATES, **settings | {"n_candidates": 300})
    monkeypatch.setattr(policy, "backend", lambda *_: InParts(inner, 2))
    parts = policy.sample(STATES, **settings | {"n_candidates": 300})
    assert torch.equal(whole.indices, parts.indices) and relative_error(parts.actions, whole.actions) < 1e-5


def test_the_last_range_of_many_candidates_has_their_own_noise():
    """Candidates at the end of 2**24 are drawn without those before them."""
    policy, end = make_policy(), 2**24
    jobs = []
    inner = policy.backend("cpu", "fp32")

    class Caught(InParts):
        def run(self, job, judge=None):
            jobs.append(job)
            return search_samples(job, (end - 64, end))

    def search_samples(job, part):
        return merge(job, [search_range(inner, job, *part)], inner)

    policy.backend = lambda *_: Caught(inner, 64)
    late = policy.sample(STATES[:1], n_candidates=end, guidance_scale=1.0, temperature=1.0, seed=7)
    assert end - 64 <= int(late.indices[0]) < end
    (job,) = jobs
    from dataclasses import replace

    plain = policy.model, inner
    reference = Policy(plain[0].network, plain[0].schedule).backend("reference", "fp32")
    again = search_range(reference, replace(job), end - 64, end)
    assert torch.equal(again.indices[:, 0], late.indices)
    assert relative_error(again.z[:, 0, :-1], late.actions) < 1e-4


@pytest.mark.slow
@pytest.mark.waits
def test_actors_keep_what_one_process_keeps():
    pytest.importorskip("ray")
    policy = make_policy()
    settings = {"n_candidates": 2048, "guidance_scale": 1.0, "temperature": 1.0, "seed": 7, "chunk": 512,
                "dtype": "fp32"}
    with sharded(policy, 2, cpus=0.5) as many:  # on one core too
        kept = many.sample(STATES, **settings)
        with pytest.raises(UsageError, match="return_candidates"):
            many.sample(STATES, **settings, return_candidates=True)
    alone = policy.sample(STATES, **settings)
    assert torch.equal(kept.indices, alone.indices)
    assert relative_error(kept.actions, alone.actions) < 1e-5
