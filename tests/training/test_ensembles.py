"""Ensembles of rankers and critics: each member is what it would be alone; a stopped training ends alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_recording, relative_error, run_cli, write_hdf5
from safetensors.torch import load_file
from torch import nn

from swg_fast import NoiseSchedule, Policy, UsageError, load_policy
from swg_fast.data.transitions import Transitions, to_transitions
from swg_fast.method.networks import EnsembleQ, Ranker, ScoreNetwork, TwinQ, ValueNetwork
from swg_fast.training import rank as ranking
from swg_fast.training.critic import expectile_loss
from swg_fast.training.critics import CriticsTrainer
from swg_fast.training.distillation.run import Teaching, distill
from swg_fast.training.distillation.settings import DistillSettings
from swg_fast.training.learning_rate import cosine
from swg_fast.training.loop import Interrupted, LoopOptions
from swg_fast.training.opening import expected_time
from swg_fast.training.ranker import LEARNING_RATE, RankerTrainer
from swg_fast.training.run import train
from swg_fast.training.settings import TrainSettings

S, A, MEMBERS, STEPS, ROWS = 4, 2, 3, 40, 32
CPU = torch.device("cpu")
SMALL = {"critic_steps": 40, "actor_steps": 20, "critic_batch": 8, "actor_batch": 8, "hidden_dim": 16,
         "num_blocks": 2, "num_steps": 3, "dropout": 0.0}


def small_data() -> Transitions:
    return to_transitions(make_recording(200, 20, S, A))


def alone(kind: type[EnsembleQ], several: EnsembleQ, member: int) -> EnsembleQ:
    """One member as a network of its own."""
    one = kind(S, A, several.hidden_dim, 1)
    with torch.no_grad():
        for mine, theirs in zip(one.parameters(), several.parameters(), strict=True):
            mine.copy_(theirs[member:member + 1])
    return one


def value_alone(trainer: CriticsTrainer, member: int) -> ValueNetwork:
    """The V of one member in the critic's own form, whose matrices lie the other way round."""
    value, V = ValueNetwork(S, norm=trainer.settings.value_norm), trainer.value
    with torch.no_grad():
        if trainer.settings.value_norm:
            value.norm.weight.copy_(V.scale[member, 0])
            value.norm.bias.copy_(V.shift[member, 0])
        for layer, weight, bias in zip(value.layers[::2], V.weights, V.biases, strict=True):
            layer.weight.copy_(weight[member].T)
            layer.bias.copy_(bias[member, 0])
    return value


def follow(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@pytest.mark.parametrize("others", [0.0, 0.5])
def test_rankers_learn_what_each_learns_alone(others):
    settings = TrainSettings(rankers=MEMBERS, ranker_steps=STEPS, ranker_hidden_dim=16, ranker_others=others)
    torch.manual_seed(0)
    trainer = RankerTrainer(S, A, np.linspace(0.1, 0.9, 9).astype(np.float32), settings, CPU)
    batches = torch.randn(STEPS, ROWS, A + 1 + S)
    far, noise = torch.rand(STEPS, ROWS, 1), torch.randn(STEPS, ROWS, A)
    ones = [alone(Ranker, trainer.network, member) for member in range(MEMBERS)]
    for step, batch in enumerate(batches):
        trainer.before_step(step)
        trainer.step(batch, {"far": far[step], "noise": noise[step]})
    for member, one in enumerate(ones):
        optimizer = torch.optim.Adam(one.parameters())
        for step, batch in enumerate(batches):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * cosine(step, STEPS)
            a, w, s = batch[:, :A], batch[:, A], batch[:, A + 1:]
            elsewhere = (a + far[step] * noise[step]).clamp(-1, 1)
            own, off = (one(s, a) - w).square().mean(), (one(s, elsewhere) - trainer.lowest).square().mean()
            follow(optimizer, own + others * off)
        trained = alone(Ranker, trainer.network, member).requires_grad_(False)
        for mine, theirs in zip(one.parameters(), trained.parameters(), strict=True):
            assert relative_error(theirs, mine.detach()) < 1e-4  # fp32 over 40 steps of Adam
    assert not torch.equal(trainer.network.weights[0][0], trainer.network.weights[0][1])


@pytest.mark.parametrize("norm", [True, False])
def test_critics_learn_what_each_learns_alone(norm):
    """Each in plain operations by its own V and its own target, against the batch of all."""
    settings = TrainSettings(critics=MEMBERS, value_norm=norm, polyak=0.05, critic_lr=1e-3)
    bounds = (-2.0, 3.0)
    torch.manual_seed(0)
    trainer = CriticsTrainer(S, A, settings, CPU, bounds)
    batches = torch.randn(STEPS, ROWS, 2 * S + A + 2)
    batches[:, :, -1] = (batches[:, :, -1] > -1).float()
    ones = [(alone(EnsembleQ, trainer.q, m), value_alone(trainer, m)) for m in range(MEMBERS)]
    for batch in batches:
        trainer.step(batch, {})
    for member, (q, value) in enumerate(ones):
        target = alone(EnsembleQ, q, 0)
        steps_q, steps_v = (torch.optim.Adam(part.parameters(), lr=1e-3) for part in (q, value))
        for batch in batches:
            s, after, a, reward, goes_on = batch.split([S, S, A, 1, 1], dim=1)
            with torch.no_grad():
                wanted = target(s, a)[0].clamp(*bounds)
            follow(steps_v, expectile_loss(wanted - value(s), settings.expectile).mean())
            with torch.no_grad():
                td = reward[:, 0] + settings.discount * goes_on[:, 0] * value(after).clamp(*bounds)
            follow(steps_q, (q(s, a)[0] - td).square().mean())
            with torch.no_grad():
                for slow, fast in zip(target.parameters(), q.parameters(), strict=True):
                    slow.lerp_(fast, settings.polyak)
        compare: list[tuple[nn.Module, nn.Module]] = [
            (alone(EnsembleQ, trainer.q, member), q), (alone(EnsembleQ, trainer.target, member), target),
            (value_alone(trainer, member), value)]
        for theirs, mine in compare:
            for found, wanted in zip(theirs.parameters(), mine.parameters(), strict=True):
                apart, size = (float(x.detach().norm()) for x in (found - wanted, wanted))
                assert apart < 1e-4 * max(1.0, size)


def test_an_ensemble_changes_nothing_beside_it(tmp_path):
    """Critic, V and diffusion are bit for bit those of a training without."""
    plain = load_file(small_policy(tmp_path / "plain") / "model.safetensors")
    both = load_file(small_policy(tmp_path / "both", {"rankers": 3, "ranker_steps": 20, "critics": 4})
                     / "model.safetensors")
    assert all(torch.equal(tensor, both[name]) for name, tensor in plain.items())
    assert {name.partition(".")[0] for name in both.keys() - plain.keys()} == {"ranker", "critics"}
    policy = load_policy(tmp_path / "both" / "policy")
    assert (policy.model.ranker.members, policy.model.critics.members) == (3, 4)
    assert set(policy.card["training"]["steps_per_second"]) == {"critic", "actor", "ranker", "critics"}


def small_policy(folder: Path, changes: dict[str, object] | None = None) -> Path:
    options = LoopOptions(folder / "states", log_every=10, save_every=10, progress=False)
    return train(small_data(), TrainSettings(**SMALL | (changes or {})), folder, options=options)


def ranked(policy: Path, out: Path, **chosen: object) -> dict[str, torch.Tensor]:
    """The tensors of `rank` with few steps."""
    few = {"rankers": 3, "ranker_steps": 30, "critics": 2, "critic_steps": 40, "value_steps": 20,
           "quiet": True, "save_every": 10, "log_every": 10, "device": "cpu"}
    ranking.rank(policy, out=out, **few | chosen)
    return load_file(out / "policy" / "model.safetensors")


@pytest.fixture
def on_small_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "load_for", lambda *arguments, **keywords: small_data())


@pytest.mark.usefixtures("on_small_data")
@pytest.mark.parametrize("stop", [10, 33])  # in the rankers, in the critics
def test_ranking_that_was_stopped_ends_alike(tmp_path, stop):
    policy = small_policy(tmp_path / "run")
    whole = ranked(policy, tmp_path / "whole", dataset="mine")
    with pytest.raises(Interrupted):
        ranked(policy, tmp_path / "stopped", dataset="mine", stop_after=stop)
    assert not (tmp_path / "stopped" / "policy").exists()
    again = ranked(policy, tmp_path / "stopped", dataset="mine", resume=True)
    assert again.keys() == whole.keys() and all(torch.equal(x, whole[name]) for name, x in again.items())
    own = load_file(policy / "model.safetensors")
    assert all(torch.equal(tensor, whole[name]) for name, tensor in own.items())
    with pytest.raises(UsageError, match="already holds a run"):
        ranked(policy, tmp_path / "stopped", dataset="mine")
    with pytest.raises(UsageError, match=r"other settings \(rankers\)"):
        ranked(policy, tmp_path / "stopped", dataset="mine", resume=True, rankers=4)


@pytest.mark.usefixtures("on_small_data")
def test_ranking_is_that_of_a_training_with_an_ensemble(tmp_path):
    """Added later or trained at once, rankers and critics are the same, bit for bit."""
    sizes = {"rankers": 3, "ranker_steps": 30, "critics": 2}
    at_once = load_file(small_policy(tmp_path / "at-once", sizes) / "model.safetensors")
    later = ranked(small_policy(tmp_path / "run"), tmp_path / "later", dataset="mine")
    assert at_once.keys() == later.keys()
    assert all(torch.equal(tensor, at_once[name]) for name, tensor in later.items())
    card = load_policy(tmp_path / "later" / "policy").card
    assert card["ranking_training"]["rankers"] == 3 and card["ranking_training"]["critic_steps"] == 40
    assert "critics/held_out_critic_loss" in card["ranking_training"]["held_out_losses"]


@pytest.mark.usefixtures("on_small_data")
def test_critics_are_added_and_the_ranker_stays(tmp_path):
    policy = small_policy(tmp_path / "run", {"ranker_steps": 20})
    both = ranked(policy, tmp_path / "out", dataset="mine", rankers=None, ranker_steps=None)
    own = load_file(policy / "model.safetensors")
    assert any(name.startswith("ranker.") for name in own) and own.keys() < both.keys()
    assert all(torch.equal(tensor, both[name]) for name, tensor in own.items())


def test_a_student_has_its_teachers_ensemble(tmp_path):
    teacher = load_policy(small_policy(tmp_path / "run", {"rankers": 3, "ranker_steps": 10, "critics": 2}))
    teaching = Teaching.of(teacher, DistillSettings(pairs=100, steps=10, batch=16, hidden_dim=16))
    options = LoopOptions(tmp_path / "states", log_every=10, progress=False)
    student = load_policy(distill(teaching, small_data(), tmp_path / "student", options=options))
    for part in ("ranker", "critics"):
        pairs = zip(*(getattr(each.model, part).parameters() for each in (student, teacher)), strict=True)
        assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
    assert student.sample(torch.zeros(1, S), seed=0, select="lcb_q").actions.isfinite().all()


def without_value(folder: Path) -> Path:
    """A policy as a bundled one is: with a critic and without V."""
    model = load_policy(small_policy(folder / "run")).model
    return Policy(model.network, model.schedule, model.critic, card=model.card).save(folder / "bare")


@pytest.mark.usefixtures("on_small_data")
def test_a_value_that_was_not_saved_is_fitted(tmp_path):
    tensors = ranked(without_value(tmp_path), tmp_path / "out", dataset="mine")
    assert not any(name.startswith("value.") for name in tensors)
    assert {"ranker.weights.0", "critics.weights.0"} < tensors.keys()


def without_critic(folder: Path) -> Path:
    model = load_policy(small_policy(folder / "run")).model
    return Policy(model.network, model.schedule, card=model.card).save(folder / "bare")


def untrained(folder: Path) -> Path:
    return Policy(ScoreNetwork(S, A, 16, 2), NoiseSchedule.vp(3), TwinQ(S, A, 16)).save(folder / "new")


def other_sizes(folder: Path) -> Path:
    model = load_policy(small_policy(folder / "run")).model
    return Policy(ScoreNetwork(S + 1, A, 16, 2), model.schedule, card=model.card).save(folder / "wide")


REFUSED: dict[str, tuple[Callable[[Path], Path], dict[str, object], str]] = {
    "nothing": (small_policy, {"rankers": None, "ranker_steps": None, "critics": None}, "nothing to add"),
    "no rankers": (small_policy, {"rankers": 0}, "rankers must be at least 2.*got 0"),
    "one": (small_policy, {"critics": 1}, "critics must be at least 2.*got 1"),
    "negative": (small_policy, {"critics": -5}, "critics must be at least 2.*got -5"),
    "too many": (small_policy, {"rankers": 257}, "rankers must be.*at most 256.*got 257"),
    "unknown": (small_policy, {"ranker": 5}, "unknown setting 'ranker'; did you mean rankers"),
    "no critic": (without_critic, {}, "has no critic, whose weights a ranker learns"),
    "no training": (untrained, {}, "does not say how its critic was trained"),
    "sizes": (other_sizes, {"rankers": None, "ranker_steps": None}, "is for states of 5 and actions of 2"),
    "a file": (small_policy, {"out": "a-file"}, "a-file"),
}


@pytest.mark.usefixtures("on_small_data")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_ranked_is_one_line(tmp_path, monkeypatch, case):
    make, chosen, word = REFUSED[case]
    policy = make(tmp_path / "made")
    monkeypatch.chdir(tmp_path)
    Path("a-file").write_text("mine")
    with pytest.raises(UsageError, match=word) as error:
        ranked(policy, **{"out": tmp_path / "new", "dataset": "mine"} | chosen)
    assert "\n" not in str(error.value) and not (tmp_path / "new").exists()


@pytest.mark.parametrize("changes,word", [
    ({"rankers": 0}, "rankers must be at least 2"), ({"critics": -1}, "critics must be at least 2"),
    ({"rankers": 5, "weight_function": "family"}, "leave out rankers")])
def test_settings_of_no_ensemble(changes, word):
    with pytest.raises(UsageError, match=word):
        TrainSettings(**SMALL | changes)


@pytest.mark.parametrize("changes,word", [
    ({"critics": 256, "critic_batch": 2**16}, "training 256 critics .*use fewer --critics"),
    ({"rankers": 256, "ranker_hidden_dim": 2**14}, "training the ranker .*use fewer --rankers")])
def test_more_than_memory_holds_is_refused_at_the_start(tmp_path, changes, word):
    with pytest.raises(UsageError, match=word):
        small_policy(tmp_path / "run", changes)
    assert not (tmp_path / "run").exists()


def test_the_opening_counts_the_critics():
    settings = TrainSettings(**SMALL | {"critics": 3})
    expected = expected_time(small_data(), settings, CPU)
    assert expected.critics > 0 and expected.total == expected.critic + expected.actor + expected.critics
    assert "the ensemble's critics" in str(expected)


def test_the_command_adds_and_evaluates(tmp_path):
    """The whole way of a user with a bundled policy, in steps of a second."""
    write_hdf5(tmp_path / "data.hdf5", make_recording(200, 20, 11, 3))
    done = run_cli("rank", "hopper-medium-v2", "--dataset", "data.hdf5", "--rankers", 2, "--ranker-steps", 5,
                   "--critics", 2, "--critic-steps", 5, "--value-steps", 5, "--quiet", "--threads", 1,
                   "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    folder = tmp_path / "runs" / "hopper-medium-v2-ranked" / "policy"
    assert "--select lcb_weight" in done.stdout
    policy = load_policy(folder)
    assert policy.card["ranking_training"]["dataset"] == "data.hdf5"
    bundled = load_policy("hopper-medium-v2")
    states = torch.zeros(2, 11)
    assert torch.equal(policy.sample(states, seed=1).actions, bundled.sample(states, seed=1).actions)
    for select in ("lcb_weight", "lcb_q"):
        assert policy.sample(states, seed=1, select=select, pessimism=2.0).actions.isfinite().all()
    refused = run_cli("rank", "hopper-medium-v2", "--dataset", "data.hdf5", "--critics", -1, cwd=tmp_path)
    assert refused.returncode == 2 and "critics must be at least 2" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_rankers_alone_are_trained_for_steps_of_their_own():
    assert TrainSettings(rankers=5).ranker_steps == 10_000
    assert TrainSettings(rankers=5, ranker_steps=7).ranker_steps == 7
    assert TrainSettings().ranker_steps == 0
