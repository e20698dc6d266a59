"""The sampler inside compiled and exported programs."""

from __future__ import annotations

import pytest
import torch
from conftest import DEVICE, make_network

from swg_fast import NoiseSchedule, Policy, Sampler, UsageError

SETTINGS = {"n_candidates": 20, "guidance_scale": 1.0, "temperature": 0.7, "backend": "torch",
            "dtype": "fp32"}


class Program(torch.nn.Module):
    """Scales observations, samples actions, scales them back."""

    def __init__(self, sampler):
        super().__init__()
        self.sampler = sampler

    def forward(self, states, seed):
        actions, weights, indices = self.sampler(states * 0.5, seed)
        return actions.tanh() * 2, weights + 1, indices


@pytest.fixture
def policy():
    return Policy(make_network(5, 3, 64, 2), NoiseSchedule.vp(3), device=DEVICE)


def expected(policy, states, seed, **change):
    kept = policy.sample(states * 0.5, seed=seed, **SETTINGS | change)
    return kept.actions.tanh() * 2, kept.weights + 1, kept.indices


def check(program, policy, batches=(2, 3), **change):
    for B, seed in zip(batches, (3, 2**64 - 5), strict=True):
        states = torch.randn(B, 5, generator=torch.Generator().manual_seed(B)).to(DEVICE)
        got = program(states, torch.tensor(seed if seed < 2**63 else seed - 2**64))
        for mine, theirs in zip(got, expected(policy, states, seed, **change), strict=True):
            assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)


@pytest.mark.slow
def test_compiled_whole(policy):
    torch._dynamo.reset()
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    program = Program(Sampler(policy, **SETTINGS))
    check(torch.compile(program, fullgraph=True, backend=keep, dynamic=True), policy)
    assert len(graphs) == 1  # one for any number of states and any seed
    assert [node.target for node in graphs[0].graph.nodes].count(torch.ops.swg_fast.sample.default) == 1


def test_exported(policy):
    sampler = Sampler(policy, **SETTINGS)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(Program(sampler), (torch.zeros(2, 5, device=DEVICE), torch.tensor(0)),
                                  dynamic_shapes=({0: batch}, None))
    check(program.module(), policy)


@pytest.mark.parametrize("change", [{"guidance_interval": (0, 1)}, {"average_share": 0.2}])
def test_settings_are_the_samplers_own(policy, change):
    check(Program(Sampler(policy, **SETTINGS | change)), policy, **change)
    plain, mine = (expected(policy, torch.ones(2, 5, device=DEVICE), 0, **each)[0] for each in ({}, change))
    assert not torch.equal(plain, mine)


def test_what_the_fake_promises_is_what_comes(policy):
    sampler = Sampler(policy, **SETTINGS)
    arguments = (torch.zeros(2, 5, device=DEVICE), torch.tensor(1), sampler.name)
    torch.library.opcheck(torch.ops.swg_fast.sample, arguments,
                          test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"))


def test_names(policy):
    sampler = Sampler(policy, "pilot", **SETTINGS)
    with pytest.raises(UsageError, match="exists already"):
        Sampler(policy, "pilot", **SETTINGS)
    states, seed = torch.zeros(1, 5, device=DEVICE), torch.tensor(0)
    assert torch.ops.swg_fast.sample(states, seed, "pilot")[0].shape == (1, 3)
    del sampler
    with pytest.raises(UsageError, match="no sampler named 'pilot'"):
        torch.ops.swg_fast.sample(states, seed, "pilot")
    with pytest.raises(UsageError, match="unknown sampling setting 'return_candidates'"):
        Sampler(policy, return_candidates=True)
