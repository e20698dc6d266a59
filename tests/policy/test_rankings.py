"""Rankings: what each scores, and that every backend and chunk keeps the same candidate by it."""

from __future__ import annotations

import math
from importlib import import_module

import pytest
import torch
from conftest import make_network, relative_error

from swg_fast.common.errors import UsageError
from swg_fast.method.networks import TwinQ
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.policy.policy import Policy
from swg_fast.policy.ranking_names import NEEDS, RANKINGS
from swg_fast.policy.rankings.ranked import Ranked, Support, scores_of, standardised
from swg_fast.policy.sampling import SamplingConfig

STATES = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
WEIGHTS = torch.tensor([[0.2, 0.5, 0.9, 0.4], [0.3, 0.3, 0.3, 0.3]])
CASES = {
    "support": {"select": "support"},
    "support counts little": {"select": "support", "support_penalty": 0.1, "support_draws": 3},
    "best-supported quarter": {"keep_share": 0.25, "keep_by": "support"},
    "critic among the supported": {"select": "max_q", "keep_share": 0.5, "keep_by": "support"},
    "expected weight among the supported": {"select": "expected_weight", "keep_share": 0.5,
                                            "keep_by": "support"},
    "chi squared": {"select": "chi_squared"},
    "chi squared, hot": {"select": "chi_squared", "selection_temperature": 5.0},
    "chi squared among the best": {"select": "chi_squared", "keep_share": 0.5},
}


def policy() -> Policy:
    torch.manual_seed(0)
    card = {"training": {"weights": {"mean": 0.3}}}
    return Policy(make_network(5, 2), NoiseSchedule.vp(5), TwinQ(5, 2, 32), card=card)


def given(**values: object) -> Ranked:
    noise = torch.tensor([[0.1, -0.2, 0.3, 0.0]]).expand(2, -1)
    return Ranked(SamplingConfig(), 1.0, WEIGHTS, lambda: noise, **values)


def test_every_ranking_has_a_file_and_known_needs():
    for name, kind in RANKINGS.items():
        assert callable(import_module(f"swg_fast.policy.rankings.{name}").score)
        assert set(kind.needs) <= set(NEEDS)


def test_scores_are_standardised_within_a_state():
    found = standardised(torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]))
    assert relative_error(found[0], torch.tensor([-1.0, 0.0, 1.0]) * math.sqrt(1.5)) < 1e-6
    assert (found[1] == 0).all()


def test_support_weighs_weight_against_error():
    error = torch.tensor([[1.0, 1.0, 9.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
    found = scores_of("support", given(support=Support(error, WEIGHTS)))
    assert relative_error(found, standardised(WEIGHTS.log()) - standardised(error)) < 1e-6
    assert found.argmax(1).tolist() == [1, 0]  # the highest weight is the worst supported


def test_chi_squared_draws_in_proportion():
    found = (scores_of("chi_squared", given()) - given().noise()).exp()
    assert found.mean(1).tolist() == pytest.approx([1.0, 1.0], rel=1e-6)
    r = standardised(WEIGHTS)
    inside = found[0] > 0
    assert relative_error(found[0][inside].diff(), r[0][inside].diff()) < 1e-5  # r - nu, with one nu
    assert relative_error(found[1], torch.ones(4)) < 1e-6


def test_cold_chi_squared_keeps_the_highest():
    cold = Ranked(SamplingConfig(), 1e-3, WEIGHTS, lambda: torch.zeros(2, 4))
    assert scores_of("chi_squared", cold)[0].isfinite().tolist() == [False, False, True, False]


@pytest.mark.parametrize("case", CASES)
def test_backends_and_chunks_agree(case):
    mine, common = policy(), {"n_candidates": 40, "temperature": 1.0, "seed": 3} | CASES[case]
    wanted = mine.sample(STATES, backend="reference", dtype="fp64", **common)
    for backend in ("reference", "torch", "cpu"):
        for chunk in (None, 16):
            found = mine.sample(STATES, backend=backend, dtype="fp32", chunk=chunk, **common)
            assert torch.equal(found.indices, wanted.indices), (backend, chunk)
            assert relative_error(found.actions, wanted.actions) < 1e-4  # of fp32, over five steps


def test_the_fused_kernel_hands_them_over():
    mine, common = policy(), {"n_candidates": 16, "temperature": 1.0, "seed": 3, "select": "support"}
    wanted = mine.sample(STATES, backend="reference", dtype="fp32", **common)
    found = mine.sample(STATES, backend="triton", dtype="fp32", **common)
    assert relative_error(found.actions, wanted.actions) < 1e-4  # two candidates with one action may tie


def test_support_is_alike_for_equal_actions():
    """All candidates of a state are given the same noise."""
    mine = policy()
    job = mine.bind(select="support", n_candidates=8, temperature=1.0)
    inner = job._job(STATES, 0, torch.arange(3), False)
    z = torch.zeros(3, 8, 3)
    found = job.backend.support(inner, slice(0, 3), 0, z)
    assert (found.error == found.error[:, :1]).all() and (found.weight == found.weight[:, :1]).all()


def test_support_needs_the_weights_mean():
    bare = Policy(make_network(5, 2), NoiseSchedule.vp(5))
    with pytest.raises(UsageError, match="mean of the training weights"):
        bare.sample(STATES, select="support", n_candidates=8)
