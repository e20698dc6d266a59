"""One network for a family of weight functions: codes, weights, training, and guidance chosen at sampling."""

from __future__ import annotations

import json
import math

import pytest
import torch
from click.testing import CliRunner
from conftest import make_recording
from safetensors.torch import load_file

from swg_fast import load_policy
from swg_fast.cli.main import cli
from swg_fast.common.errors import UsageError
from swg_fast.data.transitions import to_transitions
from swg_fast.method.networks import ScoreNetwork, TwinQ
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.method.weight_family import WeightFamily
from swg_fast.method.weight_functions import WEIGHT_FUNCTIONS, compute_weights
from swg_fast.policy.policy import Policy
from swg_fast.training.diffusion import DiffusionTrainer
from swg_fast.training.loop import Interrupted, LoopOptions
from swg_fast.training.run import train
from swg_fast.training.settings import TrainSettings

EVERY = "expectile:0.6:0.95,exponential:0.5:10,linex:0.5:2,quantile:0.6:0.9,smooth_expectile:0.7,dice"
TWO = "expectile:0.6:0.95,exponential:0.5:10"
SMALL = {"critic_batch": 32, "actor_batch": 32, "hidden_dim": 32, "num_blocks": 2, "num_steps": 5,
         "expectile": 0.9, "reward_transform": "minus_one", "weight_function": "family"}


@pytest.fixture(scope="module")
def data():
    return to_transitions(make_recording(600, 50, 6, 2))


def options(tmp_path, **changes):
    return LoopOptions(tmp_path / "states", log_every=20, save_every=1000, progress=False, **changes)


def advantages():
    return torch.randn(4000, generator=torch.Generator().manual_seed(0))


def test_a_rows_weight_is_its_functions_over_the_largest():
    """Each row against `compute_weights` of all data under the parameter that its code stands for."""
    u = advantages()
    family = WeightFamily.parse(EVERY).fitted(u)
    uniform = torch.rand(60, 2, generator=torch.Generator().manual_seed(1))
    weights, codes = family.rows(u[:60], uniform)
    assert codes.shape == (60, family.width) and family.width == 7
    assert {int(code[:-1].argmax()) for code in codes} == set(range(6))
    for i, code in enumerate(codes):
        member = family.members[int(code[:-1].argmax())]
        value = float(member.value(code[-1].double()))
        assert member.low is None or member.low - 1e-6 <= value <= member.high + 1e-6
        alone = compute_weights(u, member.name, value if WEIGHT_FUNCTIONS[member.name].parameter else None)
        torch.testing.assert_close(weights[i], alone[i] / alone.max(), rtol=1e-4, atol=0)
        name = member.name if member.low is None else f"{member.name}:{value:.8g}"
        if member.low != member.high:
            torch.testing.assert_close(family.code(name), code, rtol=0, atol=1e-5)
    assert float(weights.max()) <= 1 + 1e-6


def test_alphas_are_drawn_evenly_by_their_logarithm():
    family = WeightFamily.parse("exponential:0.5:8").fitted(advantages())
    places = family.draw(torch.stack([torch.zeros(5), torch.linspace(0, 0.9999, 5)], dim=1))[1]
    values = family.members[0].value(places)
    torch.testing.assert_close(values, 0.5 * 16 ** torch.linspace(0, 1, 5), rtol=1e-3, atol=0)


def test_mean_weights_are_of_the_data_and_survive_a_card():
    u = advantages()
    family = WeightFamily.parse(TWO).fitted(u)
    again = WeightFamily.from_card(json.loads(json.dumps({"weight_family": family.to_card()})))
    for name, value in (("expectile", 0.8), ("exponential", 2.5)):
        alone = compute_weights(u, name, value)
        expected = float(alone.mean() / alone.max())
        assert again.mean_weight(f"{name}:{value}") == pytest.approx(expected, rel=0.02)
    assert str(again) == TWO and again.default == "expectile:0.775"


@pytest.mark.parametrize("text,word", [
    ("evil:0:1", "unknown weight function"), ("expectile:0.6:0.7:0.8", "FUNCTION:LOW:HIGH"),
    ("expectile:a", "FUNCTION:LOW:HIGH"), ("expectile:0.9:0.6", "turn it round"),
    ("expectile:0.5:1.5", "tau"), ("exponential:0:1", "alpha"), ("dice:1", "no parameter"),
    ("dice,dice", "twice")])
def test_bad_families_are_one_line(text, word):
    with pytest.raises(UsageError, match=word) as error:
        TrainSettings(weight_function="family", weight_family=text)
    assert "\n" not in str(error.value)


def test_settings_that_do_not_go_together():
    for changes in ({"weight_parameter": 0.5}, {"rescale_weights": True}, {"ranker_steps": 1}):
        with pytest.raises(UsageError, match="leave out"):
            TrainSettings(weight_function="family", **changes)
    with pytest.raises(UsageError, match="weight_function='family'"):
        TrainSettings(weight_family=TWO)


@pytest.mark.parametrize("compiled", [True, False])
def test_resume_is_bit_identical(tmp_path, data, compiled, monkeypatch):
    """Both phases straight, and stopped in each: by the compiled steps and by the plain ones."""
    from unittest import mock

    from swg_fast.kernels.training import actor
    from swg_fast.training import run

    if not compiled:
        monkeypatch.setattr(actor, "loops", lambda: None)
    settings = TrainSettings(critic_steps=20, actor_steps=50, weight_family=EVERY, **SMALL)
    straight = train(data, settings, tmp_path / "a", options=options(tmp_path))
    whole = run.run_phase

    def stop_the_actor(trainer, *arguments):
        arguments[-1].stop_after = 27 if trainer.phase == "actor" else None
        return whole(trainer, *arguments)

    with mock.patch.object(run, "run_phase", stop_the_actor), pytest.raises(Interrupted, match="actor"):
        train(data, settings, tmp_path / "b", options=options(tmp_path))
    resumed = train(data, settings, tmp_path / "b", resume=True, options=options(tmp_path))
    a, b = (load_file(folder / "model.safetensors") for folder in (straight, resumed))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_compiled_steps_are_the_plain_ones(data):
    settings = TrainSettings(actor_steps=20, dropout=0.0, weight_family=EVERY, **SMALL)
    found = []
    for compiled in (True, False):
        torch.manual_seed(0)
        network = ScoreNetwork(6 + settings.family().width, 2, 32, 2, dropout=0.0)
        trainer = DiffusionTrainer(network, NoiseSchedule.vp(5), settings, torch.device("cpu"))
        if trainer.loops is None:
            pytest.skip("no C compiler")
        u = torch.randn(len(data), generator=torch.Generator().manual_seed(2))
        trainer.family = trainer.family.fitted(u)
        rows = trainer.pack(data, u.numpy())
        draws = trainer.draw(torch.Generator().manual_seed(3), 8, len(rows))
        chosen = draws.pop("rows")
        if compiled:
            found.append(trainer.steps(rows, chosen, draws, 0))
        else:
            losses = []
            for i in range(8):
                trainer.before_step(i)
                losses.append(trainer.step(rows[chosen[i]], {k: v[i] for k, v in draws.items()}))
            found.append(torch.stack(losses))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, data):
    out = tmp_path_factory.mktemp("family")
    settings = TrainSettings(critic_steps=5, actor_steps=5, weight_family=TWO, **SMALL)
    return train(data, settings, out / "run", options=options(out))


def test_guidance_is_chosen_at_sampling(folder, data):
    policy = load_policy(folder)
    states = data.observations[:3]
    assert policy.state_dim == 6 and policy.observation_space.shape == (6,)
    card = json.loads((folder / "model_card.json").read_text())
    assert card["weight_family"]["functions"] == TWO and card["network"]["state_dim"] == 9
    assert card["sampling"]["guidance"] is None and policy.settings()["guidance"] == "expectile:0.775"
    drawn = {g: policy.sample(states, 4, 5.0, guidance=g, dtype="fp32").actions
             for g in (None, "expectile:0.775", ("expectile", 0.9), "exponential:0.5", "exponential:10")}
    torch.testing.assert_close(drawn[None], drawn["expectile:0.775"], rtol=0, atol=0)
    kept = list(drawn.values())[1:]
    assert all(not torch.equal(a, b) for i, a in enumerate(kept) for b in kept[:i])
    # The code is all that the choice changes: a plain network over wider states gives the same.
    code = policy.family.code("expectile:0.9").expand(3, -1)
    plain = Policy(policy.model.network, policy.model.schedule)
    wide = torch.cat([torch.from_numpy(states), code], dim=1)
    torch.testing.assert_close(plain.sample(wide, 4, 5.0, dtype="fp32").actions, drawn["expectile", 0.9])


@pytest.mark.parametrize("select", ["max_q", "expected_weight", "softmax"])
def test_every_selection_works_with_a_code(folder, data, select):
    """The critic sees the states alone; the mean of the weights is the member's own."""
    policy = load_policy(folder)
    arguments = {"n_candidates": 8, "guidance": "exponential:2", "select": select, "dtype": "fp32"}
    found = policy.sample(data.observations[:3], **arguments, return_candidates=True)
    assert bool(found.actions.isfinite().all())
    if select == "max_q":
        states = torch.from_numpy(data.observations[:3]).repeat_interleave(8, dim=0)
        values = policy.model.critic.minimum(states, found.candidates.flatten(0, 1)).view(3, 8)
        assert torch.equal(values.argmax(dim=1), found.indices)
    if select == "expected_weight":
        again = policy.sample(data.observations[:3], **arguments,
                              ranking_mean=policy.family.mean_weight("exponential:2"))
        torch.testing.assert_close(again.weights, found.weights)


def test_a_saved_policy_keeps_its_family(folder, data, tmp_path):
    policy = Policy(**vars(load_policy(folder).model), card=load_policy(folder).card,
                    defaults={"guidance": "exponential:3"})
    again = load_policy(policy.save(tmp_path / "again"))
    assert again.settings()["guidance"] == "exponential:3" and str(again.family) == TWO


@pytest.mark.parametrize("guidance,word", [
    ("expectile:0.99", "not in what this policy was trained for, expectile:0.6:0.95,exponential:0.5:10"),
    ("exponential:0.1", "not in what"), ("linex:1", "not in what"), ("expectile:2", "tau"),
    ("evil:1", "unknown weight function"), ("expectile:a", "FUNCTION:PARAMETER"), (3, "FUNCTION:PARAMETER"),
    (("expectile", math.nan), "tau"), (("expectile", 0.7, 0.8), "FUNCTION:PARAMETER")])
def test_guidance_outside_the_family_is_one_line(folder, data, guidance, word):
    policy = load_policy(folder)
    for call in (lambda: policy.sample(data.observations[:1], guidance=guidance),
                 lambda: policy.check(guidance=guidance)):
        with pytest.raises(UsageError, match=word) as error:
            call()
        assert "\n" not in str(error.value)


def test_a_policy_without_a_family_refuses_guidance(data):
    policy = Policy(ScoreNetwork(6, 2, 32, 2), NoiseSchedule.vp(5), TwinQ(6, 2))
    with pytest.raises(UsageError, match="trained with one weight function"):
        policy.sample(data.observations[:1], guidance="expectile:0.7")


def test_a_damaged_entry_of_the_card(folder):
    card = json.loads((folder / "model_card.json").read_text())
    network = load_policy(folder).model.network
    for entry in ("expectile", {}, {"functions": 3, "mean_weights": []},
                  {"functions": TWO, "mean_weights": [[1.0]]}, {"functions": "evil", "mean_weights": []}):
        with pytest.raises(UsageError):
            Policy(network, NoiseSchedule.vp(5), card=card | {"weight_family": entry})


def test_command_line(folder):
    base = ["evaluate", "antmaze-umaze-v2", "--policy", "antmaze-umaze-v2", "--episodes", "1", "--quiet"]
    found = CliRunner().invoke(cli, [*base, "--guidance", "expectile:0.7"])
    assert isinstance(found.exception, UsageError) and "one weight function" in str(found.exception)
    found = CliRunner().invoke(cli, [*base, "--guidance", "0.7"])
    assert isinstance(found.exception, UsageError) and "unknown weight function" in str(found.exception)
