"""n_candidates="auto": the number that another training's critic found enough, for the settings it judged."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from conftest import make_network

from swg_fast.cli.main import cli
from swg_fast.common.errors import UsageError
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.policy.checkpoint import add_to_card
from swg_fast.policy.model_card import JUDGED
from swg_fast.policy.policy import Policy, load_policy
from swg_fast.policy.resolving import judged_settings
from swg_fast.policy.sampling import SamplingConfig
from swg_fast.sweep.cell_checks import Prospect, check_evaluation

OWN = {"temperature": 0.5, "average_share": 0.125, "n_candidates": 256, "weight_clip": [0.5, 3.0]}


def judgement(enough=64, **settings):
    own = SamplingConfig(**OWN | {"weight_clip": (0.5, 3.0)} | settings)
    return {"judge": "critic of mine, seed 1, 3 steps", "enough": enough, "settings": judged_settings(own)}


def judged(scorer, states=4, actions=2):
    return Policy(make_network(states, actions, hidden_dim=16, num_blocks=2), NoiseSchedule.vp(3),
                  card={"task": "mine", "sampling": OWN, JUDGED: scorer})


def test_auto_is_what_the_card_says():
    policy = judged(judgement(64))
    assert policy.settings(n_candidates="auto") == policy.settings(n_candidates=64)
    assert policy.settings().n_candidates == 256  # nothing else of the policy follows the judge
    drawn = policy.sample([0.0] * 4, n_candidates="auto", seed=1, return_candidates=True)
    assert drawn.candidates.shape == (1, 64, 2)


def test_one_candidate_is_drawn_as_one_always_is():
    config = judged(judgement(1)).settings(n_candidates="auto")
    assert (config.n_candidates, config.temperature) == (1, 0.0)


@pytest.mark.parametrize(("scorer", "given", "why"), [
    (None, {}, "this policy's card has none"),
    ({"enough": 64}, {}, "this policy's card has none"),  # without the settings that were judged
    (judgement("many"), {}, "scorer's enough in the policy's card must be a whole number"),
    (judgement(0), {}, "scorer's enough in the policy's card must be"),
    (judgement(), {"temperature": 1.0}, "judged with temperature=0.5, not 1.0"),
    (judgement(), {"average_share": 0.0}, "judged with average_share=0.125, not 0.0"),
    (judgement(), {"sampler": "dpmpp_2m"}, "judged with sampler='ddpm', not 'dpmpp_2m'"),
    (judgement(), {"weight_clip": (0.5, 4.0)}, r"judged with weight_clip=\[0.5, 3.0\], not \[0.5, 4.0\]"),
])
def test_it_is_refused_where_nobody_judged(scorer, given, why):
    with pytest.raises(UsageError, match=why):
        judged(scorer).bind(n_candidates="auto", **given)


def test_a_damaged_judgement_is_refused_at_the_door(tmp_path):
    with pytest.raises(UsageError, match=r"scorer\.enough"):
        judged(judgement("many")).save(tmp_path / "policy")
    folder = judged(judgement(64)).save(tmp_path / "policy")
    add_to_card(folder, scorer={"enough": "many"})
    with pytest.raises(UsageError, match=r"model_card\.json: scorer\.enough"):
        load_policy(folder)


def test_a_config_has_a_number():
    for make in (lambda: SamplingConfig(n_candidates="auto"),
                 lambda: Policy(make_network(4, 2), NoiseSchedule.vp(3), defaults={"n_candidates": "auto"})):
        with pytest.raises(UsageError, match="'auto' is for a call"):
            make()


def test_a_sweep_knows_it_before_it_starts():
    for scorer in (judgement(), None):
        policy = judged(scorer)
        prospect = Prospect(policy.model, policy.config)
        if scorer is not None:
            check_evaluation({"n_candidates": "auto"}, prospect, "cpu")
        else:
            with pytest.raises(UsageError, match="has none"):
                check_evaluation({"n_candidates": "auto"}, prospect, "cpu")


def test_the_command_says_what_it_picked(tmp_path):
    folder = judged(judgement(4), states=11, actions=3).save(tmp_path / "policy")
    done = CliRunner().invoke(cli, ["evaluate", "Hopper-v5", "--policy", str(folder), "--candidates", "auto",
                                    "--episodes", "1", "--episode-limit", "2", "--quiet"])
    assert done.exception is None, done.output
    assert "auto picked N = 4; more gained nothing by the critic of mine, seed 1, 3 steps" in done.output
