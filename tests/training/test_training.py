"""Training learns, resumes bit for bit, and does not overwrite."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_recording
from safetensors.torch import load_file

from swg_fast import load_policy
from swg_fast.common.errors import UsageError
from swg_fast.data.transitions import to_transitions
from swg_fast.policy.checkpoint import load_checkpoint
from swg_fast.reference import read_weight
from swg_fast.training import preflight
from swg_fast.training.history import HISTORY, read_history
from swg_fast.training.loop import Interrupted, LoopOptions
from swg_fast.training.rewards import return_bounds
from swg_fast.training.run import train, train_ranker
from swg_fast.training.saved_state import saved_steps
from swg_fast.training.settings import TrainSettings

pytestmark = pytest.mark.slow

SMALL = {"critic_batch": 32, "actor_batch": 32, "hidden_dim": 32, "num_blocks": 2, "num_steps": 5,
         "expectile": 0.9, "reward_transform": "minus_one"}


@pytest.fixture(scope="module")
def data():
    return to_transitions(make_recording(600, 50, 6, 2))


def options(tmp_path, **changes):
    return LoopOptions(tmp_path / "states", log_every=20, save_every=1000, progress=False, **changes)


@pytest.mark.parametrize("dropout,precision", [(0.0, "fp32"), (0.1, "fp32"), (0.1, "bf16")])
def test_resume_is_bit_identical(tmp_path, data, monkeypatch, dropout, precision):
    """60 steps of both phases straight, and 30 + resume 30; bf16 is emulated if the processor has none."""
    monkeypatch.setattr(preflight, "has_native_bf16", lambda: True)
    settings = TrainSettings(critic_steps=60, actor_steps=60, dropout=dropout, precision=precision,
                             **SMALL)
    straight = train(data, settings, tmp_path / "a", options=options(tmp_path))
    with pytest.raises(Interrupted, match="critic stopped at step 30 of 60"):
        train(data, settings, tmp_path / "b", options=options(tmp_path, stop_after=30))
    with pytest.raises(Interrupted, match="actor stopped at step 30 of 60"):
        _to_actor(data, settings, tmp_path)
    resumed = train(data, settings, tmp_path / "b", resume=True, options=options(tmp_path))
    a, b = (load_file(folder / "model.safetensors") for folder in (straight, resumed))
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def _to_actor(data, settings, tmp_path):
    """Resumes the critic to its end, then stops the actor half-way."""
    from unittest import mock

    import swg_fast.training.run as run
    from swg_fast.training.loop import run_phase

    def stop_the_actor(trainer, *arguments):
        arguments[-1].stop_after = 30 if trainer.phase == "actor" else None
        return run_phase(trainer, *arguments)

    with mock.patch.object(run, "run_phase", stop_the_actor):
        train(data, settings, tmp_path / "b", resume=True, options=options(tmp_path))


def test_losses_fall_and_the_policy_prefers_rewarded_actions(tmp_path, data):
    """Reward is 1 where action[0] > 0.5 (a quarter of the data): guidance should favour it."""
    settings = TrainSettings(critic_steps=600, actor_steps=1500, dropout=0.0, discount=0.5,
                             critic_lr=1e-3, actor_lr=2e-3, ema_rate=0.01, weight_decay=0.0,
                             **SMALL | {"actor_batch": 128, "critic_batch": 128, "hidden_dim": 64})
    folder = train(data, settings, tmp_path / "run", options=options(tmp_path))
    actor = [line["actor/held_out_action_loss"]
             for line in read_history(tmp_path / "run" / "logs" / HISTORY)["actor"]]
    assert actor[-1] < 0.8 * actor[0]
    policy = load_policy(folder)
    states = data.observations[:200]
    plain = policy.sample(states, n_candidates=1, guidance_scale=0.0, temperature=1.0, seed=0)
    kept = policy.sample(states, n_candidates=16, guidance_scale=1.0, temperature=1.0, seed=0)
    share = [float((drawn.actions[:, 0] > 0.5).float().mean()) for drawn in (plain, kept)]
    assert share[1] > share[0] + 0.2
    card = load_checkpoint(folder).card
    assert card["training"]["settings"]["seed"] == 0
    assert card["training"]["weights"]["max"] == pytest.approx(0.9)


def test_a_ranker_and_a_network_that_reads_learn_the_weights(tmp_path, data):
    """Both rank the critic's favourite actions above the others; a resumed finished run has the same
    ranker."""
    settings = TrainSettings(critic_steps=600, actor_steps=600, dropout=0.0, discount=0.5, read_share=0.3,
                             ranker_steps=400, ranker_hidden_dim=32,
                             **SMALL | {"critic_lr": 3e-3, "actor_lr": 3e-3, "ema_rate": 0.01})
    policy = load_policy(train(data, settings, tmp_path / "a", options=options(tmp_path)))
    s, a = torch.from_numpy(data.observations), torch.from_numpy(data.actions)
    rank, read = policy.model.ranker.minimum, read_weight(policy.model.network, s, a, settings.num_steps)
    with torch.no_grad():
        good = policy.model.critic.minimum(s, a) > policy.model.value(s)
        ranked = rank(s, a)
    for found in (ranked, read):  # the weights are 0.1 and 0.9
        assert found[good].mean() > found[~good].mean() + 0.1 and 0 < found.mean() < 1
    policy.sample(s[:2], n_candidates=4, ranking="read", select="expected_weight", seed=0)
    again = train(data, settings, tmp_path / "a", resume=True, options=options(tmp_path))
    assert torch.equal(load_policy(again).model.ranker.minimum(s, a), ranked)


def test_steps_that_stand_are_left_to_the_critic(tmp_path, data):
    """The recorded action is 0.5 where the body stands still and -0.5 elsewhere: a policy trained on moving
    steps learns only the second."""
    stands = np.arange(len(data)) % 100 >= 50
    place = np.cumsum(np.where(stands, 0.0, 1.0)).astype(np.float32)
    observations = data.observations.copy()
    observations[:, 0], observations[:, 1:] = place, 0.0
    actions = np.where(stands, 0.5, -0.5).astype(np.float32)[:, None].repeat(data.actions.shape[1], 1)
    data = replace(data, observations=observations, next_observations=observations, actions=actions,
                   episodes=np.zeros(len(data), np.int32))
    settings = TrainSettings(critic_steps=20, actor_steps=600, dropout=0.0, min_travel=15.0, held_out=0.0,
                             **SMALL | {"actor_lr": 3e-3, "ema_rate": 0.01})
    folder = train(data, settings, tmp_path / "run", options=options(tmp_path))
    drawn = load_policy(folder).sample(observations[::10], n_candidates=8, guidance_scale=0.0,
                                       temperature=1.0, seed=0).actions
    assert abs(float(drawn.mean()) + 0.5) < 0.15  # 0 without the option
    share = load_checkpoint(folder).card["training"]["weights"]["share_of_steps"]
    assert 0.25 < share < 0.5
    with pytest.raises(UsageError, match=r"min_travel=21: in none of the \d+ steps"):
        train(data, replace(settings, min_travel=21.0), tmp_path / "none", options=options(tmp_path))
    assert not (tmp_path / "none").exists()


def test_a_ranker_has_what_is_off_the_data_below(tmp_path, data):
    """Actions lie within 0.2, and the first entry's sign decides the weight; 0.8 must not rank high."""
    data = replace(data, actions=0.2 * data.actions)
    weights = np.where(data.actions[:, 0] > 0, 0.9, 0.1).astype(np.float32)
    settings = TrainSettings(ranker_steps=600, ranker_hidden_dim=32, ranker_others=0.5)
    ranker, _ = train_ranker(data, weights, settings, torch.device("cpu"), options(tmp_path))
    s, a = torch.from_numpy(data.observations), torch.from_numpy(data.actions)
    with torch.no_grad():
        good, bad, off = (ranker.minimum(s, x) for x in (a.abs(), -a.abs(), torch.full_like(a, 0.8)))
    assert good.mean() > off.mean() + 0.3 and bad.mean() < 0.4


def test_a_run_is_not_overwritten_or_mixed(tmp_path, data):
    settings = TrainSettings(critic_steps=5, actor_steps=5, **SMALL)
    train(data, settings, tmp_path / "r", options=options(tmp_path))
    with pytest.raises(UsageError, match="already holds a run"):
        train(data, settings, tmp_path / "r", options=options(tmp_path))
    other = TrainSettings(critic_steps=5, actor_steps=6, **SMALL)
    with pytest.raises(UsageError, match=r"other settings \(actor_steps\)"):
        train(data, other, tmp_path / "r", resume=True, options=options(tmp_path))
    with pytest.raises(UsageError, match="nothing to resume"):
        train(data, settings, tmp_path / "none", resume=True, options=options(tmp_path))


@pytest.mark.parametrize("change,word", [({"critic_steps": 0}, "critic_steps"),
                                         ({"expectile": 1.0}, "expectile"),
                                         ({"precision": "fp8"}, "precision")])
def test_bad_settings(change, word):
    with pytest.raises(UsageError, match=word):
        TrainSettings(**change)


def test_bf16_is_not_emulated(tmp_path, data, monkeypatch):
    """Refuses before it writes anything, also when it resumes a run from elsewhere; fp32 is allowed."""
    settings = TrainSettings(critic_steps=20, actor_steps=2, precision="bf16", **SMALL)
    monkeypatch.setattr(preflight, "has_native_bf16", lambda: False)
    with pytest.raises(UsageError, match="no native bf16.*use --precision fp32"):
        train(data, settings, tmp_path / "new", options=options(tmp_path))
    assert not (tmp_path / "new").exists()
    train(data, replace(settings, precision="fp32"), tmp_path / "new", options=options(tmp_path))

    monkeypatch.setattr(preflight, "has_native_bf16", lambda: True)
    with pytest.raises(Interrupted):
        train(data, settings, tmp_path / "r", options=options(tmp_path, stop_after=10))
    before = {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()}
    monkeypatch.setattr(preflight, "has_native_bf16", lambda: False)
    with pytest.raises(UsageError, match="no native bf16.*a machine that has bf16"):
        train(data, settings, tmp_path / "r", resume=True, options=options(tmp_path))
    assert before == {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()}


def test_seed_decides(tmp_path, data):
    def weights(seed, name):
        settings = TrainSettings(critic_steps=3, actor_steps=3, seed=seed, held_out=0.0, **SMALL)
        folder = train(data, settings, tmp_path / name, options=options(tmp_path))
        return load_file(folder / "model.safetensors")["network.input.weight"]

    a, b, c = weights(1, "a"), weights(1, "b"), weights(2, "c")
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert np.isfinite(a.numpy()).all()


@pytest.mark.parametrize("rewards,bounds", [([-1, 0], (-10, 0)), ([0, 1], (0, 10)), ([-3, -1], (-30, 0)),
                                            ([2, 4, -0.5], (-5, 40))])
def test_bounds_of_a_return(rewards, bounds):
    """An episode may end at once, so a return of 0 is always possible."""
    assert return_bounds(np.array(rewards, np.float32), 0.9) == pytest.approx(bounds)


def test_a_kept_critic_trains_another_policy(tmp_path, data):
    """The state of step 20 of 40 equals a run of 20 steps: the same policy, and a log of the same length."""
    settings = TrainSettings(critic_steps=40, actor_steps=20, **SMALL)
    kept = options(tmp_path, keep_states=9)
    train(data, settings, tmp_path / "long", options=replace(kept, save_every=10))
    assert saved_steps(tmp_path / "long" / "states", "critic") == [10, 20, 30, 40]
    short = replace(settings, critic_steps=20, weight_function="dice")
    a = train(data, short, tmp_path / "a", options=options(tmp_path))
    b = train(data, short, tmp_path / "b", options=options(tmp_path), critic=tmp_path / "long")
    first, second = (load_file(folder / "model.safetensors") for folder in (a, b))
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())
    assert [line["step"] for line in read_history(tmp_path / "b" / "logs" / HISTORY)["critic"]] == [20]
    assert (b / "model_card.json").read_text().count("critic/held_out") == 2

    for change, word in (({"critic_steps": 15}, r"no saved critic of 15 steps \(there are those of 10, 20"),
                         ({"discount": 0.9}, r"other settings \(discount\)"),
                         ({"clip_targets": True}, r"other settings \(clip_targets\)")):
        with pytest.raises(UsageError, match=word):
            train(data, replace(short, **change), tmp_path / "c", critic=tmp_path / "long")
    with pytest.raises(UsageError, match="another dataset"):
        train(data.split(0.2, 0)[0], short, tmp_path / "c", critic=tmp_path / "long")
    assert not (tmp_path / "c").exists()
    falling = replace(settings, critic_cosine_decay=True, critic_steps=20)
    train(data, falling, tmp_path / "falling", options=replace(kept, save_every=10))
    with pytest.raises(UsageError, match=r"other settings \(critic_steps\)"):
        train(data, replace(falling, critic_steps=10), tmp_path / "c", critic=tmp_path / "falling")


def test_clipped_targets_are_of_the_transformed_rewards(tmp_path, data):
    """Rewards are -1 and 0, so no target may exceed 0, although a new network's values do."""
    settings = TrainSettings(critic_steps=3, actor_steps=1, discount=0.9, held_out=0.0, **SMALL)
    values = {}
    for clip in (False, True):
        folder = train(data, replace(settings, clip_targets=clip), tmp_path / str(clip),
                       options=options(tmp_path))
        assert load_checkpoint(folder).card["training"]["settings"]["clip_targets"] is clip
        assert json.loads((tmp_path / str(clip) / "run.json").read_text())["settings"]["clip_targets"] is clip
        values[clip] = load_policy(folder).model.value(torch.from_numpy(data.observations)).detach()
    assert float((values[True] < values[False]).float().mean()) > 0.9


def test_profile_counts_every_part(tmp_path, data):
    logs = options(tmp_path, profile=True)
    train(data, TrainSettings(critic_steps=40, actor_steps=40, **SMALL), tmp_path / "r", options=logs)
    assert logs.clocks.keys() == {"critic", "actor"}
    for phase, clock in logs.clocks.items():
        assert clock.seconds.keys() == {"random numbers", "steps", "progress bar", "saved states",
                                        "held-out losses and logs"}
        assert all(seconds > 0 for seconds in clock.seconds.values())
        name, share = clock.rows(phase)[-1]
        assert name == f"{phase}: all but steps and random numbers" and share == f"{clock.overhead():.1%}"
        assert 0 < clock.overhead() < 1


def test_a_run_from_before_a_setting_resumes(tmp_path, data):
    """Settings that a run's record lacks have their defaults."""
    settings = TrainSettings(critic_steps=20, actor_steps=5, **SMALL)
    with pytest.raises(Interrupted):
        train(data, settings, tmp_path / "r", options=options(tmp_path, stop_after=10))
    path = tmp_path / "r" / "run.json"
    record = json.loads(path.read_text())
    del record["settings"]["weight_loss"]
    path.write_text(json.dumps(record))
    with pytest.raises(UsageError, match=r"other settings \(weight_loss\)"):
        other = replace(settings, weight_loss=2.0)
        train(data, other, tmp_path / "r", resume=True, options=options(tmp_path))
    train(data, settings, tmp_path / "r", resume=True, options=options(tmp_path))
