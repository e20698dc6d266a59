"""Candidates ranked by an ensemble's lower confidence bound: the values by hand, in every backend."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import make_network, relative_error

from swg_fast import UsageError, load_policy, reference
from swg_fast.method.networks import EnsembleQ, Ranker, TwinQ
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.policy.policy import Policy

S, A, N = 5, 3, 40
STATES = torch.randn(3, S, generator=torch.Generator().manual_seed(1))
# Not clipped: two candidates in one corner of the actions would have one score.
WALK = {"n_candidates": N, "temperature": 1.0, "seed": 3, "dtype": "fp32", "clip_denoised": False}
FAST = ("torch", "cpu")
PARTS = {"lcb_weight": "ranker", "lcb_q": "critics"}


def policy(**parts: object) -> Policy:
    torch.manual_seed(2)
    own = {"critic": TwinQ(S, A, 16), "ranker": Ranker(S, A, 16, 4), "critics": EnsembleQ(S, A, 16, 5)}
    return Policy(make_network(S, A), NoiseSchedule.vp(5), card={"training": {"weights": {"mean": 0.3}}},
                  **own | parts)


def bounds(network: EnsembleQ, candidates: torch.Tensor, pessimism: float) -> torch.Tensor:
    """The bounds [3, n] of candidates [3, n, A], one member after the other in float64."""
    rows = torch.cat([STATES.repeat_interleave(candidates.shape[1], 0), candidates.flatten(0, 1)], 1).double()
    said = []
    for member in range(network.members):
        h = rows
        for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
            h = (h if layer == 0 else h.relu()) @ weight[member].double() + bias[member].double()
        said.append(h[:, 0])
    mean = sum(said) / len(said)
    deviation = (sum((one - mean) ** 2 for one in said) / len(said)) ** 0.5
    return (mean - pessimism * deviation).view(candidates.shape[:2]).float()


@pytest.mark.parametrize("select", PARTS)
@pytest.mark.parametrize("pessimism", [0.0, 1.0, 30.0])
def test_backends_and_chunks_keep_the_highest_bound(select, pessimism):
    mine, common = policy(), WALK | {"select": select, "pessimism": pessimism}
    for backend in ("reference", *FAST):
        drawn = mine.sample(STATES, backend=backend, return_candidates=True, **common)
        wanted = bounds(getattr(mine.model, PARTS[select]), drawn.candidates, pessimism)
        assert torch.equal(drawn.indices, reference.keep(wanted))
        assert torch.equal(mine.sample(STATES, backend=backend, chunk=13, **common).indices, drawn.indices)


def test_pessimism_changes_the_choice():
    kept = [policy().sample(STATES, select="lcb_q", pessimism=beta, **WALK).indices for beta in (0.0, 30.0)]
    assert not torch.equal(*kept)


def test_of_two_networks_a_pessimism_of_one_is_the_lower():
    mine = policy(ranker=Ranker(S, A, 16))
    ranker = mine.model.ranker
    drawn = mine.sample(STATES, select="lcb_weight", return_candidates=True, **WALK)
    lower = ranker.minimum(STATES.repeat_interleave(N, 0), drawn.candidates.flatten(0, 1)).view(3, N)
    assert relative_error(bounds(ranker, drawn.candidates, 1.0), lower) < 1e-6
    assert torch.equal(drawn.indices, reference.keep(lower))


@pytest.mark.parametrize("select", PARTS)
def test_the_fused_kernel_hands_them_over(select):
    mine, common = policy(), WALK | {"select": select, "n_candidates": 16}
    wanted = mine.sample(STATES, backend="reference", **common)
    found = mine.sample(STATES, backend="triton", **common)
    assert relative_error(found.actions, wanted.actions) < 1e-4  # of fp32, over five steps


@pytest.mark.parametrize("select", PARTS)
@pytest.mark.parametrize("change", [{"keep_share": 0.3, "ranking": "ranker"}, {"leaves": 4}])
def test_among_a_share_and_with_a_tree(select, change):
    mine, common = policy(), WALK | {"select": select} | change
    drawn = mine.sample(STATES, backend="torch", return_candidates=True, **common)
    scores = bounds(getattr(mine.model, PARTS[select]), drawn.candidates, 1.0)
    share = change.get("keep_share", 1.0)
    kept = reference.keep(scores)
    if share < 1:
        kept = reference.keep_among(scores, drawn.expected_weights, share)
    for backend in ("reference", *FAST):
        for chunk in (None, 12):
            assert torch.equal(mine.sample(STATES, backend=backend, chunk=chunk, **common).indices, kept)


@pytest.mark.parametrize("select,command", [("lcb_weight", "--rankers 5"), ("lcb_q", "--critics 5")])
def test_a_policy_without_is_told_what_adds_them(select, command):
    bare = policy(ranker=None, critics=None)
    word = f"select='{select}' needs .*'swg-fast rank POLICY {command}'"
    with pytest.raises(UsageError, match=word) as error:
        bare.bind(select=select)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [-0.5, float("nan"), float("inf"), "high"])
def test_a_pessimism_that_is_none(value):
    with pytest.raises(UsageError, match="pessimism"):
        policy().bind(select="lcb_q", pessimism=value)


def test_checkpoints_of_before_and_after(tmp_path):
    """An older card says nothing of members or critics, and its ranker has two networks."""
    mine = policy(ranker=Ranker(S, A, 16), critics=None)
    folder = mine.save(tmp_path / "older")
    card = json.loads((folder / "model_card.json").read_text())
    del card["critics"], card["ranker"]["members"], card["sampling"]["pessimism"]
    (folder / "model_card.json").write_text(json.dumps(card))
    chosen = WALK | {"select": "expected_weight", "ranking": "ranker"}
    again = load_policy(folder)
    assert torch.equal(again.sample(STATES, **chosen).actions, mine.sample(STATES, **chosen).actions)
    new = policy()
    again = load_policy(new.save(tmp_path / "new"))
    assert again.model.critics.members == 5 and again.model.ranker.members == 4
    for select in PARTS:
        found, wanted = (each.sample(STATES, select=select, **WALK) for each in (again, new))
        assert torch.equal(found.indices, wanted.indices)


def test_members_that_the_card_does_not_know(tmp_path):
    folder = policy().save(tmp_path / "p")
    card = json.loads((folder / "model_card.json").read_text())
    card["critics"]["members"] = 6
    (folder / "model_card.json").write_text(json.dumps(card))
    with pytest.raises(UsageError, match=r"critics.weights.0 has shape \[5, 8, 16\], its card says \[6"):
        load_policy(folder)
