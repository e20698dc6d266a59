"""The policy: every backend against the reference, streaming, selection, errors."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import every_pair, make_network, relative_error

from swg_fast import NoiseSchedule, Policy, UsageError, load_policy, reference
from swg_fast.policy.backends.job import Samples
from swg_fast.policy.backends.registry import BACKENDS
from swg_fast.policy.sampling import Execution, SamplingConfig
from swg_fast.policy.soundness import check_samples

FAST = [name for name in BACKENDS if name not in ("reference", "triton")]


@pytest.fixture(scope="module", params=["early", "joint"])
def policy(request, critic, schedule):
    return Policy(make_network(5, 3, 64, 3, request.param), schedule, critic)


@pytest.fixture(scope="module")
def states():
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("sampler", ["ddpm", "ddpm_x0"])
@pytest.mark.parametrize("readout", ["exact", "official"])
@pytest.mark.parametrize("select", ["max_weight", "max_q", "softmax", "none"])
@pytest.mark.parametrize("backend", FAST)
def test_same_kept_candidate_as_the_reference(policy, states, backend, select, readout, sampler):
    keywords = {"n_candidates": 37, "guidance_scale": 3.0, "temperature": 1.0, "select": select,
                "seed": 11, "weight_readout": readout, "sampler": sampler, "dtype": "fp32"}
    expected = policy.sample(states, backend="reference", **keywords)
    got = policy.sample(states, backend=backend, **keywords)
    assert torch.equal(got.indices, expected.indices)
    assert relative_error(got.actions, expected.actions) < 1e-4  # fp32 rounding, grown over fifteen steps
    assert relative_error(got.weights, expected.weights) < 1e-4


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("rho", [0.0, 3.0])
@pytest.mark.parametrize("sampler,steps", [
    ("ddim", 6), ("dpmpp_2m", 6), ("dpmpp_2m_sde", 6), ("dpmpp_2m_sde", 15), ("ddim", 1), ("dpmpp_2m", 1),
    ("dpmpp_2m_sde", 1), ("dpmpp_2m", 2), ("dpmpp_2m_sde", 2), ("dpmpp_2m_sde", 3)])
@pytest.mark.parametrize("backend", FAST)
@pytest.mark.filterwarnings("ignore:temperature 0")
def test_solvers_are_the_references(policy, states, backend, sampler, steps, rho, temperature):
    keywords = {"n_candidates": 19, "guidance_scale": rho, "temperature": temperature, "seed": 11,
                "sampler": sampler, "sampler_steps": steps, "return_candidates": True}
    expected = policy.sample(states, backend="reference", dtype="fp64", **keywords)
    got = policy.sample(states, backend=backend, dtype="fp32", **keywords)
    assert relative_error(got.candidates, expected.candidates) < 2e-5
    assert relative_error(got.candidate_weights, expected.candidate_weights) < 2e-4
    if temperature:
        assert torch.equal(got.indices, expected.indices)
        assert len(expected.candidate_weights[0].unique()) == 19  # unclipped, so that none tie


@pytest.mark.parametrize("sampler", ["ddpm", "ddpm_x0", "ddim", "dpmpp_2m", "dpmpp_2m_sde"])
@pytest.mark.parametrize("backend", FAST)
def test_one_trained_step(states, backend, sampler):
    policy = Policy(make_network(5, 3, 64, 3), NoiseSchedule.vp(1))
    keywords = {"n_candidates": 5, "guidance_scale": 2.0, "temperature": 1.0, "sampler": sampler,
                "seed": 0}
    expected = policy.sample(states, backend="reference", **keywords)
    got = policy.sample(states, backend=backend, dtype="fp32", **keywords)
    assert torch.equal(got.indices, expected.indices)
    assert relative_error(got.actions, expected.actions) < 1e-5


def test_reference_backend_is_the_reference(policy, states, schedule):
    """From philox to the kept index by hand, without the policy's code."""
    N, D, T, seed = 9, 4, schedule.num_steps, 2**40 + 5
    rows = states.repeat_interleave(N, 0)
    c, s = torch.arange(N).repeat(4), torch.arange(4).repeat_interleave(N)
    noise = reference.Noise(
        reference.philox.normals(seed, c, s, T, D),
        torch.stack([reference.philox.normals(seed, c, s, t, D) for t in reversed(range(T))]))
    path = reference.sample(policy.model.network, schedule, rows, noise, guidance_scale=2.0,
                            temperature=0.7, return_trajectory=True)
    kept = reference.keep(path.weight.view(4, N))
    got = policy.sample(states, n_candidates=N, guidance_scale=2.0, temperature=0.7, seed=seed,
                        backend="reference")
    assert torch.equal(got.indices, kept)
    assert torch.equal(got.actions, path.final.view(4, N, D)[torch.arange(4), kept, :-1])


@pytest.mark.slow
@pytest.mark.parametrize("chunk,select,backend", every_pair(
    (1, 7, 64, 199, 4096), ("max_weight", "max_q", "softmax"), FAST))
def test_any_chunk_gives_the_same(policy, states, backend, chunk, select):
    N = 200 if chunk > 7 else 31
    keywords = {"n_candidates": N, "guidance_scale": 5.0, "temperature": 1.0, "select": select,
                "backend": backend, "dtype": "fp32", "seed": 0}
    whole = policy.sample(states, **keywords)
    parts = policy.sample(states, chunk=chunk, **keywords)
    tie = (whole.weights - parts.weights).abs() < 1e-6
    assert ((whole.indices == parts.indices) | tie).all()
    same = whole.indices == parts.indices
    assert relative_error(parts.actions[same], whole.actions[same]) < 1e-6


def test_a_candidate_does_not_depend_on_n_or_batch(policy, states):
    keywords = {"return_candidates": True, "select": "none", "temperature": 1.0, "dtype": "fp32", "seed": 0}
    many = policy.sample(states, n_candidates=64, **keywords)
    few = policy.sample(states[2], n_candidates=10, state_indices=[2], **keywords)
    assert relative_error(few.candidates[0], many.candidates[2, :10]) < 1e-6


def test_selection_keeps_what_it_says(policy, states, critic):
    keywords = {"n_candidates": 50, "temperature": 1.0, "return_candidates": True, "seed": 0}
    by_weight = policy.sample(states, select="max_weight", **keywords)
    assert torch.equal(by_weight.candidate_weights.argmax(1), by_weight.indices)
    assert torch.equal(by_weight.candidate_weights.amax(1), by_weight.weights)
    by_q = policy.sample(states, select="max_q", **keywords)
    q = critic.minimum(states.repeat_interleave(50, 0), by_q.candidates.flatten(0, 1)).view(4, 50)
    assert torch.equal(q.argmax(1), by_q.indices)
    first = policy.sample(states, select="none", **keywords)
    assert (first.indices == 0).all()
    assert torch.equal(first.actions, first.candidates[:, 0])
    assert by_weight.actions.abs().max() <= 1


def test_softmax_follows_the_weights():
    """Over many equal states, candidate i is kept in proportion to w_i ** (1 / tau)."""
    policy = Policy(make_network(2, 1, 64, 2, "joint"), NoiseSchedule.vp(4))
    states = torch.zeros(4000, 2)
    drawn = policy.sample(states, n_candidates=2, select="softmax", selection_temperature=0.5,
                          return_candidates=True, seed=0)
    w = drawn.candidate_weights.clamp(min=1e-4) ** 2
    expected = (w[:, 1] / w.sum(1)).mean()
    assert abs(drawn.indices.float().mean() - expected) < 0.03


def test_ties_go_to_the_lowest_index(schedule):
    policy = Policy(make_network(5, 3), schedule)
    with pytest.warns(UserWarning, match="temperature 0"):
        drawn = policy.sample(torch.randn(3, 5), n_candidates=40, temperature=0.0, chunk=8, seed=0)
    assert (drawn.indices == 0).all()


def test_seed_and_states(policy, states):
    same = policy.sample(states, n_candidates=8, seed=4), policy.sample(states.numpy(), n_candidates=8,
                         seed=4)
    assert torch.equal(same[0].actions, same[1].actions)
    assert not torch.equal(same[0].actions, policy.sample(states, n_candidates=8, seed=5).actions)
    assert policy.sample(states[0], n_candidates=8, seed=0).actions.shape == (1, 3)


def test_predict_follows_stable_baselines(policy, states):
    policy.reseed(0)
    one, state = policy.predict(states[0].numpy(), n_candidates=4)
    assert isinstance(one, np.ndarray) and one.shape == (3,) and state is None
    again, _ = policy.predict(states[0].numpy(), n_candidates=4)
    assert not np.array_equal(one, again)
    policy.reseed(0)
    assert np.array_equal(policy.predict(states[0].numpy(), n_candidates=4)[0], one)
    many, _ = policy.predict(states.numpy(), deterministic=True)
    assert many.shape == (4, 3)
    assert np.array_equal(many, policy.predict(states.numpy(), deterministic=True)[0])


def test_one_rule_for_defaults(states, schedule):
    """A call's value, else the policy's, else the package's; the same for sample and predict."""
    policy = Policy(make_network(5, 3), schedule, defaults={"n_candidates": 4, "temperature": 0.5})
    assert policy.settings() == SamplingConfig(n_candidates=4, temperature=0.5)
    assert policy.settings(n_candidates=1).temperature == 0.0  # the paper's plain SWG
    assert policy.settings(n_candidates=1, temperature=0.7).temperature == 0.7
    plain = policy.sample(states, seed=3)
    named = policy.sample(states, n_candidates=4, temperature=0.5, select="max_weight", seed=3, dtype="auto")
    assert torch.equal(plain.actions, named.actions)
    assert np.array_equal(policy.predict(states, seed=3)[0], plain.actions.numpy())
    assert plain.indices.max() < 4 < policy.sample(states, n_candidates=64, seed=3).indices.max()
    assert Policy(make_network(5, 3), schedule).config == SamplingConfig()


def test_a_config_stands_in_for_the_policys_own(states, schedule):
    """A whole config, a preset over the policy's own settings, and single settings over either."""
    policy = Policy(make_network(5, 3), schedule, defaults={"n_candidates": 4, "guidance_scale": 3.0})
    assert policy.settings(SamplingConfig()) == SamplingConfig(temperature=1.0)
    assert policy.settings(SamplingConfig(n_candidates=1)).temperature == 0.0
    assert policy.settings(SamplingConfig(n_candidates=1, temperature=0.5)).temperature == 0.5
    fast = policy.settings("fast")
    assert (fast.n_candidates, fast.guidance_scale) == (4, 3.0)
    assert (fast.sampler, fast.sampler_steps) == ("dpmpp_2m", 8)
    assert policy.settings("fast", sampler="ddpm").sampler_steps is None
    config = SamplingConfig(n_candidates=9, sampler="dpmpp_2m_sde", sampler_steps=5)
    kept = policy.sample(states, config, seed=2, backend="torch", dtype="fp32")
    named = policy.sample(states, n_candidates=9, sampler="dpmpp_2m_sde", sampler_steps=5, guidance_scale=1.0,
                          seed=2, execution=Execution(backend="torch", dtype="fp32"))
    assert torch.equal(kept.actions, named.actions)
    for wrong in ("slow", 4, {"n_candidates": 4}):
        with pytest.raises(UsageError, match="give a SamplingConfig, one of paper, fast, best"):
            policy.sample(states, wrong, seed=0)


def test_a_bound_sampler_draws_what_sample_does(states, schedule):
    policy = Policy(make_network(5, 3), schedule, defaults={"n_candidates": 4, "dtype": "fp32"})
    bound = policy.bind(guidance_scale=2.0)
    assert bound is policy.bind(guidance_scale=2.0) and bound.config.guidance_scale == 2.0
    want = policy.sample(states, guidance_scale=2.0, seed=5)
    for got in (bound.sample(states, seed=5), bound.draw(states, 5)):
        assert torch.equal(got.actions, want.actions) and torch.equal(got.indices, want.indices)
    with pytest.raises(UsageError, match="max_q"):
        policy.bind(select="max_q")


def test_calls_without_a_seed_draw_new_noise(policy, states):
    policy.reseed(3)
    first, second = policy.sample(states), policy.sample(states)
    assert not torch.equal(first.actions, second.actions)
    policy.reseed(3)
    assert torch.equal(policy.sample(states).actions, first.actions)


@pytest.mark.parametrize("defaults,word", [
    ({"candidates": 4}, "unknown sampling default 'candidates'"), ({"n_candidates": 4.0}, "whole number"),
    ({"n_candidates": True}, "whole number"), ({"temperature": "hot"}, "a number"),
    ({"dtype": None}, "no value"), ([16], "names and values")])
def test_bad_defaults_are_named(defaults, word, schedule):
    with pytest.raises(UsageError, match=word):
        Policy(make_network(5, 3), schedule, defaults=defaults)


def test_save_gives_the_same_policy_back(tmp_path, states, schedule, critic):
    policy = Policy(make_network(5, 3), schedule, critic, defaults={"n_candidates": 3}, card={"note": "x"})
    again = load_policy(policy.save(tmp_path / "p"))
    assert (again.config, again.execution) == (policy.config, policy.execution) and again.card["note"] == "x"
    for select in ("max_weight", "max_q"):
        a, b = (p.sample(states, select=select, seed=1) for p in (policy, again))
        assert torch.equal(a.actions, b.actions) and torch.equal(a.indices, b.indices)


def test_spaces(schedule):
    policy = Policy(make_network(5, 3), schedule)
    observation = policy.observation_space.sample()
    assert observation.shape == (5,) and policy.action_space.contains(policy.predict(observation)[0])
    assert policy.action_space.low.tolist() == [-1, -1, -1] and policy.action_space.high.tolist() == [1, 1, 1]


@pytest.mark.parametrize("change,word", [
    ({"n_candidates": 0}, "n_candidates"), ({"select": "best"}, "unknown selection"),
    ({"backend": "jax"}, "unknown backend"), ({"dtype": "int8"}, "compute type"),
    ({"chunk": 0}, "chunk"), ({"seed": -1}, "seed"), ({"temperature": -1.0}, "temperature"),
    ({"sampler": "euler"}, "unknown sampler"), ({"sampler_steps": 6}, "walks all 15"),
    ({"weight_readout": "x"}, "read-out"),
    ({"weight_clip": (1.0, 0.5)}, "weight_clip"), ({"states": torch.zeros(2, 6)}, "shape"),
    ({"states": torch.full((1, 5), torch.nan)}, "NaN"), ({"selection_temperature": 0.0}, "above 0"),
    ({"state_indices": [1, 2]}, "state_indices")],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "")
def test_bad_input_is_named(policy, states, change, word):
    with pytest.raises(UsageError, match=word) as error:
        policy.sample(**({"states": states} | change))
    assert "\n" not in str(error.value)


def test_max_q_needs_a_critic(states):
    with pytest.raises(UsageError, match="critic"):
        Policy(make_network(5, 3), NoiseSchedule.vp(5)).sample(states, n_candidates=4, select="max_q", seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("backend", FAST)
def test_memory_does_not_grow_with_n(backend):
    """100,000 candidates in a fresh process: the peak stays within a few chunks of that of 4,000."""
    program = textwrap.dedent(f"""
        import resource, torch
        from swg_fast import NoiseSchedule, Policy, ScoreNetwork
        torch.manual_seed(0); torch.set_num_threads(1)
        policy = Policy(ScoreNetwork(3, 2, 16, 2), NoiseSchedule.vp(3))
        run = lambda n: policy.sample(torch.zeros(3), n_candidates=n, backend={backend!r}, chunk=2000)
        run(4000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kept = run(100_000)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert 0 <= int(kept.indices) < 100_000
        print(after - before)
    """)
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    grown = int(out.stdout) * (1 if sys.platform == "darwin" else 1024)
    # All candidates at once would be 100,000 x (3 + 4 x 16) floats and more: over 25 MB.
    assert grown < 12e6


def test_finite_numbers_whose_sum_is_not_pass():
    """The check sums once on the device, and checks each number only if the sum is not finite."""
    large = Samples(torch.full((2, 2), 3e38), torch.full((2,), 3e38), torch.zeros(2, dtype=torch.int64))
    assert check_samples(large, None, None, "reference fp32") is large
    many = replace(large, candidates=torch.full((2, 4, 2), -3e38), candidate_weights=torch.zeros(2, 4))
    assert check_samples(many, None, None, "reference fp32") is many
    many.candidates[1, 2, 0] = torch.inf
    with pytest.raises(AttributeError):  # it looks for the step in the job, which is None here
        check_samples(many, None, None, "reference fp32")
