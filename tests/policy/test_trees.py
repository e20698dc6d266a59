"""Trees and rankings: every backend against the reference, which walks each candidate separately."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from conftest import every_pair, make_network, relative_error

from swg_fast import Policy, UsageError, load_policy, reference
from swg_fast.kernels.shared.sampler_table import Tree
from swg_fast.method.networks import Ranker
from swg_fast.method.samplers import sampler_table
from swg_fast.policy.backends.registry import BACKENDS
from swg_fast.policy.search_plan import plan_tree

FAST = [name for name in BACKENDS if name not in ("reference", "triton")]
EVERYTHING = {"guidance_scale": 3.0, "temperature": 1.0, "return_candidates": True, "ranking_mean": 0.3,
              "seed": 2**33 + 7, "dtype": "fp32"}


@pytest.fixture(scope="module", params=["early", "joint"])
def policy(request, critic, schedule):
    return Policy(make_network(5, 3, 64, 3, request.param), schedule, critic)


@pytest.fixture(scope="module")
def states():
    return torch.randn(3, 5, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("sampler,steps,shared", [("ddpm", None, 12), ("ddpm_x0", None, 1),
                                                  ("dpmpp_2m_sde", 6, 4), ("dpmpp_2m_sde", 3, 1)])
@pytest.mark.parametrize("backend", FAST)
def test_a_tree_is_the_references(policy, states, backend, sampler, steps, shared):
    keywords = EVERYTHING | {"n_candidates": 35, "sampler": sampler, "sampler_steps": steps}
    tree = {"leaves": 5, "branch_after": shared}
    expected = policy.sample(states, backend="reference", **keywords, **tree)
    got = policy.sample(states, backend=backend, **keywords, **tree)
    assert relative_error(got.candidates, expected.candidates) < 1e-4
    assert torch.equal(got.indices, expected.indices)
    alone = policy.sample(states, backend=backend, **keywords)
    assert torch.equal(got.candidates[:, ::5], alone.candidates[:, ::5])  # first leaves, to the bit
    assert torch.equal(got.candidate_weights[:, ::5], alone.candidate_weights[:, ::5])
    assert len(got.candidate_weights.unique()) > 70  # of 105 leaves of 21 roots; some end in one corner


@pytest.mark.parametrize("chunk,select,backend", every_pair(
    (1, 7, 50, 4096), ("max_weight", "expected_weight", "max_q", "softmax"), FAST))
def test_any_chunk_and_selection(policy, states, backend, chunk, select):
    keywords = EVERYTHING | {"n_candidates": 96, "sampler": "dpmpp_2m_sde", "sampler_steps": 4, "leaves": 8,
                             "select": select, "ranking_draws": 2, "backend": backend}
    whole = policy.sample(states, **keywords)
    parts = policy.sample(states, chunk=chunk, **keywords)
    assert torch.equal(parts.indices, whole.indices)
    assert relative_error(parts.candidates, whole.candidates) < 1e-6
    expected = policy.sample(states, **keywords | {"backend": "reference"})
    assert torch.equal(whole.indices, expected.indices)


@pytest.mark.parametrize("backend", FAST)
def test_roots_are_walked_once(policy, states, backend, monkeypatch):
    used, rows = policy.backend(backend, "fp32"), []
    walk = used.walk

    def counting(job, vectors, words, part, start):
        rows.append((len(words.owners), list(part)))
        return walk(job, vectors, words, part, start)

    monkeypatch.setattr(used, "walk", counting)
    policy.sample(states[:1], n_candidates=64, backend=backend, dtype="fp32", leaves=16, branch_after=10,
                  chunk=32, seed=0)
    early, late = list(range(14, 4, -1)), list(range(4, -1, -1))
    assert rows == [(2, early), (32, late), (2, early), (32, late)]


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_expected_weight_is_its_formula(policy, states, backend):
    """From philox to the average by hand; T = 15, so draw k has the step word 17 + k."""
    got = policy.sample(states, backend=backend, **EVERYTHING, n_candidates=9, select="expected_weight",
                        ranking_draws=3, ranking_step=2)
    c, s = torch.arange(9).repeat(3), torch.arange(3).repeat_interleave(9)
    noise = torch.stack([reference.philox.normals(EVERYTHING["seed"], c, s, 17 + k, 4) for k in range(3)])
    expected = reference.expected_weight(
        policy.model.network, policy.model.schedule, states.repeat_interleave(9, 0),
        got.candidates.flatten(0, 1), noise, 2, 0.3).view(3, 9)
    assert relative_error(got.expected_weights, expected) < 1e-5
    assert torch.equal(got.indices, expected.argmax(1))


@pytest.mark.parametrize("select,share,backend", every_pair(
    ("max_weight", "expected_weight", "max_q", "softmax", "none"), (0.01, 0.25, 0.6), FAST))
def test_a_share_is_chosen_from(policy, states, backend, select, share):
    keywords = EVERYTHING | {"n_candidates": 40, "select": select, "keep_share": share, "ranking_draws": 2,
                             "backend": backend, "selection_temperature": 0.5}
    drawn = policy.sample(states, **keywords)
    rows = states.repeat_interleave(40, 0)
    scores = {
        "max_weight": drawn.candidate_weights, "expected_weight": drawn.expected_weights,
        "max_q": policy.model.critic.minimum(rows, drawn.candidates.flatten(0, 1)).view(3, 40),
        "softmax": 2 * drawn.candidate_weights.clamp(min=1e-4).log() + reference.philox.gumbel(
            EVERYTHING["seed"], torch.arange(40)[None], torch.arange(3)[:, None], 15),
        "none": torch.zeros(3, 40)}[select]
    assert torch.equal(drawn.indices, reference.keep_among(scores, drawn.expected_weights, share))
    assert torch.equal(drawn.actions, drawn.candidates[torch.arange(3), drawn.indices])
    streamed = policy.sample(states, **keywords | {"return_candidates": False}, chunk=7)
    assert torch.equal(streamed.indices, drawn.indices)


READS = {"training": {"settings": {"read_share": 0.1}}}


@pytest.mark.parametrize("backend", FAST)
def test_a_network_reads_the_expected_weight(policy, states, backend):
    """The network reads at step T, from clean actions and a weight entry of 0; other networks are refused."""
    model = policy.model
    taught = Policy(model.network, model.schedule, model.critic, card=READS)
    chosen = {"select": "expected_weight", "ranking": "read"}
    keywords = EVERYTHING | {"n_candidates": 37, "sampler": "dpmpp_2m_sde", "sampler_steps": 3} | chosen
    got = taught.sample(states, **keywords, backend=backend)
    expected = taught.sample(states, **keywords, backend="reference")
    assert relative_error(got.expected_weights, expected.expected_weights) < 1e-4
    z = torch.cat([got.candidates, torch.zeros(3, 37, 1)], dim=2).flatten(0, 1)
    with torch.no_grad():
        eps = model.network(z, states.repeat_interleave(37, 0), torch.tensor(15))
    assert relative_error(got.expected_weights.flatten(), -eps[:, -1]) < 1e-4
    assert torch.equal(got.indices, got.expected_weights.argmax(1))
    with pytest.raises(UsageError, match="--read-share"):
        policy.sample(states, n_candidates=8, **chosen)


@pytest.fixture
def ranked(policy):
    torch.manual_seed(5)
    model = policy.model
    return Policy(model.network, model.schedule, model.critic, ranker=Ranker(5, 3, 16))


@pytest.mark.parametrize("select,share", [("expected_weight", 1.0), ("max_q", 0.25), ("max_weight", 0.25)])
@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_a_ranker_ranks_and_filters(ranked, states, backend, select, share):
    """The ranker's two networks by hand: every backend ranks its candidates by the same values."""
    n = 40
    keywords = EVERYTHING | {"n_candidates": n, "select": select, "keep_share": share, "backend": backend,
                             "ranking": "ranker", "sampler": "dpmpp_2m_sde", "sampler_steps": 3}
    drawn = ranked.sample(states, **keywords)
    rows = torch.cat([states.repeat_interleave(n, 0), drawn.candidates.flatten(0, 1)], dim=1)
    net = ranked.model.ranker
    for weight, bias in zip(net.weights, net.biases, strict=True):
        rows = torch.stack([(rows if rows.ndim == 2 else rows[i]) @ weight[i] + bias[i] for i in range(2)])
        rows = rows.relu() if weight.shape[-1] > 1 else rows
    expected = rows.amin(0).view(3, n)
    assert relative_error(drawn.expected_weights, expected) < 1e-5
    scores = {"expected_weight": expected, "max_weight": drawn.candidate_weights,
              "max_q": ranked.model.critic.minimum(
                  states.repeat_interleave(n, 0), drawn.candidates.flatten(0, 1)).view(3, n)}[select]
    assert torch.equal(drawn.indices, reference.keep_among(scores, drawn.expected_weights, share))
    streamed = ranked.sample(states, **keywords | {"return_candidates": False}, chunk=13)
    assert torch.equal(streamed.indices, drawn.indices)


def test_a_ranker_is_asked_for_and_saved(ranked, policy, states, tmp_path):
    chosen = {"n_candidates": 8, "select": "expected_weight", "ranking": "ranker", "seed": 0}
    with pytest.raises(UsageError, match="swg-fast rank POLICY --rankers 2"):
        policy.sample(states, **chosen)
    with pytest.raises(UsageError, match="unknown ranking 'x'"):
        policy.sample(states, n_candidates=8, ranking="x", seed=0)
    with pytest.raises(UsageError, match="the ranker is for states of 4"):
        Policy(ranked.model.network, ranked.model.schedule, ranker=Ranker(4, 3, 16))
    with pytest.raises(UsageError, match="expected Ranker or None"):
        Policy(ranked.model.network, ranked.model.schedule, ranker=ranked.model.critic)
    again = load_policy(ranked.save(tmp_path / "p"))
    assert torch.equal(again.sample(states, **chosen).actions, ranked.sample(states, **chosen).actions)
    assert load_policy(policy.save(tmp_path / "q")).model.ranker is None


def test_ties_in_a_share_go_to_the_lowest_index(schedule):
    policy = Policy(make_network(5, 3), schedule)
    with pytest.warns(UserWarning, match="temperature 0"):
        drawn = policy.sample(torch.zeros(2, 5), n_candidates=12, temperature=0.0, keep_share=0.5,
                              select="max_weight",
                              ranking_mean=0.3, ranking_draws=1, chunk=5, return_candidates=True, seed=0)
    ranked = drawn.expected_weights.argsort(dim=1, descending=True)[:, :6]
    assert torch.equal(drawn.indices, ranked.amin(dim=1))  # all weights are one, so the lowest index


@pytest.mark.parametrize("change,word", [
    ({"leaves": 7}, "no whole number of roots"), ({"sampler": "ddim"}, "all leaves of a root would be one"),
    ({"sampler": "dpmpp_2m"}, "without noise"), ({"temperature": 0.0}, "temperature 0"),
    ({"branch_after": 14}, "1..13"), ({"branch_after": 0}, "branch_after"), ({"leaves": 0}, "leaves"),
    ({"leaves": 1, "branch_after": 3}, "leaves of 2 or more"), ({"leaves": "x"}, "leaves must be a whole"),
    ({"leaves": "auto", "branch_after": 3}, "needs a number of leaves"),
    ({"sampler": "dpmpp_2m_sde", "sampler_steps": 2}, "3 steps or more"),
    ({"keep_share": 0.0}, "keep_share"), ({"keep_share": 1.5}, "keep_share"),
    ({"select": "expected_weight"}, "ranking_mean"), ({"keep_share": 0.5}, "does not record"),
    ({"select": "expected_weight", "ranking_mean": 0.3, "ranking_step": 15}, "0..14"),
    ({"ranking_draws": 0}, "ranking_draws")], ids=lambda v: "-".join(v) if isinstance(v, dict) else "")
@pytest.mark.filterwarnings("ignore:temperature 0")
def test_bad_input_is_named(policy, states, change, word):
    with pytest.raises(UsageError, match=word) as error:
        policy.sample(states, **({"n_candidates": 32, "temperature": 1.0, "leaves": 4} | change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("n,shared", [(3, 1), (4, 2), (6, 4), (15, 12)])
def test_where_a_tree_branches_by_itself(schedule, n, shared):
    table = sampler_table("dpmpp_2m_sde", schedule, n, guidance_scale=1.0, temperature=1.0)
    assert plan_tree(table, 64, 16, None) == Tree(16, shared)


@pytest.mark.parametrize("change,leaves", [
    ({}, 16), ({"n_candidates": 255}, 1), ({"n_candidates": 250}, 1), ({"n_candidates": 264}, 1),
    ({"temperature": 0.0}, 1), ({"sampler": "ddim"}, 1), ({"sampler": "dpmpp_2m_sde", "sampler_steps": 2}, 1),
    ({"sampler": "dpmpp_2m_sde", "sampler_steps": 3}, 16)])
def test_what_auto_picks(policy, change, leaves):
    config = policy.settings(**{"n_candidates": 256, "leaves": "auto"} | change)
    assert (config.leaves, config.branch_after) == (leaves, None)
    assert policy.settings(config) == config == policy.settings(**asdict(config))


def test_a_cards_tree_and_mean(schedule, states):
    """A card may have a tree as its default; a call whose settings do not fit the tree samples without it."""
    policy = Policy(make_network(5, 3), schedule, card={
        "sampling": {"sampler": "dpmpp_2m_sde", "sampler_steps": 6, "n_candidates": 32, "leaves": 16,
                     "select": "expected_weight"},
        "training": {"weights": {"mean": 0.25}}})
    drawn = policy.sample(states, seed=0)
    same = policy.sample(states, n_candidates=32, select="expected_weight", sampler="dpmpp_2m_sde",
                         sampler_steps=6, leaves=16, branch_after=4, ranking_mean=0.25, ranking_step=3,
                         ranking_draws=8, seed=0)
    assert torch.equal(drawn.indices, same.indices)
    assert policy.settings(n_candidates=20).leaves == policy.settings(sampler="ddim").leaves == 1
    assert policy.settings(n_candidates=64).leaves == 16
    assert policy.settings(sampler="ddpm").sampler_steps is None
    policy.predict(states.numpy(), deterministic=True)
