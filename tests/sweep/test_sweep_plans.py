"""A sweep's plan: its grid, its overrides, and the settings that decide a result."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from plans import PLAN, plan_of, resolved

from swg_fast.method.networks import EnsembleQ, Ranker
from swg_fast.policy.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from swg_fast.policy.model_card import FITTED
from swg_fast.sweep.cells import Cell
from swg_fast.sweep.plan_file import read_plan
from swg_fast.sweep.settings import RunSettings, section

EXPERIMENTS = sorted((Path(__file__).parents[2] / "experiments").glob("*.toml"))


def test_grid_and_points_give_every_cell_once(tmp_path):
    cells = resolved(plan_of(tmp_path, PLAN))
    assert len(cells) == 2 * 3 * 2 + 2 == len({cell.key for cell in cells})
    # All guidance scales, and both numbers of candidates, share trainings.
    assert len({cell.training.key for cell in cells}) == 2 * 2 + 1
    one = next(c for c in cells if c.axes.get("weights") == "exp(3 u)" and c.training.settings["seed"] == 1)
    assert one.training.settings["weight_parameter"] == 3.0 and one.training.settings["critic_steps"] == 100
    assert one.training.settings["reward_transform"] == "return_range"  # the preset's
    maze = [cell for cell in cells if cell.task == "antmaze-umaze-v2"]
    assert [cell.settings["n_candidates"] for cell in maze] == [1, 64]
    assert maze[0].training.settings["expectile"] == 0.9 and maze[0].axes == {"evaluate.n_candidates": 1}
    assert [Cell.from_json(json.loads(json.dumps(cell.to_json()))) for cell in cells] == cells


def test_names_stand_for_what_decides_a_result(tmp_path):
    first = resolved(plan_of(tmp_path, PLAN))[0]
    same = ("evaluate.workers=2", "run.threads=2", "train.discount=0.99")  # irrelevant, or the default
    other = ("train.discount=0.98", "evaluate.episodes=6", "dataset=new.hdf5", "train.seed=[7]")
    for override in same:
        assert resolved(plan_of(tmp_path, PLAN, override))[0].key == first.key, override
    for override in other:
        assert resolved(plan_of(tmp_path, PLAN, override))[0].key != first.key, override


def test_set_reaches_axes_points_and_one_tasks_data(tmp_path):
    cells = resolved(plan_of(tmp_path, PLAN, "train.seed=[5]", "train.weight_parameter=0.5",
                             "evaluate.guidance_scale=2.0"))
    assert len(cells) == 2 + 2
    hopper = [cell for cell in cells if cell.task == "hopper-medium-v2"]
    assert {cell.training.settings["seed"] for cell in hopper} == {5}
    assert {cell.training.settings["weight_parameter"] for cell in hopper} == {0.5}
    assert {cell.settings["guidance_scale"] for cell in cells} == {2.0}
    text = PLAN.replace('dataset = "data.hdf5"\n', "").replace('dataset = "other.hdf5"\n', "")
    cells = resolved(plan_of(tmp_path, text, "dataset.hopper-medium-v2=/there/h.hdf5"))
    assert {cell.training.source for cell in cells} == {"/there/h.hdf5", "antmaze-umaze-v2"}


def stand_in(folder):
    """A bundled policy in place of one that is made by hand; with ensembles, if it is ranked."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = {"umaze": "antmaze-umaze-v2", "large": "antmaze-large-play-v2"}
    task = place.get(folder.parent.name.split("-")[0], "hopper-medium-v2")
    if folder.exists():
        return
    if "ranked" not in str(folder):
        folder.symlink_to(find_checkpoint(task))
        return
    model = load_checkpoint(task)
    sizes = model.state_dim, model.network.action_dim, 16
    model = replace(model, ranker=Ranker(*sizes, 5), critics=EnsembleQ(*sizes, 5))
    fitted = {"temperature": 1.0, "states": 1, "candidates": 1, "sampler": "ddpm", "guidance_scale": 1.0}
    save_checkpoint(folder, model.with_card(**{FITTED: fitted}))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiments_are_known_settings(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for made in re.findall(r'policy = "(runs/[^"]*)"', path.read_text()):  # by hand, before it
        stand_in(tmp_path / made)
    plan = read_plan(path)
    cells = resolved(plan)
    assert len(cells) > 1 and plan.title and plan.question
    assert not re.search(r"(^|[\"' ])/\w", path.read_text())  # no paths of one machine
    section("run", RunSettings, plan.run)
    from swg_fast.sweep.views import check_report

    check_report(plan.report)
