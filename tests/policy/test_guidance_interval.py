"""Limited-interval guidance: steps outside the interval are unguided, by every backend alike."""

from __future__ import annotations

import pytest
import torch
from conftest import DEVICE, make_network, relative_error
from students import student_policy

from swg_fast import NoiseSchedule, Policy, UsageError, reference
from swg_fast.kernels.fused import launch
from swg_fast.kernels.fused.configurations import Config
from swg_fast.method.samplers import sampler_table
from swg_fast.policy.sampling import SamplingConfig, card_entry, own_settings

STATES = torch.randn(2, 5, generator=torch.Generator().manual_seed(3))
DRAW = {"n_candidates": 9, "guidance_scale": 3.0, "temperature": 1.0, "seed": 11, "return_candidates": True}


def policy_of(head, T=15):
    return Policy(make_network(5, 3, 64, 3, head), NoiseSchedule.vp(T), device=DEVICE)


@pytest.mark.parametrize("interval", [(0, 14), (0, 6), (4, 9), (14, 14)])
@pytest.mark.parametrize("sampler,steps", [("ddpm", None), ("ddpm_x0", None), ("dpmpp_2m_sde", 6)])
@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("head", ["early", "joint"])
def test_candidates_are_the_references(head, backend, sampler, steps, interval):
    settings = DRAW | {"sampler": sampler, "sampler_steps": steps, "guidance_interval": interval}
    policy = policy_of(head)
    expected = policy.sample(STATES, backend="reference", dtype="fp64", **settings)
    got = policy.sample(STATES, backend=backend, dtype="fp32", **settings)
    assert relative_error(got.candidates, expected.candidates) < 1e-4


@pytest.mark.parametrize("backend", ["reference", "cpu", "torch"])
def test_all_steps_are_the_same_bits_as_none_given(backend):
    policy = policy_of("joint")
    drawn = [policy.sample(STATES, backend=backend, dtype="fp32", guidance_interval=interval, **DRAW)
             for interval in (None, (0, 14), (0, 13))]
    assert torch.equal(drawn[0].candidates, drawn[1].candidates)
    assert relative_error(drawn[2].candidates, drawn[0].candidates) > 1e-3


def test_the_reference_mixes_guided_and_unguided_steps():
    """By hand: each step by the reference with the scale of its side of the interval."""
    policy = policy_of("early")
    schedule, rows = policy.model.schedule, STATES[:1].expand(4, -1)
    noise = reference.Noise(torch.randn(4, 4), torch.randn(15, 4, 4))
    z = noise.initial
    for t in reversed(range(15)):
        scale = 3.0 if 4 <= t <= 9 else 0.0
        z = reference.guided_step(policy.model.network, schedule, rows, z, t, noise.steps[14 - t],
                                  guidance_scale=scale, temperature=1.0).z
    got = reference.sample(policy.model.network, schedule, rows, noise, guidance_scale=3.0, temperature=1.0,
                           guidance_interval=(4, 9))
    assert torch.equal(got, z)


@pytest.mark.slow
@pytest.mark.parametrize("config", [Config(16, 128, 4, 2, kind="layers"), Config(16, 64, 4, 1)],
                         ids=["layered", "portable"])
@pytest.mark.parametrize("head", ["early", "joint"])
def test_the_fused_kernels_candidates(monkeypatch, head, config):
    """Of rows on both sides of the interval, and all rows as without one."""
    monkeypatch.setattr(launch.KernelNetwork, "config", lambda *_, **__: config)
    policy = policy_of(head, 4)

    def draw(backend, interval):
        return policy.sample(STATES, backend=backend, dtype="fp32", guidance_interval=interval, **DRAW)

    for interval in ((1, 2), (3, 3)):
        got, expected = (draw(backend, interval) for backend in ("triton", "reference"))
        assert relative_error(got.candidates.cpu(), expected.candidates.cpu()) < 1e-4
    assert torch.equal(draw("triton", None).candidates, draw("triton", (0, 3)).candidates)


@pytest.mark.slow
def test_a_ranking_follows_an_interval(monkeypatch):
    """The portable kernel's ranking has no way back, nor has an unguided row before it."""
    monkeypatch.setattr(launch.KernelNetwork, "config", lambda *_, **__: Config(16, 64, 4, 1))
    settings = DRAW | {"select": "expected_weight", "ranking_draws": 2, "ranking_mean": 0.4,
                       "guidance_interval": (1, 2)}
    expected, got = (policy_of("early", 4).sample(STATES, backend=backend, dtype="fp32", **settings)
                     for backend in ("reference", "triton"))
    assert relative_error(got.expected_weights.cpu(), expected.expected_weights.cpu()) < 1e-3


def test_rows_outside_are_unguided_in_the_table():
    table = sampler_table("dpmpp_2m", NoiseSchedule.vp(15), 6, guidance_scale=2.0, temperature=1.0,
                          guidance_interval=(3, 8))
    assert [table.guides(j) for j in range(6)] == [False, True, True, True, False, False]
    assert table.partly_guided and table.guided
    whole = sampler_table("ddpm", NoiseSchedule.vp(15), guidance_scale=2.0, temperature=1.0)
    assert not whole.partly_guided and all(map(whole.guides, range(15)))


@pytest.mark.parametrize("interval,word", [
    ((3, 2), "0..14"), ((0, 15), "0..14"), ((0, 1.5), "whole number"), ((-1, 2), "at least 0"),
    (3, "two whole numbers"), ((1, 2, 3), "two whole numbers"), ("03", "two whole numbers")])
def test_what_is_no_interval_is_refused(interval, word):
    with pytest.raises(UsageError, match="guidance_interval.*" + word):
        policy_of("joint").bind(guidance_interval=interval)


def test_an_interval_between_the_steps_is_refused():
    with pytest.raises(UsageError, match="none of the steps that are walked, 0, 7, 14"):
        policy_of("joint").bind(guidance_interval=(4, 5), sampler="ddim", sampler_steps=3)


def test_a_student_has_no_interval():
    with pytest.raises(UsageError, match="guidance_interval=.*'student'"):
        student_policy().bind(guidance_interval=(0, 4))


def test_a_card_keeps_it():
    config = SamplingConfig(guidance_interval=(2, 8))
    entry = card_entry(config, own_settings(None)[1])
    assert entry["guidance_interval"] == [2, 8] and own_settings(entry)[0] == config
    policy = Policy(make_network(5, 3), NoiseSchedule.vp(15), card={"sampling": entry})
    assert policy.bind().plan.table.partly_guided
