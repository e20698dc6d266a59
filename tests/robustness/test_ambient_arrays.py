"""What is handed over: tensors of every kind as states, tensors to C, searches that do not fit in memory."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_network
from torch._subclasses.fake_tensor import FakeTensorMode

from swg_fast import NoiseSchedule, Policy, ScoreNetwork, TwinQ, UsageError
from swg_fast.common import hardware
from swg_fast.kernels.cpu import c_loops
from swg_fast.kernels.shared.sampler_table import Words
from swg_fast.kernels.training import actor, critic
from swg_fast.kernels.training.c_steps import Moments
from swg_fast.method.networks import ValueNetwork
from swg_fast.policy.sampling import SamplingConfig

S, A = 5, 3
STATES = torch.from_numpy(np.random.default_rng(0).standard_normal((2, S)).astype(np.float32))
SETTINGS = {"n_candidates": 6, "dtype": "fp32", "seed": 1}


@pytest.fixture(scope="module")
def policy():
    card = {"training": {"weights": {"mean": 0.4}}}
    return Policy(make_network(S, A, 16, 2), NoiseSchedule.vp(3), card=card)


class Subclass(torch.Tensor):
    pass


def fake():
    with FakeTensorMode(allow_non_fake_inputs=True):
        return torch.zeros(2, S)


# As states: what gives the samples of STATES.
ALIKE = {
    "subclass": lambda: STATES.clone().as_subclass(Subclass),
    "parameter": lambda: torch.nn.Parameter(STATES.clone()),
    "with a gradient": lambda: STATES.clone().requires_grad_() * 1,
    "negated view": lambda: torch._neg_view(-STATES),
    "imaginary part": lambda: torch.complex(STATES, -STATES).conj().imag,
    "columns": lambda: STATES.T.contiguous().T,
    "every other": lambda: STATES.repeat_interleave(2, dim=1)[:, ::2],
    "with an offset": lambda: torch.cat([STATES[:1], STATES])[1:],
    "float64": lambda: STATES.double(),
    "rows with gradients": lambda: list(STATES.clone().requires_grad_().unbind()),
    "in inference mode": lambda: torch.inference_mode()(STATES.clone)(),
}


@pytest.mark.parametrize("backend", ["torch", "cpu", "reference"])
@pytest.mark.parametrize("name", ALIKE)
def test_states_of_any_kind_of_tensor(name, backend, policy):
    given = ALIKE[name]()
    found = policy.sample(given, backend=backend, **SETTINGS)
    wanted = policy.sample(STATES, backend=backend, **SETTINGS)
    assert torch.equal(found.actions, wanted.actions) and torch.equal(found.indices, wanted.indices)
    assert type(found.actions) is torch.Tensor and not found.actions.requires_grad


def test_indices_that_are_not_in_memory_as_they_are(policy):
    for odd, plain in ((torch._efficientzerotensor((2,), dtype=torch.int64), [0, 0]),
                       (torch._neg_view(torch.tensor([-7, -9])), [7, 9])):
        found, wanted = (policy.sample(STATES, state_indices=which, backend="cpu", **SETTINGS)
                         for which in (odd, np.array(plain)))
        assert torch.equal(found.actions, wanted.actions)


REFUSED = {
    "nested": (lambda: torch.nested.nested_tensor([STATES[0], STATES[1]]), "nested"),
    "nested and jagged": (lambda: torch.nested.nested_tensor([STATES[0], STATES[1, :3]], layout=torch.jagged),
                          "nested"),
    "fake": (fake, "FakeTensor"),
    "sparse": (STATES.to_sparse, "sparse_coo"),
    "sparse rows": (STATES.to_sparse_csr, "sparse_csr"),
    "oneDNN's": (STATES.to_mkldnn, "_mkldnn"),
    "quantised": (lambda: torch.quantize_per_tensor(STATES, 0.1, 0, torch.qint8), "qint8"),
    "nowhere": (lambda: STATES.to("meta"), "on meta"),
    "masked": (lambda: torch.masked.masked_tensor(STATES, STATES > 0), "MaskedTensor"),
    "functional": (lambda: torch._to_functional_tensor(STATES), "dense tensor"),
    "of four bits": (lambda: torch.zeros(2, S, dtype=torch.uint4), "uint4"),
    "ragged rows": (lambda: [STATES[0], STATES[1, :3]], "cannot be made an array"),
    "ragged lists": (lambda: [[1.0] * S, [1.0] * 3], "cannot be made an array"),
    "ragged objects": (lambda: np.array([np.zeros(S), np.zeros(3)], dtype=object), "dtype object"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_states_that_are_no_numbers(name, policy):
    make, word = REFUSED[name]
    for call in (policy.sample, policy.predict):
        with pytest.raises(UsageError, match=word) as error:
            call(make(), **SETTINGS)
        assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_states_inside_a_transform(policy):
    with pytest.raises(UsageError, match="only stands for numbers, as in torch.vmap"):
        torch.vmap(lambda states: policy.sample(states, **SETTINGS).actions)(STATES)


def test_indices_of_another_number_are_never_read(policy):
    with pytest.raises(UsageError, match="3 state indices for 2 states"):
        policy.bind(n_candidates=4, backend="cpu").draw(STATES, 1, torch.arange(3))


# -- what C is handed: each argument of each function in turn another type, too short, with gaps, elsewhere

SPOILED = {
    "another type": lambda t: t.to(torch.float64 if t.dtype != torch.float64 else torch.float32),
    "too short": lambda t: t.flatten()[:-1].clone(),
    "with gaps": lambda t: torch.stack([t, t], dim=-1)[..., 0],
    "elsewhere": lambda t: t.to("meta"),
}
SIZES = {"M": 2, "H": 8, "D": 4, "K": 3, "E": 8, "count": 6}


def arguments(signature, T):
    """Right ones for a signature of `c_loops.SIGNATURES`, and the places of its arrays."""
    given, arrays = [], []
    for place, part in enumerate(signature.split(", ")):
        kind, name = part.split(" ")
        if "[" not in name:
            given.append(SIZES.get(name, 0))
            continue
        size = eval(name[name.index("[") + 1:name.index("]")], {}, SIZES)
        given.append(torch.zeros(size, dtype=c_loops.ARRAYS.get(kind, T)))
        arrays.append((place, name.split("[")[0]))
    return given, arrays


@pytest.mark.skipif(c_loops.library() is None, reason="no C compiler here")
@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
@pytest.mark.parametrize("name", c_loops.SIGNATURES)
def test_c_is_handed_what_it_reads(name, spoil):
    for T, suffix in c_loops.SUFFIX.items() if name.endswith("_T") else ((None, ""),):
        whole = name.replace("_T", f"_{suffix}")
        function = getattr(c_loops.library(), whole)
        given, arrays = arguments(c_loops.SIGNATURES[name], T)
        function(*given)
        for place, argument in arrays:
            wrong = [*given]
            wrong[place] = spoil(given[place])
            with pytest.raises(TypeError, match=f"^{whole}'s {argument}: C was handed") as error:
                function(*wrong)
            assert "\n" not in str(error.value)


def critic_call():
    shape = critic.CriticShape(S, A, 4, 0.99, 0.005, 0.7, 1e-6, -1.0, 1.0, True)
    flat = {name: torch.zeros(shape.q_size if name[0] in "qt" else shape.value_size)
            for name in ("q", "q_m", "q_v", "target", "value", "value_m", "value_v")}
    flat |= {"data": torch.zeros(6, 2 * S + A + 2), "rates": torch.zeros(2)}

    def call(f):
        critic.loops().steps(
            shape, Moments(f["q"], {"exp_avg": f["q_m"], "exp_avg_sq": f["q_v"]}), f["target"],
            Moments(f["value"], {"exp_avg": f["value_m"], "exp_avg_sq": f["value_v"]}), f["data"],
            torch.zeros(2, 3, dtype=torch.int64), f["rates"], 0)

    return call, flat


def actor_call():
    shape = actor.ActorShape(S, A, 8, 2, 4, True, 1e-6, 0.0, 1.0, 0.0, 0)
    flat = {name: torch.zeros(shape.size) for name in ("p", "p_m", "p_v", "average")}
    flat |= {"data": torch.zeros(6, A + 1 + S), "xi": torch.zeros(2, 3, A + 1)}
    flat |= {"rates": torch.zeros(2), "ema_rates": torch.zeros(2)}

    def call(f):
        zeros = torch.zeros(2, 3, dtype=torch.int64)
        actor.loops().steps(
            shape, Moments(f["p"], {"exp_avg": f["p_m"], "exp_avg_sq": f["p_v"]}), f["average"],
            torch.zeros(2, 4), f["data"], actor.Batches(zeros, zeros, f["xi"], f["rates"], f["ema_rates"]),
            0, 0)

    return call, flat


@pytest.mark.skipif(actor.loops() is None, reason="no C compiler here")
@pytest.mark.parametrize("make", [critic_call, actor_call])
def test_training_in_c_is_handed_what_it_reads(make):
    call, flat = make()
    call(flat)
    for name, tensor in flat.items():
        for how, spoil in SPOILED.items():
            if (name, how) in (("data", "too short"), ("xi", "with gaps")):  # checked by shape; copied
                continue
            with pytest.raises(TypeError, match=f"^{name}: C was handed"):
                call(flat | {name: spoil(tensor)})
    with pytest.raises(ValueError, match="not all in the data"):
        call(flat | {"data": flat["data"][:, :-1]})


@pytest.mark.parametrize("size", [(11, 3, 32, 2, False), (5, 2, 16, 3, True)])
def test_sizes_are_those_of_the_networks(size):
    states, actions, hidden, blocks, early = size
    network = ScoreNetwork(states, actions, hidden, blocks, "early" if early else "joint", 8)
    shape = actor.ActorShape(states, actions, hidden, blocks, 8, early, 0, 0, 0, 0, 0)
    assert shape.size == sum(p.numel() for p in network.parameters())
    both = critic.CriticShape(states, actions, hidden, 0, 0, 0, 0, 0, 0, early)
    assert both.q_size == sum(p.numel() for p in TwinQ(states, actions, hidden).parameters())
    assert both.value_size == sum(p.numel() for p in ValueNetwork(states, hidden, early).parameters())


# -- softmax at its coldest keeps the highest weight

@pytest.mark.parametrize("backend", ["torch", "cpu", "reference", "triton"])
def test_the_coldest_softmax_keeps_the_highest_weight(backend):
    wide = Policy(make_network(S, A, 64, 2), NoiseSchedule.vp(2))
    settings = SETTINGS | {"n_candidates": 12, "guidance_scale": 0.0, "backend": backend}
    best = wide.sample(STATES, select="max_weight", weight_clip=(1e-9, 10.0), **settings)
    assert len({*best.indices.tolist(), 0}) > 1  # not what a tie would keep
    for cold in (1e-3, 1e-30, 1e-36, 1e-40, 5e-324):
        kept = wide.sample(STATES, select="softmax", selection_temperature=cold, weight_clip=(1e-9, 10.0),
                           **settings)
        assert torch.equal(kept.indices, best.indices), cold


# -- memory

GREEDY = {
    "draws, by the reference": {"ranking_draws": 2**16, "select": "expected_weight", "n_candidates": 2**16,
                                "backend": "reference"},
    "leaves": {"leaves": 2**26, "n_candidates": 2**26, "backend": "torch"},
    "leaves, on the CPU": {"leaves": 2**26, "n_candidates": 2**26, "backend": "cpu"},
    "a share": {"keep_share": 0.5, "n_candidates": 2**32},
    "the mean of a share": {"average_share": 0.5, "n_candidates": 2**32},
    "all, ranked against one another": {"select": "chi_squared", "n_candidates": 2**32},
    "a share that is all but one": {"keep_share": 1 - 1e-9, "n_candidates": 2**32, "backend": "torch"},
    "a chunk": {"chunk": 2**32, "n_candidates": 2**32, "backend": "torch"},
    "candidates": {"return_candidates": True, "n_candidates": 2**32},
}


@pytest.mark.parametrize("name", GREEDY)
def test_a_search_that_does_not_fit_is_refused_before_it_begins(name, policy, monkeypatch):
    monkeypatch.setattr(hardware, "available_memory", lambda: 4 * 10**9)
    monkeypatch.setattr("swg_fast.policy.backends.streaming.Backend.run", None)
    words = r"would take .* GB of memory and 4\.0 GB are free; .*(fewer|smaller)"
    with pytest.raises(UsageError, match=words) as error:
        policy.sample(STATES, **{"seed": 0, "dtype": "fp32"} | GREEDY[name])
    assert "\n" not in str(error.value)


def test_many_draws_take_no_more_memory_than_few(policy):
    """A ranking's noise is drawn a few draws at a time."""
    backend, seen = policy.backend("torch", "fp32"), []
    plan = policy.bind(n_candidates=4, select="expected_weight", ranking_draws=50, backend="torch").plan

    def noise(words, steps):
        seen.append(len(steps))
        return torch.zeros(len(steps), len(words.owners), plan.latent_dim)

    zeros = torch.zeros(4, dtype=torch.int64)
    job = SimpleNamespace(plan=plan, noise=noise)
    backend.expect(job, backend.hoist(STATES), Words(zeros, zeros, zeros), torch.zeros(4, A + 1))
    assert sum(seen) == 50 and max(seen) <= 8


def test_one_candidate_needs_no_room(policy, monkeypatch):
    monkeypatch.setattr(hardware, "available_memory", lambda: 10**6)
    config = replace(SamplingConfig(), select="none", n_candidates=2**32, leaves=2**26, temperature=1.0)
    assert policy.sample(STATES, config, seed=0).indices.tolist() == [0, 0]
