"""A sample depends on its arguments alone: not on torch's settings around the call, on what becomes of the
caller's networks, or on the process that it is drawn in."""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import INTERPRETED, make_network
from torch.overrides import TorchFunctionMode

from swg_fast import NoiseSchedule, Policy, Sampler, TwinQ, UsageError, load_policy
from swg_fast.method.networks import Ranker
from swg_fast.policy.surroundings import TINY, own_surroundings
from swg_fast.sweep.shards import ShardedPolicy, search_range

S, A, N = 5, 3, 24
STATES = np.random.default_rng(0).standard_normal((3, S)).astype(np.float32)
BACKENDS = ("torch", "cpu", "reference")
SETTINGS = {"n_candidates": N, "guidance_scale": 1.5, "select": "expected_weight", "ranking_draws": 2,
            "ranking_mean": 0.4, "dtype": "fp32", "seed": 3}


def parts():
    torch.manual_seed(2)
    return make_network(S, A, 32, 2), TwinQ(S, A, 16), Ranker(S, A, 16)


def make_policy():
    network, critic, ranker = parts()
    return Policy(network, NoiseSchedule.vp(4), critic, ranker=ranker)


def same(one, other):
    return all(torch.equal(a, b) for a, b in ((one.actions, other.actions), (one.weights, other.weights),
                                              (one.indices, other.indices)))


@pytest.fixture(scope="module")
def policy():
    return make_policy()


@pytest.fixture(scope="module")
def plain(policy):
    return {backend: policy.sample(STATES, backend=backend, **SETTINGS) for backend in BACKENDS}


class Doubles(TorchFunctionMode):
    """What a caller's mode may do to every function: here it makes floats of another type."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        return out.double() if torch.is_tensor(out) and out.dtype == torch.float32 else out


@contextlib.contextmanager
def setting(change, before, *, to):
    """``change(to)``, and ``change`` to what was ``before`` at the end."""
    old = before()
    change(to)
    try:
        yield
    finally:
        change(old)


def default_dtype(dtype):
    return setting(torch.set_default_dtype, torch.get_default_dtype, to=dtype)


@contextlib.contextmanager
def default_device(name):
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


AMBIENT = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to half": lambda: torch.autocast("cpu", torch.float16),
    "float64 by default": lambda: default_dtype(torch.float64),
    "bfloat16 by default": lambda: default_dtype(torch.bfloat16),
    "on meta by default": lambda: default_device("meta"),
    "device as a context": lambda: torch.device("meta"),
    "a mode of the caller": Doubles,
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "gradients": torch.enable_grad,
    "anomalies": lambda: torch.autograd.detect_anomaly(check_nan=True),
    "deterministic": lambda: setting(torch.use_deterministic_algorithms,
                                     torch.are_deterministic_algorithms_enabled, to=True),
    "denormals flushed": lambda: setting(torch.set_flush_denormal, lambda: TINY == 0, to=True),
    "products in bf16": lambda: setting(torch.set_float32_matmul_precision,
                                        torch.get_float32_matmul_precision, to="medium"),
    "one thread": lambda: setting(torch.set_num_threads, torch.get_num_threads, to=1),
    "three threads": lambda: setting(torch.set_num_threads, torch.get_num_threads, to=3),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", AMBIENT)
def test_a_sample_is_the_same_in_any_surroundings(name, backend, policy, plain, recwarn):
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    with AMBIENT[name]():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        found = policy.sample(STATES, backend=backend, **SETTINGS)
        bound = policy.bind(backend=backend, **{k: v for k, v in SETTINGS.items() if k != "seed"})
        with torch._C.DisableTorchFunction():  # the caller's own tensors
            drawn = bound.draw(torch.from_numpy(STATES), SETTINGS["seed"])
        fresh = copy.deepcopy(policy).sample(STATES, backend=backend, **SETTINGS)
        assert before == (torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
                          torch.is_autocast_enabled("cpu"))
    assert (dtype, device) == (torch.get_default_dtype(), torch.get_default_device()) and TINY > 0
    assert same(found, plain[backend]) and same(drawn, plain[backend]) and same(fresh, plain[backend])
    assert not found.actions.requires_grad and not found.actions.is_inference()


@pytest.mark.skipif(not INTERPRETED, reason="a GPU is here: the kernels run on it")
@pytest.mark.parametrize("name", ["autocast", "float64 by default", "on meta by default"])
def test_the_fused_kernels_have_the_same_surroundings(name):
    wide, settings = Policy(make_network(S, A, 64, 2), NoiseSchedule.vp(2)), {"n_candidates": 3, "seed": 1}
    with AMBIENT[name]():
        found = wide.sample(STATES, backend="triton", dtype="fp32", **settings)
    assert same(found, copy.deepcopy(wide).sample(STATES, backend="triton", dtype="fp32", **settings))


def test_threads_that_sample_together(policy, plain):
    with AMBIENT["products in bf16"](), ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: policy.sample(STATES, backend="torch", **SETTINGS), range(12)))
        assert torch.get_float32_matmul_precision() == "medium"
    assert all(same(one, plain["torch"]) for one in found)


@pytest.mark.parametrize("name", ["float64 by default", "on meta by default", "autocast", "inference mode"])
def test_a_policy_is_the_same_wherever_it_is_loaded(name):
    settings = {"n_candidates": 4, "seed": 1, "dtype": "fp32"}
    states = np.zeros((1, 11), np.float32)
    with AMBIENT[name]():
        found = load_policy("hopper-medium-v2").sample(states, backend="torch", **settings)
    assert same(found, load_policy("hopper-medium-v2").sample(states, backend="torch", **settings))


@pytest.mark.slow
def test_a_compiled_caller(policy, plain):
    torch._dynamo.reset()
    call = torch.compile(lambda states: policy.sample(states, backend="torch", **SETTINGS), backend="eager")
    with torch.autocast("cpu", torch.bfloat16):
        assert same(call(torch.from_numpy(STATES)), plain["torch"])


def test_surroundings_may_be_entered_again():
    with torch.autocast("cpu"):
        with own_surroundings(), own_surroundings():
            assert not torch.is_autocast_enabled("cpu")
        assert torch.is_autocast_enabled("cpu")


# -- the caller's networks

def test_the_callers_networks_are_left_alone():
    network, critic, ranker = (part.double().train() for part in parts())
    network.requires_grad_(True)
    held = [*network.parameters(), *critic.parameters()]
    before = [p.detach().clone() for p in held]
    policy = Policy(network, NoiseSchedule.vp(4), critic, ranker=ranker)
    for select in ("max_q", "max_weight"):
        policy.sample(STATES, n_candidates=4, select=select, seed=0)
    assert all(part.training for part in (network, critic, ranker)) and network.blocks[0].dropout.training
    assert all(p.requires_grad and p.grad is None and p.dtype == torch.float64 for p in held)
    assert all(torch.equal(p, old) for p, old in zip(held, before, strict=True))
    assert held[0] is next(network.parameters())


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_happens_to_a_network_later_changes_nothing(backend, plain):
    network, critic, ranker = parts()
    policy = Policy(network.train(), NoiseSchedule.vp(4), critic, ranker=ranker)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(torch.nan)
    network.to("meta")
    assert same(policy.sample(STATES, backend=backend, **SETTINGS), plain[backend])


def test_a_network_without_numbers():
    with pytest.raises(UsageError, match="network lies on the meta device"):
        Policy(make_network(S, A, 16).to("meta"), NoiseSchedule.vp(3))


# -- copies

COPIES = {"copied": copy.deepcopy, "shallow": copy.copy, "pickled": lambda x: pickle.loads(pickle.dumps(x))}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_policy_that_has_sampled(how, backend, policy, plain):
    assert policy._bound and policy._backends
    again = COPIES[how](policy)
    assert same(again.sample(STATES, backend=backend, **SETTINGS), plain[backend])
    assert again.config == policy.config and again.card == policy.card
    bound = COPIES[how](policy.bind(backend=backend, **{k: v for k, v in SETTINGS.items() if k != "seed"}))
    assert same(bound.sample(STATES, seed=SETTINGS["seed"]), plain[backend])


@pytest.mark.parametrize("how", ["copied", "pickled"])
def test_a_copy_of_an_operator(how, policy):
    sampler = Sampler(policy, "wing", n_candidates=4, dtype="fp32")
    states, seed = torch.from_numpy(STATES), torch.tensor(5)
    wanted = sampler(states, seed)
    text = pickle.dumps(sampler)
    again = COPIES[how](torch.nn.Sequential(sampler))[0]
    assert again.name != "wing"
    del sampler
    assert all(torch.equal(a, b) for a, b in zip(again(states, seed), wanted, strict=True))
    elsewhere = pickle.loads(text)  # the name is free, as in another process
    assert elsewhere.name == "wing"
    found = torch.ops.swg_fast.sample(states, seed, "wing")
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_a_sharded_policy_keeps_all_parts(tmp_path):
    network, critic, ranker = parts()
    whole = Policy(network, NoiseSchedule.vp(4), critic, ranker=ranker, card={"note": "kept"},
                   defaults={"n_candidates": 5, "dtype": "fp32", "guidance_scale": 2.5})
    many = ShardedPolicy(whole, SimpleNamespace(), [object()])
    settings = {"select": "max_q", "seed": 1}
    for found in (load_policy(many.save(tmp_path / "policy")), *(make(many) for make in COPIES.values())):
        assert type(found) is Policy and found.config == whole.config and found.execution == whole.execution
        assert found.card["note"] == "kept" and found.model.ranker is not None
        assert same(found.sample(STATES, **settings), whole.sample(STATES, **settings))
    bound = pickle.loads(pickle.dumps(many.bind(select="max_q")))
    assert same(bound.sample(STATES, seed=1), whole.sample(STATES, **settings))


# -- another process

def child(policy, backend, pipe):
    pipe.send(torch.get_num_threads())
    kept = policy.sample(STATES, backend=backend, **SETTINGS)
    pipe.send([part.numpy() for part in (kept.actions, kept.weights, kept.indices)])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_forked_child_samples_alone(backend, policy, plain):
    with setting(torch.set_num_threads, torch.get_num_threads, to=2):
        large = torch.ones(600, 600)
        assert bool((large @ large).sum() > 0)  # torch's threads are there
        policy.sample(np.repeat(STATES, 200, axis=0), backend=backend, **SETTINGS)  # and the backend's
        context = multiprocessing.get_context("fork")
        mine, theirs = context.Pipe()
        process = context.Process(target=child, args=(policy, backend, theirs))
        process.start()
        try:
            assert mine.poll(30), "the child waits for threads that it does not have"
            assert mine.recv() == 1
            assert mine.poll(30), "the child waits for threads that it does not have"
            found = mine.recv()
        finally:
            process.kill()
            process.join()
    kept = plain[backend]
    wanted = [kept.actions, kept.weights, kept.indices]
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(found, wanted, strict=True))


def test_a_part_of_a_search_has_the_same_surroundings(policy):
    bound = policy.bind(n_candidates=N, backend="cpu", dtype="fp32")
    states = torch.from_numpy(STATES)
    job = bound._job(states, 1, torch.arange(len(states)), False)
    wanted = search_range(bound.backend, job, 0, N)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert torch.equal(search_range(bound.backend, job, 0, N).z, wanted.z)
