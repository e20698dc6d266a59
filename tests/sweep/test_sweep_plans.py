"""A sweep's plan: its grid, its overrides, and the settings that decide a result."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from plans import PLAN, plan_of, resolved

from swg_fast.cli.sweep import sweep
from swg_fast.common.errors import UsageError
from swg_fast.sweep import worker
from swg_fast.sweep.cells import Cell
from swg_fast.sweep.plan_file import read_plan

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


BAD = {
    "unknown part": ("titel = 'x'", "unknown part 'titel'"),
    "no toml": ("title = ", "not valid TOML"),
    "unknown train": ('task = "hopper-medium-v2"\ntrain.critc_steps = 1', "critc_steps"),
    "unknown evaluate": ('task = "hopper-medium-v2"\nevaluate.candidates = 1', "did you mean n_candidates"),
    "range of train": ('task = "hopper-medium-v2"\ntrain.discount = 2.0', "discount"),
    "range of evaluate": ('task = "hopper-medium-v2"\nevaluate.temperature = -1.0', "temperature"),
    "unknown toy": ('toy.name = "donut"', "toy.name is 'donut'"),
    "unknown task": ('task = "hopper-v9"', "did you mean hopper-"),
    "no task": ("[train]\nseed = 1", "no task"),
    "axis without values": ('task = "hopper-medium-v2"\ngrid.train.seed = 1', "needs a list"),
    "axis that is no setting": ('task = "hopper-medium-v2"\ngrid.seed = [1]', "no setting"),
    "both": ('task = "antmaze-umaze-v2"\npolicy = "p"\ntrain.seed = 1', "either a policy or training"),
    "run": ('toy.name = "spiral"\nrun.cores = 1', "unknown setting run.cores"),
    "run's range": ('toy.name = "spiral"\nrun.cpus = 0', "run.cpus is 0"),
    "metric": ('toy.name = "spiral"\n[[report]]\nrows = "name"\nmetrics = ["speed"]', "unknown metric"),
    "override": ('toy.name = "spiral"', "--set", "write it as NAME=VALUE"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_plans_are_refused_before_anything_runs(name, tmp_path):
    text, *_, word = BAD[name]
    (tmp_path / "plan.toml").write_text(text)
    extra = ["--set", "nonsense"] if name == "override" else []
    out = CliRunner().invoke(sweep, [str(tmp_path / "plan.toml"), "--out", str(tmp_path / "out"), *extra])
    assert isinstance(out.exception, UsageError) and word in str(out.exception), out.exception
    assert "\n" not in str(out.exception) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiments_are_known_settings(path):
    plan = read_plan(path)
    cells = resolved(plan)
    assert len(cells) > 1 and plan.title and plan.question
    assert not re.search(r"(^|[\"' ])/\w", path.read_text())  # no paths of one machine
    worker.run_settings(plan.run)
    from swg_fast.sweep.views import check_report

    check_report(plan.report)
