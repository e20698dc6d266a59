"""The layout of papers, and a cut of experiments/paper-small.toml from training to its table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import make_recording, run_cli, write_hdf5
from plans import plan_of, resolved

from swg_fast.common.atomic_files import write_json
from swg_fast.common.errors import UsageError
from swg_fast.envs.tasks import preset_for
from swg_fast.policy.policy import load_policy
from swg_fast.sweep import worker
from swg_fast.sweep.cells import resolve
from swg_fast.sweep.estimate import TimeLeft, cell_work, training_work
from swg_fast.sweep.plan_file import read_plan
from swg_fast.sweep.report_page import paper_tables
from swg_fast.sweep.settings import RunSettings
from swg_fast.sweep.store import Store, hash_data, hash_policy
from swg_fast.sweep.tables import caption, markdown, rows

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
PLAN = """
[grid]
task = ["hopper-medium-v2", "hopper-expert-v2", "pen-human-v0"]
train.seed = [0, 1, 2]
evaluate.guidance_scale = [1.0, 5.0]
[[grid.way]]
label = "SWG"
evaluate.n_candidates = 1
[[grid.way]]
label = "SWG-R"
evaluate.n_candidates = 16
[[report]]
layout = "paper"
rows = "task"
columns = "way"
best = "evaluate.guidance_scale"
"""
# Task, way, guidance scale: the scores of the seeds that are done.
SCORES = {
    ("hopper-medium-v2", "SWG", 1.0): [40.0, 50.0, 60.0],
    ("hopper-medium-v2", "SWG", 5.0): [10.0, 20.0, 30.0],
    ("hopper-medium-v2", "SWG-R", 1.0): [52.0, 53.0, 54.0],
    ("hopper-medium-v2", "SWG-R", 5.0): [90.0, 91.0],
    ("hopper-expert-v2", "SWG", 1.0): [70.0, 70.0, 70.0],
    ("hopper-expert-v2", "SWG", 5.0): [100.0, 104.0, 102.0],
    ("hopper-expert-v2", "SWG-R", 5.0): [99.0],
}


def finish(folder, scores=SCORES):
    """A sweep's folder with made-up results of two episodes each."""
    plan = plan_of(folder, PLAN)
    cells, store = resolved(plan), Store(folder / "out")
    store.begin(plan, cells)
    for cell in cells:
        found = scores.get((cell.task, cell.axes["way"], cell.settings["guidance_scale"]), [])
        seed = cell.training.settings["seed"]
        if seed < len(found):
            write_json(store.cell(cell.key), cell.to_json() | {"versions": {}, "seconds": 1.0, "result": {
                "score": found[seed], "scores": [found[seed]] * 2}})
    return folder / "out"


def texts(block):
    return [[cell.text for cell in line] for line in rows(block)]


def test_means_deviations_and_what_is_missing(tmp_path):
    locomotion, adroit = paper_tables(finish(tmp_path))
    assert locomotion.columns == adroit.columns == ["SWG", "SWG-R"]
    assert (locomotion.panel, adroit.panel) == ("locomotion", "adroit")
    assert texts(locomotion) == [
        ["task", "SWG", "SWG-R"],
        ["hopper-expert-v2", "102.0 ± 2.0", "99.0 (1 of 3 seeds)"],
        ["hopper-medium-v2", "50.0 ± 10.0", "53.0 ± 1.0"],  # the scale with all seeds, not the higher one
        ["mean", "76.0", "76.0"]]
    bold = [[cell.bold for cell in line] for line in rows(locomotion)]
    assert bold[1:3] == [[False, True, False], [False, False, True]]  # 50 is not within 1 of 53
    assert texts(adroit) == [["task", "SWG", "SWG-R"], ["pen-human-v0", "", ""], ["mean", "", ""]]
    said = caption(locomotion)
    assert "over 1 or 3 seed(s)" in said and "of 2 episode(s)" in said
    assert "hopper-expert-v2 SWG 5;" in said and "hopper-medium-v2 SWG-R 1" in said
    assert "| hopper-medium-v2 | 50.0 ± 10.0 | **53.0 ± 1.0** |" in markdown([locomotion], "")


def test_bold_is_within_one_deviation_of_the_best(tmp_path):
    hopper = "hopper-medium-v2"
    scores = {(hopper, "SWG", 1.0): [40.0, 50.0, 60.0], (hopper, "SWG-R", 1.0): [41.0] * 3}
    block = paper_tables(finish(tmp_path, scores))[0]
    (row,) = [line for line in rows(block) if line[0].text == "hopper-medium-v2"]
    assert [cell.bold for cell in row] == [False, True, True]
    assert texts(block)[-1] == ["mean", "", ""]  # of two tasks one is missing


@pytest.mark.slow
def test_the_report_has_it_on_the_terminal_and_in_its_files(tmp_path):
    finish(tmp_path)
    out = run_cli("report", "out", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    assert "102.0 ± 2.0" in out.stdout and "pen-human-v0" in out.stdout
    folder = tmp_path / "out" / "report"
    assert "**102.0 ± 2.0**" in (folder / "tables.md").read_text()
    assert r"\textbf{102.0 ± 2.0}" in (folder / "tables.tex").read_text()
    assert "<b>102.0 ± 2.0</b>" in (folder / "index.html").read_text()
    assert (folder / "1-score.png").stat().st_size > 10_000
    again = run_cli("report", "out/report/results.json", "--out", "again", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    for name in ("tables.md", "tables.csv", "results.json"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


BAD = {
    "no columns": ('layout = "paper"\nrows = "task"', "rows = \"task\" and columns"),
    "other rows": ('layout = "paper"\nrows = "way"\ncolumns = "task"', "rows = \"task\" and columns"),
    "metrics": ('layout = "paper"\nrows = "task"\ncolumns = "way"\nmetrics = ["score"]', "take metrics out"),
    "another layout": ('layout = "wide"\nrows = "task"\ncolumns = "way"', "layout"),
    "best alone": ('rows = "task"\nbest = "evaluate.guidance_scale"', 'best is for layout = "paper"'),
    "best of nothing": ('layout = "paper"\nrows = "task"\ncolumns = "way"\nbest = "guidnce"', "names"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_layout_that_makes_no_sense_is_refused(name, tmp_path):
    view, words = BAD[name]
    (tmp_path / "plan.toml").write_text(PLAN.partition("[[report]]")[0] + "[[report]]\n" + view)
    out = run_cli("sweep", "plan.toml", "--dry-run", cwd=tmp_path)
    assert out.returncode == 2 and words in out.stderr and out.stderr.count("\n") == 1, out.stderr


def test_students_have_their_own_key_and_work(tmp_path):
    """Without [distill] a key is what it was; a student's training comes after its teacher's."""
    text = ('task = "hopper-medium-v2"\n[[points]]\n[[points.way]]\nlabel = "teacher"\n'
            'evaluate.n_candidates = 1\n[[points.way]]\nlabel = "student"\ndistill.steps = 10')
    teacher, student = resolved(plan_of(tmp_path, text))
    (alone,) = resolved(plan_of(tmp_path, 'task = "hopper-medium-v2"'))
    assert teacher.training.key == alone.training.key == student.training.teacher.key != student.training.key
    assert student.training.distill["steps"] == 10 and not teacher.training.distill
    trainings, missing = Store(tmp_path / "out").pending([student])
    assert trainings == [teacher.training, student.training] and missing == [student]
    left = TimeLeft(trainings, missing, 1).kinds["train"].left
    assert left == pytest.approx(training_work(teacher.training) + training_work(student.training))
    assert training_work(student.training) < 0.1 * training_work(teacher.training)
    assert cell_work(student) < cell_work(alone)
    changed = resolved(plan_of(tmp_path, text, "distill.steps=20"))
    assert [cell.training.distill.get("steps") for cell in changed] == [None, 20]


@pytest.mark.parametrize("line, words", [
    ("distill.stps = 3", "[distill] unknown setting 'stps'; did you mean steps"),
    ("distill.guidance_scale = 5.0\nevaluate.guidance_scale = 1.0", "has learnt guidance_scale=5"),
    ("distill.of_best = 16\ndistill.calls = 2", "[distill] calls=2 with of_best=16"),
    ('distill.steps = 3\nevaluate.sampler = "ddpm"', "this policy is a student"),
    ('policy = "hopper-medium-v2"\ndistill.steps = 3', "either a policy or training settings")])
def test_a_student_that_cannot_be_is_refused(line, words, tmp_path):
    with pytest.raises(UsageError) as error:
        resolved(plan_of(tmp_path, f'task = "hopper-medium-v2"\n{line}'))
    assert words in str(error.value)


def test_the_paper_has_the_authors_settings():
    """Those of https://github.com/atagle123/SWG-JAX, in wide mazes too, whose presets have others."""
    cells = resolved(read_plan(EXPERIMENTS / "paper.toml"))
    trainings = {cell.training.key: cell.training for cell in cells}.values()
    assert (len(cells), len(trainings)) == (20 * 5 * 7 * 3, 20 * 5 * 2)
    families = Counter(preset_for(task).family for task in {cell.task for cell in cells})
    assert families == {"locomotion": 9, "antmaze": 6, "kitchen": 3, "adroit": 2}
    theirs = {"critic_steps": 500_000, "critic_batch": 256, "critic_lr": 3e-4, "actor_steps": 1_000_000,
              "actor_batch": 1024, "actor_lr": 3e-4, "num_steps": 15, "schedule": "vp", "discount": 0.99,
              "polyak": 0.005, "hidden_dim": 256, "num_blocks": 3, "dropout": 0.1, "ema_rate": 0.001,
              "weight_function": "expectile", "value_norm": True, "action_noise": 0.0, "min_travel": 0.0,
              "clip_targets": False, "critic_cosine_decay": False, "held_out": 0.05}
    for training in trainings:
        expectile = 0.9 if training.task.startswith("antmaze") else 0.7
        assert training.settings.items() >= (theirs | {"expectile": expectile}).items(), training.task
        assert training.task.endswith("-v2") == (preset_for(training.task).family == "locomotion")
    assert {cell.settings["episodes"] for cell in cells} == {50}


@pytest.mark.slow
def test_a_cut_of_the_small_paper(tmp_path):
    data = write_hdf5(tmp_path / "hopper.hdf5", make_recording(states=11, actions=3))
    hand = write_hdf5(tmp_path / "pen.hdf5", make_recording(states=45, actions=24))
    plan = read_plan(EXPERIMENTS / "paper-small.toml", (
        'task=["hopper-medium-v2", "pen-human-v0"]', "train.seed=[0]", "evaluate.guidance_scale=[1.0]",
        "train.critic_steps=4", "train.actor_steps=4", "distill.steps=4", "distill.pairs=64",
        "evaluate.episodes=1", f"dataset.hopper-medium-v2={data}", f"dataset.pen-human-v0={hand}"))
    cells, store = resolve(plan, hash_data, hash_policy), Store(tmp_path / "out")
    store.begin(plan, cells)
    trainings, missing = store.pending(cells)
    assert (len(trainings), len(missing)) == (4, 6)
    mine = [cell for cell in missing if cell.task == "hopper-medium-v2"]
    for training in {cell.training.key: cell.training for cell in mine}.values():
        worker.run_training(training, store, RunSettings())
    assert [cell.axes["way"] for cell in mine] == ["SWG", "SWG-R", "student"]
    scores = [worker.run_cell(cell, store, RunSettings())["result"]["score"] for cell in (mine[0], mine[2])]
    assert np.isfinite(scores).all()
    student = load_policy(store.training(mine[2].training.key) / "policy")
    assert student.config.sampler == "student" and student.model.walk.guidance_scale == (1.0, 5.0)
    again = store.pending(cells)
    assert (len(again[0]), len(again[1])) == (2, 4)  # the pen, and one of the hopper
    locomotion, adroit = paper_tables(store.folder)
    assert texts(locomotion)[1] == ["hopper-medium-v2", f"{scores[0]:.1f}", "", f"{scores[1]:.1f}"]
    assert texts(adroit)[1] == ["pen-human-v0", "", "", ""]
