"""Whole distillations: what comes out, that it comes out again, and what a run leaves on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import relative_error
from safetensors.torch import load_file
from small_students import (
    SMALL,
    A,
    S,
    observations,
    refused,
    same_weights,
    small_data,
    small_distill,
    small_teacher,
    use_small_shards,
)

from swg_fast import UsageError, load_policy
from swg_fast.policy.backends.registry import BACKENDS
from swg_fast.policy.checkpoint import CARD
from swg_fast.training.distillation import run
from swg_fast.training.distillation.pairs import BEYOND, PairMaker
from swg_fast.training.distillation.run import Teaching
from swg_fast.training.distillation.settings import DistillSettings
from swg_fast.training.distillation.trainer import StudentTrainer
from swg_fast.training.loop import Diverged, Interrupted
from swg_fast.training.run_folder import read_record

HERE = [name for name in BACKENDS if name != "triton"]
KINDS = {
    "two calls": {"calls": 2}, "four calls": {"calls": 4}, "a range": {"guidance_range": (0.5, 3.0)},
    "a family": {}, "a width of its own": {"hidden_dim": 24, "num_blocks": 3},
    "all steps of ddim": {"sampler": "ddim", "sampler_steps": None}, "one pair": {"pairs": 1, "batch": 1},
    "the best of 4": {"of_best": 4}}


def distilled(out, kind, **more):
    """The policy that a distillation of one of `KINDS` leaves, read by everything that reads one."""
    folder = small_distill(out, small_teacher(kind == "a family"), changes=KINDS[kind], every=40, **more)
    json.loads((folder / CARD).read_text(), parse_constant=refused)  # no NaN
    return load_policy(folder)


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_backend_draws_from_what_comes_out(kind, beside, tmp_path):
    """Two float32 backends, a call or a few: some tens of roundings."""
    policy = distilled(tmp_path / "r", kind, with_teacher=beside)
    assert policy.settings().sampler == "student" and policy.model.has_diffusion == beside
    states, ways = observations(small_data())[:3], [{}]
    if beside:
        ways += [{"finish": 3}] if kind != "the best of 4" else []
        ways += [{"select": "expected_weight"}, {"sampler": "ddpm"}]
    for way in ways:
        found = [policy.sample(states, seed=1, backend=name, **way) for name in HERE]
        for each in found:
            assert torch.equal(each.indices, found[0].indices)
            assert relative_error(each.actions, found[0].actions) < 1e-4
    if not beside:
        with pytest.raises(UsageError, match="is a student itself"):
            Teaching.of(policy, DistillSettings())


def test_a_student_learns_where_its_teachers_walks_end(tmp_path):
    """The error in the card is that of what the two policies draw from the held-out pairs. It is well below
    the spread, and below the error after one step."""
    more = {"steps": 600, "pairs": 2000, "learning_rate": 3e-3}
    teacher, settings = small_teacher(), DistillSettings(**SMALL | more)
    data = small_data()
    folder = small_distill(tmp_path / "r", teacher, data, more, every=600, with_teacher=True)
    policy = load_policy(folder)
    held = observations(data)[data.held_out(settings.held_out, settings.seed)]
    maker = PairMaker(teacher, policy.model.walk, held, settings, "held-out")
    rows = maker.states[maker.drawn(0, 2000).rows]
    ends = []
    for sampler in ({"sampler": "student"}, {"sampler": "dpmpp_2m", "sampler_steps": 4}):
        drawn = policy.sample(rows, n_candidates=1, temperature=1.0, seed=maker.seed, **sampler)
        ends.append(torch.cat([drawn.actions, drawn.weights[:, None]], dim=1))
    student, walked = ends
    low, high = policy.model.walk.weight_clip
    walked[:, -1].clamp_(low - BEYOND, high + BEYOND)
    error = policy.card["distilled"]["held_out_error"]
    rmse = (student - walked).square().mean(0).sqrt()
    assert error["pairs"] == 2000
    assert error["action_rmse_by_entry"] == pytest.approx(rmse[:-1].tolist(), abs=2e-5)
    assert error["weight_rmse"] == pytest.approx(float(rmse[-1]), abs=2e-5)
    assert error["action_spread"] == pytest.approx(float(walked[:, :-1].var(0).mean().sqrt()), rel=1e-3)
    correlation = np.corrcoef(torch.stack([student[:, -1], walked[:, -1]]).numpy())[0, 1]
    assert error["weight_correlation"] == pytest.approx(correlation, abs=2e-4)
    found = load_file(tmp_path / "r" / "logs" / run.FOUND)
    assert relative_error(found["student"], student) < 1e-4
    assert relative_error(found["teacher"], walked) < 1e-4
    short = small_distill(tmp_path / "s", teacher, data, more | {"steps": 1})
    unlearnt = load_policy(short).card["distilled"]["held_out_error"]["action_rmse"]
    assert error["action_rmse"] < 0.6 * min(unlearnt, error["action_spread"])


def test_the_seed_decides_the_student(tmp_path):
    """Whatever torch's own seed is; pairs are kept where that is asked for."""
    torch.manual_seed(1)
    folders = [small_distill(tmp_path / "a")]
    torch.manual_seed(2)
    folders.append(small_distill(tmp_path / "b", keep_pairs=True))
    assert same_weights(*folders)
    assert not same_weights(folders[0], small_distill(tmp_path / "c", changes={"seed": 1}))
    assert not (tmp_path / "a" / "pairs").exists()
    kept = sorted(path.name for path in (tmp_path / "b" / "pairs").iterdir())
    assert kept == ["held-out-000000.safetensors", "train-000000.safetensors"]
    assert read_record(tmp_path / "a" / "run.json", "distill").settings["seed"] == 0


class Killed(BaseException):
    """In the place of kill -9: no code of the run goes on."""


@pytest.mark.parametrize("kind", ["two calls", "a family", "the best of 4"])
def test_killed_and_resumed_it_is_the_same_student(kind, tmp_path, monkeypatch):
    """At the first and at a later shard of each set, at a step without a state, at a saved step, at the
    measurement and at the end; then the whole run."""
    use_small_shards(monkeypatch)
    straight = small_distill(tmp_path / "a", small_teacher(kind == "a family"), changes=KINDS[kind])
    drawn, honest = [], PairMaker.ends
    left = {("held-out", 0), ("held-out", 1), ("train", 0), ("train", 2)}

    def dying(self, shard, count):
        place = (self.name, shard)
        if place in left:
            left.remove(place)
            raise Killed
        drawn.append(place)
        return honest(self, shard, count)

    def go(resume=True, **more):
        return small_distill(tmp_path / "b", small_teacher(kind == "a family"), changes=KINDS[kind],
                             resume=resume, **more)

    monkeypatch.setattr(PairMaker, "ends", dying)
    for number in range(4):
        with pytest.raises(Killed):
            go(resume=number > 0)
    with pytest.raises(UsageError, match="already holds a run; add --resume"):
        go(resume=False)
    with monkeypatch.context() as patch:
        steps = {"steps": StudentTrainer.steps, "step": StudentTrainer.step}

        def late(name):
            def call(self, *arguments):
                if len(list((tmp_path / "b" / "states").glob("*"))) == 2:
                    raise Killed
                return steps[name](self, *arguments)
            return call

        for name in steps:
            patch.setattr(StudentTrainer, name, late(name))
        with pytest.raises(Killed):
            go()
    with pytest.raises(Interrupted, match="student stopped at step 30"):
        go(stop_after=30)
    with monkeypatch.context() as patch:
        patch.setattr(run, "measure", lambda *arguments: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            go()
    assert not (tmp_path / "b" / "policy").exists()
    assert same_weights(straight, go())
    assert sorted(drawn) == [("held-out", 0), ("held-out", 1), ("train", 0), ("train", 1), ("train", 2)]
    assert same_weights(straight, go())  # once more, when all is done


def test_another_runs_states_and_settings_are_refused(tmp_path):
    with pytest.raises(Interrupted):
        small_distill(tmp_path / "r", stop_after=20)
    for teacher, changes, word in (
            (None, {"seed": 1}, r"\(seed\)"), (None, {"steps": 41}, r"\(steps\)"),
            (small_teacher(seed=1), {}, r"\(teacher\)"),
            (small_teacher(guidance_scale=2.0), {}, r"\(teacher\)"),
            (None, {"guidance_range": (0.0, 1.0)}, "guidance_range")):
        with pytest.raises(UsageError, match=f"other settings.*{word}"):
            small_distill(tmp_path / "r", teacher, changes=changes, resume=True)
    with pytest.raises(UsageError, match="another dataset"):
        small_distill(tmp_path / "r", data=small_data(9), resume=True)
    with pytest.raises(UsageError, match="nothing to resume"):
        small_distill(tmp_path / "s", resume=True)
    assert not (tmp_path / "s").exists()


def test_a_folder_of_pairs_that_no_run_made_stays(tmp_path):
    (tmp_path / "r" / "pairs").mkdir(parents=True)
    (tmp_path / "r" / "pairs" / "train-000000.safetensors").write_text("mine")
    with pytest.raises(UsageError, match="already has a folder 'pairs' that no run here has made"):
        small_distill(tmp_path / "r")
    assert (tmp_path / "r" / "pairs" / "train-000000.safetensors").read_text() == "mine"


def test_data_of_other_sizes_and_of_one_episode(tmp_path):
    teacher = small_teacher()
    bad = small_data()
    with pytest.raises(UsageError, match=f"states of {S - 1} and actions of {A}, the teacher is for {S}"):
        small_distill(tmp_path / "r", teacher, type(bad)(**vars(bad) | {
            "observations": bad.observations[:, 1:], "next_observations": bad.next_observations[:, 1:]}))
    assert not (tmp_path / "r").exists()
    with pytest.warns(UserWarning, match="no episode is held out: the error is measured on states"):
        folder = small_distill(tmp_path / "r", teacher, small_data(1))
    assert load_policy(folder).card["distilled"]["held_out_error"]["pairs"] == 300


@pytest.mark.parametrize("beside", [False, True])
def test_a_policy_that_holds_both_is_distilled_anew(beside, tmp_path):
    """The diffusion is the teacher; its old student is not kept."""
    both = load_policy(small_distill(tmp_path / "a", with_teacher=True))
    again = load_policy(small_distill(tmp_path / "b", both, changes={"calls": 2}, with_teacher=beside))
    assert again.model.has_diffusion == beside and again.model.walk.steps != both.model.walk.steps
    alone = load_policy(small_distill(tmp_path / "c", small_teacher(), changes={"calls": 2}))
    states = observations(small_data())[:3]
    assert torch.equal(again.sample(states, seed=1).actions, alone.sample(states, seed=1).actions)


def test_a_student_keeps_its_teachers_settings(tmp_path):
    """As far as a student has them: where an expected weight is the diffusion's, the weight ranks."""
    own = {"n_candidates": 7, "guidance_scale": 1.5, "select": "expected_weight", "keep_share": 0.5,
           "sampler": "ddpm", "weight_clip": (1e-3, 1.0)}
    for number, (changes, select, share) in enumerate((
            ({"ranking": "draws"}, "max_weight", 1.0), ({"ranking": "ranker"}, "expected_weight", 0.5),
            ({"select": "max_q"}, "max_q", 1.0),
            ({"select": "support", "keep_share": 1.0}, "max_weight", 1.0),
            ({"select": "softmax", "keep_by": "support"}, "softmax", 1.0))):
        policy = load_policy(small_distill(tmp_path / str(number), small_teacher(**own | changes), every=40))
        config = policy.settings()
        assert (config.n_candidates, config.guidance_scale, config.weight_clip) == (7, 1.5, (1e-3, 1.0))
        assert (config.select, config.keep_share, config.sampler) == (select, share, "student")
        assert policy.sample(observations(small_data())[:2], seed=0).actions.shape == (2, A)


def test_divergence_leaves_no_policy(tmp_path, monkeypatch):
    honest = PairMaker.ends
    monkeypatch.setattr(PairMaker, "ends", lambda self, *place: honest(self, *place) * 1e25)
    with pytest.raises(Diverged, match="student diverged by step 10") as error:
        small_distill(tmp_path / "r")
    assert "learning_rate" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "r" / "policy").exists()


def test_a_policy_in_memory_is_a_teacher_too(tmp_path):
    """No file holds it: the card names no teacher's hash, and gives that of a file where there is one."""
    teacher = small_teacher()
    first = load_policy(small_distill(tmp_path / "a", teacher))
    kept = load_policy(teacher.save(tmp_path / "teacher"))
    second = load_policy(small_distill(tmp_path / "b", kept))
    assert same_weights(tmp_path / "a" / "policy", tmp_path / "b" / "policy")
    assert first.model.walk.teacher == "" and second.model.walk.teacher == kept.card["weights_sha256"]
    assert second.card["distilled"]["teacher"]["weights_sha256"] == kept.card["weights_sha256"]
