"""Draft and finish: the student ranks N candidates, and the teacher walks the best K."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from conftest import relative_error
from students import A, states, student_policy, teachers

from swg_fast import UsageError, load_policy, reference
from swg_fast.policy.backends.registry import BACKENDS

BACKENDS_HERE = [name for name in BACKENDS if name != "triton"]  # test_student.py has the fused kernel
N, K, SEED = 31, 5, 2**33 + 1
# The same walk in a batch of another size: sums of float32 in another order, over four steps.
FP32 = 1e-5
SELECTIONS = {
    "max_weight": {}, "max_q": {"select": "max_q"}, "softmax": {"select": "softmax"},
    "none": {"select": "none"}, "a ranker": {"select": "expected_weight", "ranking": "ranker"},
    "draws": {"select": "expected_weight"}, "read": {"select": "expected_weight", "ranking": "read"},
    "lower bound": {"select": "lcb_q", "pessimism": 2.0}}


def of(found, indices):
    """These candidates [B, K, A] of all."""
    return found.candidates.gather(1, indices[..., None].expand(-1, -1, A))


@pytest.mark.parametrize("kind,guidance", [
    ("one call", {}), ("two calls", {}), ("a range", {"guidance_scale": 3.5}),
    ("a family", {"guidance": "dice"}), ("not clipped", {"clip_denoised": False})])
@pytest.mark.parametrize("backend", BACKENDS_HERE)
def test_the_teacher_walks_the_students_best(backend, kind, guidance):
    policy = student_policy(kind)
    settings = {"n_candidates": N, "seed": SEED, "backend": backend, "return_candidates": True} | guidance
    drafted = policy.sample(states(), **settings)
    walked = policy.sample(states(), **settings, **teachers(policy))
    got = policy.sample(states(), finish=K, **settings)
    best = drafted.candidate_weights.topk(K, dim=1).indices.sort(dim=1).values
    assert torch.equal(got.candidate_indices, best)
    assert relative_error(got.candidates, of(walked, best)) < FP32
    weights = walked.candidate_weights.gather(1, best)
    assert relative_error(got.candidate_weights, weights) < FP32
    kept = best.gather(1, reference.keep(weights)[:, None])
    assert torch.equal(got.indices, kept[:, 0])  # as they are counted without a draft
    assert relative_error(got.actions, of(walked, kept)[:, 0]) < FP32
    assert relative_error(drafted.candidates, walked.candidates) > 0.1  # it is not the student's own


TOGETHER = {"support": {"select": "support"}, "chi_squared": {"select": "chi_squared"}}


@pytest.mark.parametrize("backend", BACKENDS_HERE)
@pytest.mark.parametrize("name", SELECTIONS | TOGETHER)
def test_all_finished_is_the_teachers_decision_to_the_bit(name, backend):
    policy = student_policy("a range")
    settings = {"n_candidates": 9, "seed": SEED, "backend": backend, "guidance_scale": 1.5,
                "return_candidates": True} | (SELECTIONS | TOGETHER)[name]
    mine = policy.sample(states(), finish=9, **settings)
    theirs = policy.sample(states(), **settings, **teachers(policy))
    parts = ["actions", "weights", "indices", "candidates", "candidate_weights"]
    for part in parts + (["expected_weights"] if name in ("a ranker", "draws", "read") else []):
        assert torch.equal(getattr(mine, part), getattr(theirs, part)), part


@pytest.mark.parametrize("name", SELECTIONS)
def test_the_selection_is_of_the_finished(name):
    """The draft goes by the selection's own score of the student's candidates, or by their weight where only
    the teacher knows the score; the kept one has the highest score of the teacher's."""
    policy = student_policy()
    model, select = policy.model, SELECTIONS[name]
    settings = {"n_candidates": N, "seed": SEED, "return_candidates": True}
    got = policy.sample(states(), finish=K, **settings, **select)
    drafted = policy.sample(states(), **settings)
    walked = policy.sample(states(), **settings, **teachers(policy), **select)
    c, s = torch.arange(N).repeat(4), torch.arange(4).repeat_interleave(N)
    gumbel = reference.philox.gumbel(SEED, c, s, model.schedule.num_steps).view(4, N)

    def scores(found, finished):
        rows, actions = states().repeat_interleave(N, 0), found.candidates.flatten(0, 1)
        if name == "softmax":
            return found.candidate_weights.clamp(min=1e-4).log() + gumbel
        if name == "none":
            return torch.zeros(4, N)
        if name == "a ranker" or name == "max_q":
            network = model.ranker if name == "a ranker" else model.critic
            return network.minimum(rows, actions).view(4, N)
        if name == "lower bound":
            said = model.critics(rows, actions)
            return (said.mean(0) - 2.0 * said.std(0, correction=0)).view(4, N)
        return found.expected_weights if finished and name != "max_weight" else found.candidate_weights

    order = scores(drafted, False).sort(dim=1, descending=True, stable=True).indices
    best = order[:, :K].sort(dim=1).values
    assert torch.equal(got.candidate_indices, best)
    kept = best.gather(1, reference.keep(scores(walked, True).gather(1, best))[:, None])[:, 0]
    assert torch.equal(got.indices, kept)
    if walked.expected_weights is not None:
        assert relative_error(got.expected_weights, walked.expected_weights.gather(1, best)) < 1e-4


@pytest.mark.parametrize("backend", BACKENDS_HERE)
@pytest.mark.parametrize("name", ["max_weight", "softmax", "draws"])
def test_chunks_and_state_indices(name, backend):
    """Chunks smaller than the shortlist and larger; a state alone is what it is in a batch."""
    policy = student_policy("a family")
    settings = {"n_candidates": N, "finish": K, "seed": SEED, "backend": backend} | SELECTIONS[name]
    whole = policy.sample(states(), **settings)
    for chunk in (1, 3, 40):
        parts = policy.sample(states(), chunk=chunk, **settings)
        assert torch.equal(parts.indices, whole.indices)
        assert relative_error(parts.actions, whole.actions) < FP32
    one = policy.sample(states()[2], state_indices=[2], return_candidates=True, **settings)
    assert one.indices == whole.indices[2] and one.candidate_indices.shape == (1, K)
    assert relative_error(one.actions[0], whole.actions[2]) < FP32


@pytest.mark.parametrize("name", TOGETHER)
def test_rankings_of_all_candidates_together_are_of_the_finished(name):
    """The draft goes by weight, since these score a candidate against the others; backends agree."""
    policy = student_policy()
    settings = {"n_candidates": N, "finish": K, "seed": SEED, "return_candidates": True}
    best = policy.sample(states(), **settings).candidate_indices
    settings |= TOGETHER[name]
    found = [policy.sample(states(), backend=backend, **settings) for backend in BACKENDS_HERE]
    for each in found:
        assert torch.equal(each.candidate_indices, best)
        assert torch.equal(each.indices, found[0].indices)
        assert (each.indices[:, None] == best).any(dim=1).all()


@pytest.mark.parametrize("change,word", [
    ({"finish": 10}, "finish=10 of 9 candidates; finish at most as many"), ({"finish": 0}, "at least 1"),
    ({"finish": 3, "keep_share": 0.5}, "leave one of them out"), ({"finish": 1.5}, "whole number"),
    ({"finish": 3, "sampler": "ddpm"}, "finish=3 is for candidates that a student has drawn"),
    ({"finish": 3, "leaves": 3}, "share no steps"), ({"finish": 3, "guidance_scale": 1.0}, "has learnt"),
    ({"finish": 9, "guidance_scale": 1.0}, "has learnt"), ({"finish": 9, "leaves": 3}, "share no steps")])
def test_bad_settings_are_one_line(change, word):
    with pytest.raises(UsageError, match=word) as error:
        student_policy().sample(states(), seed=0, **{"n_candidates": 9} | change)
    assert "\n" not in str(error.value)


def test_a_policys_own_finish(tmp_path):
    """Fewer candidates than it finish all; another sampler than the student finishes none; cards keep it."""
    parts = student_policy().model.parts()
    own = parts["card"]["sampling"] | {"finish": 8, "n_candidates": 32}
    parts["card"] = parts["card"] | {"sampling": own}
    policy = type(student_policy())(**parts)
    again = load_policy(policy.save(tmp_path / "p"))
    assert again.settings() == policy.settings() and policy.settings().finish == 8
    assert policy.settings(n_candidates=3).finish == 3
    assert {policy.settings(sampler=name).finish for name in ("student", "ddpm")} == {None}
    want = policy.sample(states(), seed=1)
    for other in (again, pickle.loads(pickle.dumps(policy))):
        assert torch.equal(other.sample(states(), seed=1).actions, want.actions)
    assert "torch fp32 on" in policy.bind(backend="torch").carried_out_by


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("backend", BACKENDS_HERE)
def test_a_forked_child_drafts_and_finishes(backend):
    policy = student_policy()
    settings = {"n_candidates": N, "finish": K, "seed": SEED, "backend": backend}
    want = policy.sample(states(), **settings)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, pickle.dumps(policy.sample(states(), **settings).indices.tolist()))
        os._exit(0)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as file:
        assert pickle.load(file) == want.indices.tolist()
    os.close(writing)


def test_a_walk_that_overflows_names_the_candidate():
    """The draft is finite; of the finished the first bad one is named as it is counted without a draft."""
    policy = student_policy("not clipped")
    settings = {"n_candidates": N, "seed": SEED, "backend": "reference", "clip_denoised": False}
    first = policy.sample(states(), finish=K, return_candidates=True, **settings).candidate_indices[0, 0]
    assert first > 0
    with torch.no_grad():
        policy.model.network.output.weight.fill_(3e38)
    with pytest.raises(UsageError, match=f"candidate {first} of state 0 is not finite from denoising step 5"):
        policy.sample(states(), finish=K, **settings)
