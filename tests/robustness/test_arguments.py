"""Calls from Python: an argument of any type and shape works or gives an error of one line."""

from __future__ import annotations

import decimal
import fractions
import math

import numpy as np
import pytest
import torch
from conftest import make_network
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from swg_fast import NoiseSchedule, Policy, TwinQ, UsageError
from swg_fast.common.hardware import max_threads, resolve_device, set_threads
from swg_fast.evaluation.episodes import evaluate
from swg_fast.method.weight_functions import compute_weights
from swg_fast.policy.sampling import NAMES, check_overrides
from swg_fast.training.run import train
from swg_fast.training.settings import TrainSettings

S, A = 5, 3
STATES = np.linspace(-1, 1, 2 * S).reshape(2, S).astype(np.float32)


@pytest.fixture(scope="module")
def policy():
    return Policy(
        make_network(S, A, 16),
        NoiseSchedule.vp(3),
        TwinQ(S, A, 8),
        defaults={"n_candidates": 4, "dtype": "fp32"},
    )


def sampled(policy, states, **keywords):
    return policy.sample(states, backend="torch", seed=1, **keywords).actions


ALIKE = {
    "float64": STATES.astype("f8"),
    "big-endian": STATES.astype(">f4"),
    "big-endian float64": STATES.astype(">f8"),
    "Fortran order": np.asfortranarray(STATES),
    "negative strides": STATES[::-1, ::-1].copy()[::-1, ::-1],
    "every other": np.repeat(STATES, 2, axis=1)[:, ::2],
    "a list": STATES.tolist(),
    "rows": list(STATES),
    "a tensor": torch.from_numpy(STATES),
    "a view": torch.from_numpy(STATES).T.contiguous().T,
    "with a gradient": torch.from_numpy(STATES).requires_grad_(),
    "nothing masked": np.ma.array(STATES),
    "a matrix": np.asmatrix(STATES),
    "float128": STATES.astype(np.longdouble),
    "tensors": [torch.from_numpy(row) for row in STATES],
}


@pytest.mark.parametrize("name", ALIKE)
def test_states_of_any_kind_are_the_same(policy, name):
    assert torch.equal(sampled(policy, ALIKE[name]), sampled(policy, STATES))


def test_read_only_states(policy, recwarn):
    frozen = STATES.copy()
    frozen.flags.writeable = False
    assert torch.equal(sampled(policy, frozen), sampled(policy, STATES)) and not recwarn.list


def test_whole_numbers_are_numbers(policy):
    ones = np.ones((2, S))
    for kind in ("i1", "u8", "?", "f2", ">i4"):
        assert torch.equal(sampled(policy, ones.astype(kind)), sampled(policy, ones))


NAN_LAST = STATES.copy()
NAN_LAST[1, 4] = np.nan
STATES_BAD = {
    "text": ("states", "dtype"),
    "texts": ([["a"] * S], "dtype"),
    "bytes": (b"abcde", "dtype"),
    "None": (None, "dtype"),
    "complex": (STATES + 1j, "complex"),
    "complex tensor": (torch.from_numpy(STATES + 1j), "complex"),
    "masked": (np.ma.masked_less(STATES, 0), "masked"),
    "ragged": ([[1.0, 2.0], [3.0]], "cannot be made an array"),
    "objects": (np.array([[object()] * S]), "object"),
    "a dictionary": ({"observation": STATES}, "object"),
    "dates": (np.zeros((1, S), "M8[s]"), "datetime"),
    "records": (np.zeros((1, S), [("a", "f4")]), "dtype"),
    "too wide": (np.zeros((2, S + 1)), "shape"),
    "too deep": (np.zeros((1, 1, S)), "shape"),
    "scalar": (1.0, "shape"),
    "no rows": (np.zeros((0, S)), "shape"),
    "NaN": (NAN_LAST, "NaN"),
    "infinity": (np.full((1, S), np.inf), "infinity"),
    "1e300": (np.full((1, S), 1e300), "float32's range"),
    "sparse": (torch.eye(S).to_sparse(), "dense"),
    "nowhere": (torch.zeros(1, S, device="meta"), "dense"),
    "a set": ({1.0, 2.0}, "dtype"),
}


@pytest.mark.parametrize("call", ["sample", "predict"])
@pytest.mark.parametrize("name", STATES_BAD)
def test_bad_states(policy, name, call):
    states, word = STATES_BAD[name]
    with pytest.raises(UsageError) as error:
        getattr(policy, call)(states)
    assert word in str(error.value) and "\n" not in str(error.value)


KEYWORDS_BAD = {
    "n_candidates": [0, -1, 2**32 + 1, 10**12, 10**400, 2.0, "4", True, [4], math.nan, 1j],
    "guidance_scale": ["5", math.nan, math.inf, 1e308, 10**400, 1j, [1.0], True, "nan", np.zeros(2), b"1"],
    "temperature": [-1, math.nan, 1e300, "hot", [0.5]],
    "select": ["best", 0, ["max_weight"], b"none"],
    "seed": [-1, 2**64, 1.5, "0", True],
    "backend": ["xla", 0, ["cpu"]],
    "chunk": [0, -5, 2**40, 1.5, "all"],
    "dtype": ["int8", torch.float32, 32],
    "sampler": ["euler", 1],
    "sampler_steps": [0, 2.5],
    "leaves": [0, "two", np.zeros(2)],
    "ranking": ["best", 1, ["draws"]],
    "keep_share": [0.0, 2.0, "half"],
    "average_share": [-0.1, 2.0, "half"],
    "weight_clip": [(1.0, 0.5), (0.1,), 0.5, "ab", (0.1, math.nan), (-1, 1), (0.1, "1")],
    "weight_readout": ["rough", 1],
    "clip_denoised": [1, "yes"],
    "return_candidates": ["all", 1],
    "selection_temperature": [0.0, -1.0, math.nan, "cold"],
    "state_indices": [
        [0],
        [0, 1, 2],
        [0, math.nan],
        [0, -1],
        [0, 2**32],
        [0.5, 1],
        ["a", "b"],
        np.ma.masked_equal([0, 1], 1),
        1j,
    ],
}


@pytest.mark.parametrize(
    "name,value", [(n, v) for n, values in KEYWORDS_BAD.items() for v in values], ids=lambda v: repr(v)[:30]
)
def test_bad_keywords(policy, name, value):
    with pytest.raises(UsageError) as error:
        policy.sample(STATES, **{name: value})
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    with pytest.raises(UsageError):  # before anything is drawn
        policy.bind(**{name: value})


def test_keywords_of_other_types_that_mean_the_same(policy):
    plain = sampled(policy, STATES, n_candidates=8, guidance_scale=2.0, temperature=0.5)
    for n, rho, heat in (
        (np.int64(8), np.float32(2), fractions.Fraction(1, 2)),
        (torch.tensor(8), torch.tensor(2.0), 0.5),
        (np.uint8(8), 2, decimal.Decimal("0.5").__float__()),
    ):
        assert torch.equal(
            sampled(policy, STATES, n_candidates=n, guidance_scale=rho, temperature=heat), plain
        )


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.complex_numbers(),
    st.lists(st.floats(), max_size=3),
    npst.arrays(npst.scalar_dtypes(), npst.array_shapes(min_dims=0, max_dims=2, max_side=3)),
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.sampled_from(sorted(NAMES)), ANYTHING)
def test_any_keyword_of_any_type(name, value):
    """The setting is checked and of a plain type, or the error has one line."""
    try:
        found = check_overrides({name: value}).get(name)
    except UsageError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
        return
    assert found is None or type(found) in (int, float, str, bool, tuple)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(npst.arrays(npst.scalar_dtypes(), npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=S)))
def test_states_of_any_type_and_shape(policy, states):
    """Every state gets a finite action, or the error has one line."""
    try:
        actions = sampled(policy, states, n_candidates=2)
    except UsageError as error:
        assert "\n" not in str(error)
        return
    assert actions.shape == (1 if states.ndim == 1 else len(states), A) and actions.isfinite().all()


def spoiled(name, value):
    network = make_network(S, A, 16)
    with torch.no_grad():
        network.get_parameter(name).view(-1)[0] = value
    return network


@pytest.mark.parametrize(
    "make,word",
    [
        (lambda: Policy(spoiled("input.weight", math.nan), NoiseSchedule.vp(3)), "network.input.weight"),
        (lambda: Policy(make_network(S, A, 16), NoiseSchedule.vp(3), TwinQ(S + 1, A)), "different tasks"),
        (lambda: Policy(torch.nn.Linear(5, 3), NoiseSchedule.vp(3)), "expected ScoreNetwork"),
        (lambda: Policy(make_network(S, A, 16), [0.1]), "expected NoiseSchedule"),
        (lambda: Policy(make_network(S, A, 16), NoiseSchedule.vp(3), device="tpu"), "unknown device"),
        (lambda: Policy(make_network(S, A, 16), NoiseSchedule.vp(3), device=3.5), "unknown device"),
        (lambda: NoiseSchedule("x", torch.tensor([0.1, 1.0])), "beta"),
        (lambda: NoiseSchedule("x", torch.full((20_000,), 0.1)), "1..10000"),
        (lambda: NoiseSchedule.vp(10**12), "num_steps must be at most 10000"),
        (lambda: make_network(S, A, 10**9), "at most"),
        (lambda: make_network(S, A, 8, 10**9), "at most"),
        (lambda: set_threads(10**6), "at most"),
        (lambda: set_threads(0), "at least"),
        (lambda: set_threads(max_threads() + 1), "at most"),
        (lambda: resolve_device("cuda:99"), "device"),
        (lambda: resolve_device("cpu:x"), "unknown device"),
        (lambda: compute_weights(torch.tensor([0.0, math.nan])), "not finite"),
        (lambda: compute_weights([0.5]), "floating point"),
        (lambda: compute_weights(torch.tensor([1.0]), "evil"), "unknown weight function"),
        (lambda: compute_weights(torch.tensor([1]), "dice"), "floating"),
        (lambda: train([1, 2], TrainSettings(), "nowhere"), "expected the Transitions"),
    ],
)
def test_bad_parts(make, word):
    with pytest.raises(UsageError, match=word) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change,word",
    [
        ({"episodes": 0}, "episodes"),
        ({"episodes": 2.5}, "episodes"),
        ({"seed": [1, 1]}, "different"),
        ({"workers": 10**6}, "workers"),
        ({"sampler_steps": 99}, "99"),
        ({"speed": 1}, "speed"),
        ({"n_candidates": 10**12}, "at most"),
    ],
)
def test_an_evaluation_is_checked_before_it_starts_workers(policy, change, word, monkeypatch):
    monkeypatch.setattr("swg_fast.evaluation.episodes.VectorEnv", None)
    with pytest.raises(UsageError, match=word):
        evaluate(policy, "antmaze-umaze-v2", **change)


def overflowing(name, factor):
    network = make_network(S, A, 16)
    with torch.no_grad():
        network.get_parameter(name).mul_(factor)
    return network


@pytest.mark.parametrize("backend", ["torch", "cpu", "reference"])
def test_actions_that_are_not_finite_are_never_returned(backend):
    """The error names the step: the first where everything overflows, the last where only the weight does."""
    policy = Policy(overflowing("input.weight", 1e38), NoiseSchedule.vp(5), defaults={"dtype": "fp32"})
    with pytest.raises(UsageError, match="not finite from denoising step 4 on") as error:
        policy.sample(STATES, n_candidates=4, guidance_scale=1.0, temperature=1.0, backend=backend, seed=0)
    assert "candidate" in str(error.value) and "\n" not in str(error.value)


def test_states_that_overflow_inside_are_named(policy):
    states = STATES.copy()
    states[1] = 3e38
    with pytest.raises(UsageError, match="of state 1 is not finite"):
        sampled(policy, states)


def test_coefficients_beyond_float32_are_named():
    schedule = NoiseSchedule("steep", torch.full((5,), 1 - 1e-16, dtype=torch.float64))
    with pytest.raises(UsageError, match="beyond float32's range"):
        Policy(make_network(S, A, 16), schedule).sample(STATES, seed=0)


@pytest.mark.parametrize(
    "keywords", [{"return_candidates": True, "n_candidates": 2**32}, {"chunk": 2**32, "n_candidates": 2**32}]
)
def test_memory_is_refused_before_it_is_taken(policy, keywords):
    with pytest.raises(UsageError, match="of memory"):
        policy.sample(np.zeros((1000, S)), **keywords)
