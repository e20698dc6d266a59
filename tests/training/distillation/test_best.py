"""A student of what its teacher keeps of many candidates: the pairs, the policy, the refusals."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from conftest import relative_error
from small_students import SMALL, S, observations, small_data, small_distill, small_teacher

from swg_fast import UsageError, load_policy
from swg_fast.common.seeds import stream_seed
from swg_fast.policy.checkpoint import save_checkpoint
from swg_fast.training.distillation.best import SHARED, paired
from swg_fast.training.distillation.pairs import BEYOND, PairMaker
from swg_fast.training.distillation.run import Teaching
from swg_fast.training.distillation.settings import DistillSettings

N = 12


def make(family: bool = False, changes: dict[str, object] | None = None, **defaults: object) -> PairMaker:
    settings = DistillSettings(**SMALL | {"of_best": N} | (changes or {}))
    teaching = Teaching.of(small_teacher(family, **defaults), settings)
    return PairMaker(teaching.teacher, teaching.walk, observations(small_data()), settings, "train")


@pytest.mark.parametrize("select", ["max_weight", "max_q", "expected_weight"])
@pytest.mark.parametrize("family", [False, True])
def test_pairs_end_at_what_the_teacher_keeps(select, family):
    """Each pair has candidates of its own; within a state's pairs they stand in another order."""
    maker = make(family, select=select)
    drawn, ends = maker.drawn(0, 100), maker.ends(0, 100)
    assert ends.shape == (100, 1, 3) and bool((drawn.rows[:SHARED] == drawn.rows[0]).all())
    assert len(drawn.rows.unique()) > 8
    numbers = torch.arange(SHARED, 2 * SHARED)
    kept = maker.teacher.sample(
        maker.states[drawn.rows[numbers]], n_candidates=N, seed=stream_seed(maker.seed, "best"),
        state_indices=numbers, guidance=drawn.groups[0].guidance, guidance_scale=1.0)
    low, high = maker.walk.weight_clip
    weights = kept.weights[:, None].clamp(low - BEYOND, high + BEYOND)
    both = torch.cat([kept.actions, weights], dim=1), ends[SHARED:2 * SHARED, 0]
    assert len(both[0].unique(dim=0)) > 2
    ordered = [torch.tensor(sorted(rows.round(decimals=4).tolist())) for rows in both]
    assert (ordered[0] - ordered[1]).abs().max() < 2e-4  # float32, in calls of other sizes


def test_candidates_have_the_temperature_that_was_asked_for():
    cool, own = make(changes={"temperature": 0.25}), make(temperature=0.25)
    assert torch.equal(cool.ends(0, 16), own.ends(0, 16))
    assert not torch.equal(cool.ends(0, 16), make().ends(0, 16))


def test_noise_is_paired_with_what_lies_in_its_direction():
    kept, noise = torch.randn(2, 8 * 5, 3, generator=torch.Generator().manual_seed(0))
    best = paired(kept, noise)
    for rows in range(0, 40, SHARED):
        some, z, found = (x[rows:rows + SHARED] for x in (kept, noise, best))
        assert {tuple(row) for row in some.tolist()} == {tuple(row) for row in found.tolist()}
        distance = (found[:5, :2] - z[:5, :2]).square().sum()  # of any five of them, too, it is the least
        others = [(found[list(order), :2] - z[:5, :2]).square().sum() for order in permutations(range(5))]
        assert float(distance) <= float(min(others)) + 1e-5


def test_a_mean_has_a_state_of_its_own_in_every_pair():
    """There is nothing for its noise to choose among."""
    maker = make(changes={"average_share": 0.5})
    rows = maker.drawn(0, 64).rows
    assert len(rows.unique()) > 32
    kept = maker.teacher.sample(maker.states[rows], n_candidates=N, average_share=0.5, guidance_scale=1.0,
                                seed=stream_seed(maker.seed, "best"), state_indices=torch.arange(64))
    assert relative_error(maker.ends(0, 64)[:, 0, :2], kept.actions) < 1e-5
    assert make(average_share=0.5).shared == 1 and make(average_share=1 / N).shared == SHARED


def test_packed_rows_hold_the_noise_that_was_paired():
    maker = make(changes={"cold_share": 1.0})
    ends = maker.ends(0, 64)
    rows = maker.packed(0, ends)[0]
    z = rows[:, :3] + rows[:, 3 + S:-1]  # 2 z - z', state, z' - z, step
    assert relative_error(z + rows[:, 3 + S:-1], ends[:, 0]) < 1e-6
    assert bool((paired(ends[:, 0], z) == ends[:, 0]).all())  # paired already: nothing moves


@pytest.mark.parametrize("share", [None, 0.05])
def test_a_student_of_the_best_draws_near_it(tmp_path, share):
    """Of a teacher whose critic likes one action, one draw of the student is nearer to it than one of the
    teacher."""
    teacher = small_teacher(select="max_q")
    critic = teacher.model.critic
    with torch.no_grad():
        for weight in critic.weights:
            weight.zero_()
        critic.weights[0][:, S, 0] = 1.0  # the first entry of the action decides
        for weight in critic.weights[1:]:
            weight[:, 0, 0] = 1.0
    changes = {"of_best": 64, "steps": 400, "learning_rate": 3e-3, "average_share": share}
    policy = load_policy(small_distill(tmp_path / "a", teacher, changes=changes, every=100,
                                       with_teacher=True))
    states = observations(small_data())
    first = {name: float(policy.sample(states, seed=3, n_candidates=1, temperature=1.0, sampler=name
                                       ).actions[:, 0].mean()) for name in ("student", "dpmpp_2m")}
    best = float(policy.sample(states, seed=3, n_candidates=64, sampler="dpmpp_2m").actions[:, 0].mean())
    assert first["student"] > (first["dpmpp_2m"] + best) / 2
    assert policy.card["distilled"]["walk"]["of_best"] == 64
    assert (policy.config.n_candidates, policy.config.average_share) == (1, 0.0)
    with pytest.raises(UsageError, match="the best of 64"):
        policy.sample(states[:1], n_candidates=8, finish=4)


def test_its_ranking_is_part_of_its_identity(tmp_path):
    def identity(**defaults: object) -> str:
        return Teaching.of(small_teacher(**defaults), DistillSettings(**SMALL | {"of_best": N})).identity

    assert identity() == identity() != identity(select="max_q")
    cool = DistillSettings(**SMALL | {"of_best": N, "temperature": 0.25})
    assert Teaching.of(small_teacher(), cool).identity == identity(temperature=0.25) != identity()
    mean = DistillSettings(**SMALL | {"of_best": N, "average_share": 0.5})
    assert Teaching.of(small_teacher(), mean).identity == identity(average_share=0.5) != identity()
    plain = [Teaching.of(small_teacher(select=select), DistillSettings(**SMALL)).identity
             for select in ("max_weight", "max_q")]
    assert plain[0] == plain[1]  # where walks end, no ranking decides
    card = small_teacher().model.card | {"distilled": {"walk": None}}
    with pytest.raises(UsageError, match="distilled"):
        load_policy(save_checkpoint(tmp_path / "p", small_teacher().model.with_card(**card)))


@pytest.mark.parametrize(("changes", "defaults", "why"), [
    ({"of_best": None, "temperature": 0.5}, {}, "temperature=0.5"),
    ({"of_best": None, "average_share": 0.5}, {}, "average_share=0.5 is that of the candidates"),
    ({"calls": 2}, {}, "calls=2"), ({"guidance_range": (0.0, 2.0)}, {}, "guidance_range"),
    ({}, {"select": "none"}, "keeps the first"), ({"of_best": 1}, {}, "of_best")])
def test_what_has_no_best_is_refused(changes, defaults, why):
    with pytest.raises(UsageError, match=why):
        make(changes=changes, **defaults)
