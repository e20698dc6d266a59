"""What the recorded measurements must show, whatever their figures: the pages' words rest on it."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks import auto_candidates
from benchmarks.experiment_tables import RESULTS
from benchmarks.measuring import ROOT
from benchmarks.pages.blocks import recorded
from swg_fast.envs.tasks import presets
from swg_fast.sweep.metrics import Estimate, metric


def test_every_task_was_made_stepped_seeded_and_rendered():
    found = recorded("environments.json")
    assert set(found["tasks"]) == {preset.newer or task for task, preset in presets().items()}  # environments
    for task, row in found["tasks"].items():
        preset = presets()[task]
        assert (row["state_dim"], row["action_dim"], row["max_episode_steps"]) == (
            preset.state_dim, preset.action_dim, preset.max_episode_steps), task
        assert row["made"] and row["stepped"] and row["seeded"] and row["rendered"], task
    assert set(found["families"].values()) == {"works"}


def test_killed_trainings_gave_the_same_policy_and_bad_input_was_refused():
    found = recorded("reliability.json")
    assert found["kills"]["kills"] >= 30 and found["kills"]["same_policy"] == found["kills"]["trainings"]
    assert found["bad_inputs"]["passed"] >= 150 and found["bad_inputs"]["failed"] == 0


def test_whole_runs_resumed_bit_for_bit():
    assert all(recorded("training.json")["whole_run"]["resume"].values())


@pytest.fixture(scope="module")
def judgements():
    return auto_candidates.judgements()


@pytest.mark.parametrize("task", auto_candidates.TASKS)
def test_the_candidates_of_auto_are_within_four_of_what_the_scores_say(task, judgements):
    found = judgements[task]
    assert len(found["rows"]) >= 4 and found["judged"] in found["rows"]
    assert 1 / 4 <= found["judged"] / found["measured"] <= 4


def test_the_number_that_is_enough_by_scores():
    rows = {n: {"normalized_score": score, "interval": {"low": score - 1.96, "high": score + 1.96}}
            for n, score in ((1, 50.0), (4, 58.9), (16, 59.1), (64, 60.0), (256, 57.0))}
    assert auto_candidates.measured(rows) == 16


def test_the_cpu_backend_was_measured_beside_swg_jax():
    assert {"cpu", "swg-jax"} <= {row["backend"] for row in recorded("cpu-bench.json")["results"]}


def test_ten_kernels_have_predictions():
    assert sum(bool(row.get("predicted_thousand_cycles")) for row in recorded("kernels.json")) == 10


def test_triton_3_6_waits_no_more_than_3_9():
    """For products in flight; two more barriers in a trip of the forward loop and three on the way back."""
    newest = [row for row in recorded("kernels.json")
              if "Gluon" in row["kernel"] and row["config"]["hidden_dim"] == 256]
    now, then = (next(row for row in rows if row["config"]["head"] == "joint")
                 for rows in (recorded("kernels-triton-3.6.json")["now"], newest))
    (forward, forward_3_9), (back, back_3_9) = (
        [next(loop for loop in row["matrix_loops"] if loop["products"] == products) for row in (now, then)]
        for products in (2.0, 3.0))
    assert forward["waits_for_products"] == forward_3_9["waits_for_products"]
    assert (forward["barriers"] - forward_3_9["barriers"], back["barriers"] - back_3_9["barriers"]) == (2, 3)


def test_kept_actions_by_another_critic():
    hopper, umaze = (recorded(f"decisions-{name}.json")["parts"] for name in ("hopper", "umaze"))
    assert max(cell["quality"] for cell in hopper["states"].values()) < 0
    tree, eager, few = (umaze["states"][key] for key in ("tree 1024", "ours 1024", "ours 16"))
    assert min(tree["quality"], few["quality"]) > eager["interval"]["low"]
    assert len(umaze["episodes"]) >= 3


def candidates_cells() -> dict[tuple[str, str, int], Estimate]:
    """Task (medium, umaze or large), ranking and N -> its score or success rate in experiments/candidates."""
    found = {}
    for cell in json.loads((RESULTS / "candidates_teachers.json").read_text())["results"]:
        task, settings = cell["task"].split("-")[1], cell["settings"]
        by = metric("score" if task == "medium" else "success")
        found[task, settings["select"], settings["n_candidates"]] = by.estimate([cell])
    return found


def test_which_ranking_of_many_candidates_scores_most():
    found = candidates_cells()
    assert len(found) == 54
    q, weight, expected = "max_q", "max_weight", "expected_weight"

    def apart(task, above, below, n=1024, m=1024):
        return found[task, above, n].low > found[task, below, m].high

    assert apart("medium", weight, expected) and apart("medium", expected, q) and apart("large", weight, q)
    assert not apart("umaze", weight, q) and not apart("large", weight, expected)
    assert apart("medium", weight, weight, 4)  # what it has of four, above what it has of 1,024
    for task in ("medium", "umaze", "large"):
        best, second, third = (found[task, by, 1024].value for by in (weight, expected, q))
        assert best > second > third
    assert apart("umaze", weight, weight, 4, 1)
    assert all(apart("large", by, weight, 16, 1) for by in (weight, expected, q))


def falls(name: str, who: str = "falls") -> float:
    """Falls in 1,000 moving steps."""
    return recorded(f"ends-{name}.json")[who]["moving"]["falls_per_1000_steps"]


def test_ants_fall_as_the_pages_say():
    recorded_steps = recorded("ends-large-play-travel.json")["falls_recorded"]
    assert falls("large-play-travel") == pytest.approx(falls("large-play-travel", "falls_recorded"), rel=0.1)
    still, moving = recorded_steps["still"]["steps"], recorded_steps["moving"]["steps"]
    assert still / (still + moving) == pytest.approx(0.75, abs=0.03)
    assert round(falls("large-play"), 1) == round(falls("large-play-raw"), 1)
    for name in ("umaze-wide", "umaze-wide-cool"):
        assert recorded(f"ends-{name}.json")["counts"]["time_up"] == 0


def test_an_overturned_ant_is_worth_one_that_walks_ten_metres_further_away():
    bands = {tuple(row["metres"]): row for row in recorded("falls-large-play.json")["runs"][0]["bands"]}
    assert bands[10, 20]["overturned"]["v"] == pytest.approx(bands[20, 30]["upright"]["v"], rel=0.02)


@pytest.mark.parametrize("folder", ["benchmarks/results", "experiments/results", "swg_fast/policy/bundled"])
def test_no_record_names_a_place_of_one_machine(folder):
    """Commands and policies by relative paths, which a reader can have too."""
    files = sorted((ROOT / folder).rglob("*.json"))
    found = [(path.name, text) for path in files for text in
             re.findall(r'[\s"=,](/(?:[\w.-]+/)+[\w.-]*)', path.read_text())]
    assert len(files) >= 3 and not found
