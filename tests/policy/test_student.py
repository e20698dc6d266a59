"""A student draws: every backend against `reference.student`, selections, what it refuses, copies."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from conftest import INTERPRETED, poison_kernel_memory, relative_error
from students import KINDS, WALK, A, S, T, states, student_policy

from swg_fast import Sampler, UsageError, load_policy, reference
from swg_fast.method.student import StudentWalk
from swg_fast.policy.backends.registry import BACKENDS

FAST = [name for name in BACKENDS if name not in ("reference", "triton")]
# A call or two of fp32: some tens of roundings of 6e-8 each, grown by two hidden layers.
FP32 = 1e-5
# Layers in bf16 round to 2**-9 each.
BF16 = 3e-2


def by_hand(policy, indices, seed, temperature=1.0, beside=()):
    """Candidates `indices` of every state in double, without the policy's code: final z [4, n, A + 1] and
    the weights before the last clip [4, n]."""
    walk, n = policy.model.walk, len(indices)
    rows = states().repeat_interleave(n, 0)
    rows = torch.cat([rows, torch.tensor(beside).expand(len(rows), -1)], dim=1).double()
    c, s = torch.tensor(indices).repeat(4), torch.arange(4).repeat_interleave(n)
    z = temperature * reference.philox.normals(seed, c, s, T, A + 1)
    network = copy.deepcopy(policy.model.as_student().network).double()
    path = reference.student(network, rows, z.double(), sorted(walk.steps, reverse=True),
                             walk.weight_clip if walk.clip_denoised else None)
    return path.final.view(4, n, A + 1), path.weight.view(4, n)


BESIDE = {"a range": [-1 / 3], "a family": [1.0, 0.0, -1.0], "a family and a range": [1.0, 0.0, -1.0, -1 / 3]}


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_backend_draws_what_the_reference_does(kind, alone):
    """The range is 1 to 4, of which 2 is at -1/3 in [-1, 1]; the family's functions are two."""
    policy = student_policy(kind, beside=not alone)
    settings = {"n_candidates": 19, "temperature": 0.7, "seed": 2**40 + 5, "return_candidates": True,
                "guidance_scale": 2.0}
    if "family" in kind:
        settings["guidance"] = "expectile:0.6"
    z, weights = by_hand(policy, range(19), settings["seed"], 0.7, BESIDE.get(kind, []))
    kept = reference.keep(weights)
    assert len(weights.unique()) == 76  # not clipped, so that none tie
    for backend in (*FAST, "reference"):
        got = policy.sample(states(), backend=backend, **settings)
        assert relative_error(got.candidates, z[..., :-1]) < FP32
        assert relative_error(got.candidate_weights, weights) < FP32
        assert torch.equal(got.indices, kept)
        assert torch.equal(got.actions, got.candidates[torch.arange(4), kept])


@pytest.mark.parametrize("backend,dtype,bound", [
    ("torch", "fp64", 1e-6), ("reference", "fp64", 1e-6), ("torch", "bf16", BF16)])
def test_other_compute_types(backend, dtype, bound):
    """Results are float32, so that double is right to 6e-8 an entry."""
    policy = student_policy("two calls")
    got = policy.sample(states(), n_candidates=19, seed=3, return_candidates=True, backend=backend,
                        dtype=dtype)
    assert relative_error(got.candidates, by_hand(policy, range(19), 3)[0][..., :-1]) < bound


@pytest.mark.slow
@pytest.mark.skipif(not INTERPRETED, reason="a GPU is here: the kernels run on it")
@pytest.mark.parametrize("kind,settings", [
    ("one call", {}), ("two calls", {"select": "softmax"}), ("a range", {"chunk": 3, "guidance_scale": 2.0}),
    ("not clipped", {"select": "expected_weight", "ranking": "draws", "ranking_draws": 2}),
    ("one call", {"finish": 2})])
def test_the_fused_kernel_draws_from_a_student(kind, settings, monkeypatch):
    poison_kernel_memory(monkeypatch)
    policy = student_policy(kind)
    settings = {"n_candidates": 5, "seed": 3, "return_candidates": True} | settings
    expected = policy.sample(states(2), backend="reference", **settings)
    got = policy.sample(states(2), backend="triton", **settings)
    assert torch.equal(got.indices, expected.indices)
    assert relative_error(got.candidates, expected.candidates) < FP32
    assert relative_error(got.candidate_weights, expected.candidate_weights) < FP32
    assert relative_error(got.actions, expected.actions) < FP32


SELECTIONS = {
    "max_weight": {}, "max_q": {"select": "max_q"}, "softmax": {"select": "softmax"},
    "none": {"select": "none"}, "a ranker": {"select": "expected_weight", "ranking": "ranker"},
    "draws": {"select": "expected_weight"}, "read": {"select": "expected_weight", "ranking": "read"},
    "lower bound": {"select": "lcb_q"},
    "a share by draws": {"select": "max_q", "keep_share": 0.3},
    "a share by the ranker": {"keep_share": 0.3, "ranking": "ranker"}}


@pytest.mark.parametrize("name", SELECTIONS)
def test_selections(name):
    """Every selection keeps by its own score among the student's candidates, whatever the chunk."""
    policy, N, seed = student_policy("a family"), 23, 11
    settings = {"n_candidates": N, "seed": seed, "guidance": "expectile:0.6"} | SELECTIONS[name]
    z, weights = by_hand(policy, range(N), seed, beside=BESIDE["a family"])
    actions = z[..., :-1].reshape(4 * N, A).float()
    rows, member = states().repeat_interleave(N, 0), torch.tensor(BESIDE["a family"])
    coded = torch.cat([rows, member.expand(len(rows), -1)], dim=1)
    c, s = torch.arange(N).repeat(4), torch.arange(4).repeat_interleave(N)
    model = policy.model
    if settings.get("ranking") == "read":
        expected = reference.read_weight(model.network, coded, actions, T)
    elif settings.get("ranking") == "ranker":
        expected = model.ranker.minimum(rows, actions)
    else:
        ranking = policy.bind(select="expected_weight", guidance="expectile:0.6").plan.teacher.ranking
        assert (ranking.step, ranking.draws, ranking.mean) == (1, 8, pytest.approx(0.3))
        noise = torch.stack([reference.philox.normals(seed, c, s, word, A + 1) for word in ranking.words])
        expected = reference.expected_weight(
            model.network, model.schedule, coded, actions, noise.float(), 1, 0.3)
    said = model.critics(rows, actions).view(-1, 4, N)
    scores = {"max_weight": weights, "max_q": model.critic.minimum(rows, actions).view(4, N),
              "softmax": weights.clamp(min=1e-4).log()
              + reference.philox.gumbel(seed, c, s, T).view(4, N),
              "lcb_q": said.mean(0) - said.std(0, correction=0),
              "none": torch.zeros(4, N), "expected_weight": expected.view(4, N),
              }[settings.get("select", "max_weight")]
    share = settings.get("keep_share", 1.0)
    kept = reference.keep_among(scores, expected.view(4, N), share) if share < 1 else reference.keep(scores)
    for backend in (*FAST, "reference"):
        for chunk in (None, 7):
            got = policy.sample(states(), backend=backend, chunk=chunk, return_candidates=True, **settings)
            assert torch.equal(got.indices, kept), (backend, chunk)
            assert (got.expected_weights is None) == ("expected" not in str(settings) and share == 1)
            if got.expected_weights is not None:
                assert relative_error(got.expected_weights, expected.view(4, N)) < 1e-4  # eps over sigma


@pytest.mark.parametrize("change", [{"select": "support"}, {"select": "chi_squared"},
                                    {"select": "max_q", "keep_share": 0.3, "keep_by": "support"}])
def test_rankings_of_all_candidates_together(change):
    """Every backend and chunk keeps what the reference keeps; test_rankings.py has the scores."""
    policy = student_policy("a range")
    settings = {"n_candidates": 23, "seed": 11, "guidance_scale": 2.0} | change
    expected = policy.sample(states(), backend="reference", **settings)
    for backend in FAST:
        for chunk in (None, 7):
            got = policy.sample(states(), backend=backend, chunk=chunk, **settings)
            assert torch.equal(got.indices, expected.indices)
            assert relative_error(got.actions, expected.actions) < FP32


@pytest.mark.parametrize("backend", [*FAST, "reference"])
def test_a_candidate_depends_on_its_indices_alone(backend):
    policy = student_policy("a range", beside=False)
    settings = {"select": "none", "return_candidates": True, "backend": backend, "seed": 0}
    many = policy.sample(states(), n_candidates=64, **settings)
    few = policy.sample(states()[2], n_candidates=10, state_indices=[2], **settings)
    assert relative_error(few.candidates[0], many.candidates[2, :10]) < 1e-6
    cold = policy.sample(states(), n_candidates=1, **settings)
    assert relative_error(cold.candidates, by_hand(policy, [0], 0, 0.0, [0.0])[0][..., :-1]) < FP32


ALONE = {
    "another sampler": ({"sampler": "ddpm"}, "is a student and has no diffusion"),
    "a preset": ({"config": "fast"}, "is a student and has no diffusion"),
    "finish": ({"finish": 3}, "finish=3 needs the diffusion"),
    "finish all": ({"finish": 16}, "finish=16 needs the diffusion"),
    "draws": ({"select": "expected_weight"}, "ranking='draws' needs the diffusion"),
    "a share by draws": ({"keep_share": 0.5}, "ranking='draws' needs the diffusion"),
    "read": ({"select": "expected_weight", "ranking": "read"}, "ranking='read' needs the diffusion"),
    "support": ({"select": "support"}, "support needs the diffusion"),
    "a share by support": ({"keep_share": 0.5, "keep_by": "support"}, "support needs the diffusion")}
BOTH = {
    "a tree": ({"leaves": 4}, "share no steps"), "a branch": ({"branch_after": 1}, "use leaves=1"),
    "a tree of a student": ({"sampler": "student", "leaves": 2}, "share no steps"),
    "steps": ({"sampler_steps": 3}, "takes 1 call"),
    "a scale": ({"guidance_scale": 2.5}, "has learnt guidance_scale=2; use that"),
    "a clip": ({"weight_clip": (0.1, 1.0)}, "has learnt a walk with \\(0.0001, 1.0\\)"),
    "a read-out": ({"weight_readout": "official"}, "has learnt a walk with 'exact'"),
    "no clipping": ({"clip_denoised": False}, "has learnt a walk with True"),
    "guidance": ({"guidance": "dice"}, "trained with one weight function")}


@pytest.mark.parametrize("beside,change,word", [
    *((False, *case) for case in (ALONE | BOTH).values()), *((True, *case) for case in BOTH.values())])
def test_what_a_student_cannot_do_is_one_line(beside, change, word):
    with pytest.raises(UsageError, match=word) as error:
        student_policy(beside=beside).sample(states(), seed=0, **change)
    assert "\n" not in str(error.value)


def test_a_decision_that_would_not_end():
    with pytest.raises(UsageError, match="1 steps and 65,536 ranking_draws would take"):
        student_policy().bind(n_candidates=2**32, select="expected_weight", ranking_draws=2**16)


@pytest.mark.parametrize("scale", [0.99, 4.01])
def test_a_scale_outside_the_range(scale):
    with pytest.raises(UsageError, match="has learnt guidance_scale=1 to 4; use that"):
        student_policy("a range").sample(states(), guidance_scale=scale, seed=0)


def test_what_is_not_named_stays_as_the_student_has_it():
    """A student's scale where none is named; no tree where none is named; a sampler that is named walks."""
    policy = student_policy("a range", beside=True)
    plain = policy.model.parts()
    plain["card"] = {name: entry for name, entry in plain["card"].items() if name != "sampling"}
    bare = type(policy)(**plain)
    assert bare.settings().sampler == "ddpm" and bare.settings().guidance_scale == 1.0
    assert bare.settings(sampler="student").guidance_scale == 2.5
    assert bare.settings(sampler="student", guidance_scale=3).guidance_scale == 3.0
    assert policy.settings(n_candidates=1024, leaves="auto").leaves == 1
    assert policy.settings("fast").sampler == "dpmpp_2m"
    assert policy.sample(states(), "fast", sampler_steps=3, seed=1).actions.shape == (4, A)
    del plain["student"]
    with pytest.raises(UsageError, match="has no student; make one with 'swg-fast distill'"):
        type(policy)(**plain | {"card": {}, "network": bare.model.network}).bind(sampler="student")


@pytest.mark.parametrize("parts,word", [
    ({"card": {}}, "does not say under 'distilled'"), ({"card": {"distilled": {}}}, "has no walk"),
    ({"card": {"distilled": {"walk": WALK | {"guidance_scale": [1.0, 4.0]}}}}, "student is for states of 4"),
    ({"card": {"distilled": {"walk": WALK | {"steps": [T]}}}}, "calls at the trained steps 6, .*0..5"),
    ({"card": {"distilled": {"walk": WALK | {"sampler_steps": T + 1}}}}, "walk of 7 steps"),
    ({"student": 3}, "expected ScoreNetwork or None")])
def test_parts_that_do_not_fit(parts, word):
    with pytest.raises(UsageError, match=word):
        type(policy := student_policy())(**policy.model.parts() | parts)


def test_a_students_table_has_a_row_a_call():
    walk = StudentWalk.from_card({"distilled": {"walk": WALK | {"steps": [2, 5]}}})
    table = walk.table(T, 0.5)
    assert (table.num_steps, table.steps, table.initial, table.guided) == (2, (2, 5), 0.5, False)
    assert not table.multistep and not table.coefficients[:, 7].any()  # draws no noise on the way


@pytest.mark.parametrize("beside", [True, False])
def test_a_policy_survives_saving_copying_and_pickling(beside, tmp_path):
    policy = student_policy("a family and a range", beside)
    want = policy.sample(states(), n_candidates=9, seed=4)
    for again in (load_policy(policy.save(tmp_path / "p")), copy.deepcopy(policy),
                  pickle.loads(pickle.dumps(policy))):
        assert (again.config, again.execution, again.state_dim) == (policy.config, policy.execution, S)
        got = again.sample(states(), n_candidates=9, seed=4)
        assert torch.equal(got.actions, want.actions) and torch.equal(got.indices, want.indices)
        assert (again.model.student is not None) == beside and again.model.has_diffusion == beside
        assert again.model.walk == policy.model.walk


@pytest.mark.parametrize("settings", [{}, {"finish": 3}, {"select": "expected_weight"}])
def test_bound_samplers_and_operators(settings):
    policy = student_policy("a range")
    bound = policy.bind(n_candidates=9, **settings)
    want = policy.sample(states(), n_candidates=9, seed=4, **settings)
    operator = Sampler(policy, n_candidates=9, **settings)
    for got in (bound.draw(states(), 4), pickle.loads(pickle.dumps(bound)).sample(states(), seed=4)):
        assert torch.equal(got.actions, want.actions) and torch.equal(got.indices, want.indices)
    for again in (operator, copy.deepcopy(operator)):
        actions, weights, indices = again(states(), torch.tensor(4))
        assert torch.equal(actions, want.actions) and torch.equal(indices, want.indices)
        assert torch.equal(weights, want.weights)
