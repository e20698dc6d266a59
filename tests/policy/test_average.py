"""The mean of the best candidates: by hand, in every backend, chunk, shard and export."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import make_network, relative_error

from swg_fast import UsageError, reference
from swg_fast.method.networks import Ranker, TwinQ
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.policy.policy import Policy
from swg_fast.sweep.shards import merge, ranges, search_range

S, A, N = 5, 3, 40
STATES = torch.randn(3, S, generator=torch.Generator().manual_seed(1))
WALK = {"n_candidates": N, "temperature": 1.0, "seed": 3, "dtype": "fp32"}
FP32 = 1e-5
CASES = {
    "weight": {},
    "critic": {"select": "max_q"},
    "expected weight": {"select": "expected_weight", "ranking": "ranker"},
    "all": {"average_share": 1.0},
    "a share that is no whole number": {"average_share": 0.11},
    "of a share": {"keep_share": 0.5, "ranking": "ranker", "select": "max_q"},
    "of fewer than it asks for": {"keep_share": 0.05, "ranking": "ranker"},
    "a tree": {"leaves": 4},
}
LEFT_TO_THE_REFERENCE = {"softmax": {"select": "softmax"}, "chi-squared": {"select": "chi_squared"},
                         "support": {"select": "support", "support_draws": 2}}


def policy(**own: object) -> Policy:
    torch.manual_seed(2)
    return Policy(make_network(S, A), NoiseSchedule.vp(5), TwinQ(S, A, 16), ranker=Ranker(S, A, 16, 4),
                  card={"training": {"weights": {"mean": 0.3}}}, defaults=own or None)


def by_hand(mine: Policy, change: dict[str, object]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The means of the best candidates' actions and weights, and the best one's place, a state at a time."""
    settings = {"average_share": 0.2} | change
    drawn = mine.sample(STATES, backend="reference", return_candidates=True, **WALK | settings)
    rows = STATES.repeat_interleave(N, 0), drawn.candidates.flatten(0, 1)
    expected = mine.model.ranker.minimum(*rows).view(3, N)
    scores = {"max_q": mine.model.critic.minimum(*rows).view(3, N), "expected_weight": expected,
              "max_weight": drawn.candidate_weights}[settings.get("select", "max_weight")]
    actions, weights, first = [], [], []
    for i in range(3):
        among = sorted(range(N), key=lambda n: (-float(expected[i, n]), n))
        among = among[:math.ceil(settings.get("keep_share", 1.0) * N)]
        best = sorted(among, key=lambda n: (-float(scores[i, n]), n))
        best = best[:math.ceil(settings["average_share"] * N)]
        actions.append(drawn.candidates[i, best].mean(0))
        weights.append(drawn.candidate_weights[i, best].mean())
        first.append(best[0])
    return torch.stack(actions), torch.stack(weights), torch.tensor(first)


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_mean_of_the_best(name):
    mine, settings = policy(), WALK | {"average_share": 0.2} | CASES[name]
    actions, weights, first = by_hand(mine, CASES[name])
    for backend in ("reference", "torch", "cpu"):
        for chunk in (None, 12):
            found = mine.sample(STATES, backend=backend, chunk=chunk, **settings)
            assert relative_error(found.actions, actions) < FP32, (backend, chunk)
            assert relative_error(found.weights, weights) < FP32
            assert torch.equal(found.indices, first)


@pytest.mark.parametrize("name", LEFT_TO_THE_REFERENCE)
def test_rankings_that_draw_or_compare(name):
    mine, settings = policy(), WALK | {"average_share": 0.2} | LEFT_TO_THE_REFERENCE[name]
    wanted = mine.sample(STATES, backend="reference", **settings)
    single = mine.sample(STATES, backend="reference", **settings | {"average_share": 0.0})
    assert torch.equal(wanted.indices, single.indices)
    assert relative_error(wanted.actions, single.actions) > 0.01
    for backend in ("torch", "cpu"):
        for chunk in (None, 12):
            found = mine.sample(STATES, backend=backend, chunk=chunk, **settings)
            assert relative_error(found.actions, wanted.actions) < FP32


def test_a_share_of_one_candidate_is_the_best_to_the_bit():
    mine = policy()
    for backend in ("reference", "torch", "cpu"):
        one, best = (mine.sample(STATES, backend=backend, average_share=share, **WALK)
                     for share in (1 / N, 0.0))
        assert torch.equal(one.actions, best.actions) and torch.equal(one.weights, best.weights)


def test_the_fused_kernel_hands_them_over():
    mine, settings = policy(), WALK | {"n_candidates": 16, "average_share": 0.25}
    wanted = mine.sample(STATES, backend="reference", **settings)
    found = mine.sample(STATES, backend="triton", **settings)
    assert relative_error(found.actions, wanted.actions) < 1e-4  # of fp32, over five steps
    assert relative_error(found.weights, wanted.weights) < 1e-4


def test_shards_keep_what_one_process_keeps():
    mine, settings = policy(), WALK | {"average_share": 0.2}
    bound = mine.bind(backend="torch", **{k: v for k, v in settings.items() if k != "seed"})
    job = bound._job(STATES, 3, torch.arange(3), False)
    parts = [search_range(bound.backend, job, *part) for part in ranges(N, 3, 8)]
    found, wanted = merge(job, parts, bound.backend), mine.sample(STATES, backend="torch", **settings)
    assert torch.equal(found.indices, wanted.indices)
    assert relative_error(found.actions, wanted.actions) < FP32


def test_those_without_a_score_are_left_out():
    scores = torch.tensor([[math.nan, 3.0, 2.0, 1.0], [math.nan] * 4, [-math.inf, 5.0, 5.0, math.nan]])
    parts = torch.arange(12.0).view(3, 4, 1)
    found = reference.keep_mean(scores, parts, 3)
    assert found[:, 0].tolist() == [2.0, 4.0, 9.5]
    assert reference.keep_mean(scores, parts, 1)[:, 0].tolist() == [1.0, 4.0, 9.0]


@pytest.mark.parametrize("share", [1.5, -0.1, math.nan, "half", True])
def test_a_share_that_is_none(share):
    with pytest.raises(UsageError, match="average_share"):
        policy().bind(average_share=share)


def test_it_is_told_in_words():
    mine = policy(average_share=0.2, n_candidates=N)
    assert "keeps by max_weight, mean of the best 8" in repr(mine)
    assert mine.settings(n_candidates=4).choice == "max_weight"


def test_it_needs_a_ranking():
    with pytest.raises(UsageError, match="average_share=0.5 with select='none'.*; use"):
        policy().bind(average_share=0.5, select="none")
    own = policy(average_share=0.5)
    assert own.settings(select="none").average_share == 0.0 != own.settings(select="max_q").average_share


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_it_is_exported(format, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
    mine = policy()
    walk = {"n_candidates": N, "sampler": "dpmpp_2m", "sampler_steps": 2, "average_share": 0.2}
    path = mine.export(tmp_path / "mean", format=format, **walk)
    rows, columns = torch.arange(3)[:, None], torch.arange(N)
    noise = reference.philox.normals(9, columns, rows, 5, A + 1)
    if format == "onnx":
        found = onnxruntime.InferenceSession(str(path)).run(
            None, {"state": STATES.numpy(), "noise": noise.numpy()})
    else:
        found = [x.numpy() for x in torch.export.load(path).module()(state=STATES, noise=noise)]
    wanted = mine.sample(STATES, seed=9, backend="torch", dtype="fp32", **walk)
    assert np.array_equal(found[2], wanted.indices)
    assert relative_error(torch.from_numpy(found[0]), wanted.actions) < FP32
    assert relative_error(torch.from_numpy(found[1]), wanted.weights) < FP32
