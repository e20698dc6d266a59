"""What a ranking is worth by another critic: known answers, refusals, and the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import make_network, make_recording, write_hdf5

from swg_fast.cli.main import cli
from swg_fast.common.errors import UsageError
from swg_fast.evaluation.inspect import scorer
from swg_fast.evaluation.inspect.measure import Draws
from swg_fast.method.networks import EnsembleQ, TwinQ
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.policy.policy import Policy, load_policy
from swg_fast.policy.sampling import SamplingConfig

STATES, ACTIONS = 4, 2


def critic(seed: int) -> TwinQ:
    torch.manual_seed(seed)
    return TwinQ(STATES, ACTIONS, 16)


def ranked(own: TwinQ | None, select: str, **more) -> Policy:
    return Policy(make_network(STATES, ACTIONS, hidden_dim=16, num_blocks=2), NoiseSchedule.vp(3), own,
                  card={"task": "mine", "sampling": {"select": select, "n_candidates": 16}} | more)


def found(policy: Policy, judge: TwinQ, n: int = 64):
    states = np.random.default_rng(0).normal(size=(20, STATES)).astype(np.float32)
    return scorer.score_candidates(policy, judge, states, Draws(n_judged=n, progress=False))


def test_a_ranking_by_the_judge_itself_is_worth_most():
    judge = critic(1)
    with torch.no_grad():
        judge.weights[-1][1], judge.biases[-1][1] = judge.weights[-1][0], judge.biases[-1][0]
        for weight, bias in zip(judge.weights, judge.biases, strict=True):
            weight[1], bias[1] = weight[0], bias[0]  # both networks are one: what they say has no error
    policy = ranked(judge, "max_q")
    figures = scorer.scorer_figures(found(policy, judge), "judge", policy.config)
    assert figures["rank_correlation"] == pytest.approx(1.0) == figures["judge_agreement"]
    means = [each["mean"] for each in figures["kept"].values()]
    assert list(figures["kept"]) == ["1", "4", "16", "64"] and figures["enough"] == 64
    assert abs(means[0]) < 0.2 and means == sorted(means) and means[-1] > 1.5  # of 64 normal draws: 2.4
    assert figures["supported"] > 100


def test_an_ensembles_lower_bound_is_what_is_judged():
    judge = critic(1)
    with torch.no_grad():
        for weight, bias in zip(judge.weights, judge.biases, strict=True):
            weight[1], bias[1] = weight[0], bias[0]
    critics = EnsembleQ(STATES, ACTIONS, 16)
    critics.load_state_dict(judge.state_dict())
    policy = Policy(**ranked(None, "lcb_q").model.parts() | {"critics": critics})
    figures = scorer.scorer_figures(found(policy, judge), "judge", policy.config)
    assert figures["rank_correlation"] == pytest.approx(1.0) and figures["enough"] == 64


def test_a_ranking_by_nothing_gains_nothing():
    policy = ranked(None, "none")
    figures = scorer.scorer_figures(found(policy, critic(1), 16), "judge", policy.config)
    assert all(abs(each["mean"]) < 0.5 for each in figures["kept"].values())
    assert figures["n_states"] == 20 and figures["n_candidates"] == 16


def test_theory_and_the_rule_of_one_standard_error():
    rng = np.random.default_rng(0)
    value, noise = rng.normal(size=(2, 200, 400))
    kept = {1: np.zeros(100) + rng.normal(size=100) * 0.1, 4: rng.normal(0.9, 0.1, 100),
            16: rng.normal(1.0, 0.1, 100), 64: rng.normal(0.995, 0.1, 100)}
    scored = scorer.Scored(value + 2 * noise, value, value, kept)
    figures = scorer.scorer_figures(scored, "judge", SamplingConfig())
    assert figures["signal_to_noise"] == pytest.approx(0.25, rel=0.15)  # ranks tell a little less than values
    assert figures["supported"] == pytest.approx(np.exp(figures["signal_to_noise"]))
    assert figures["enough"] == 16
    against = scorer.scorer_figures(scorer.Scored(-value, value, value, kept), "judge", SamplingConfig())
    assert against["signal_to_noise"] == 0.0 and against["supported"] == 1.0


@pytest.mark.parametrize(("n", "counts"), [(4, [1, 4]), (64, [1, 4, 16, 64]), (100, [1, 4, 16, 64, 100])])
def test_counts(n, counts):
    assert scorer.counts_up_to(n) == counts


def test_judges_that_cannot_judge(tmp_path):
    policy = ranked(critic(0), "max_weight")
    policy.save(tmp_path / "own")
    ranked(None, "max_weight").save(tmp_path / "none")
    Policy(make_network(5, 2, hidden_dim=16, num_blocks=2), NoiseSchedule.vp(3), TwinQ(5, 2, 16)
           ).save(tmp_path / "other")
    ranked(critic(1), "max_weight").save(tmp_path / "judge")
    for name, why in (("own", "the policy's own"), ("none", "no critic"), ("other", "states of 5")):
        with pytest.raises(UsageError, match=why):
            scorer.load_judge(str(tmp_path / name), policy)
    assert scorer.load_judge(str(tmp_path / "judge"), policy)[0].state_dim == STATES


def test_the_command_prints_draws_and_records(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def swg_fast(*arguments):
        return CliRunner().invoke(cli, list(arguments))

    write_hdf5(tmp_path / "data.hdf5", make_recording(states=STATES, actions=ACTIONS))
    made = ("train", "mine", "--new-task", "--dataset", "data.hdf5", "--critic-steps", "3",
            "--actor-steps", "3", "--critic-batch", "8", "--actor-batch", "8", "--hidden-dim", "16",
            "--num-steps", "3", "--logger", "none", "--quiet")
    for seed in ("0", "1"):
        done = swg_fast(*made, "--seed", seed, "--out", f"run{seed}")
        assert done.exception is None, done.output
    refused = swg_fast("inspect", "run0", "--record", "--quiet")
    assert "--record needs --judge" in str(refused.exception)
    looked = swg_fast("inspect", "run0", "--judge", "run1", "--judge-candidates", "16", "--states", "8",
                      "--candidates", "4", "--record", "--quiet")
    assert looked.exception is None, looked.exception
    assert "signal to noise" in looked.output and "enough by the judge" in looked.output
    assert (tmp_path / "run0" / "inspect" / "scorer.png").stat().st_size > 5000
    card = json.loads((tmp_path / "run0" / "policy" / "model_card.json").read_text())
    figures = json.loads((tmp_path / "run0" / "inspect" / "inspect.json").read_text())
    assert card["scorer"] == figures["scorer"] and list(card["scorer"]["kept"]) == ["1", "4", "16"]
    assert card["scorer"]["judge"] == "critic of mine, seed 1, 3 steps"
    policy = load_policy("run0/policy")
    assert policy.settings(n_candidates="auto").n_candidates == card["scorer"]["enough"]
