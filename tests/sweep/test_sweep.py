"""Sweeps without Ray: the grid, the names of results, what is missing, the report."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.stats import trim_mean

from swg_fast.cli.sweep import report, sweep
from swg_fast.common.atomic_files import read_json, write_json
from swg_fast.common.errors import UsageError
from swg_fast.evaluation.toy import run_toy
from swg_fast.policy.checkpoint import CARD, load_checkpoint
from swg_fast.sweep import metrics, store, worker
from swg_fast.sweep.cells import Cell, resolve
from swg_fast.sweep.estimate import TimeLeft, cell_work, training_work
from swg_fast.sweep.live import duration
from swg_fast.sweep.plan_file import read_plan
from swg_fast.sweep.ray_runner import slots, spread
from swg_fast.sweep.report_page import write_report
from swg_fast.sweep.store import Store, locked, transitions_hash
from swg_fast.training.loop import LoopOptions
from swg_fast.training.run import train
from swg_fast.training.settings import TrainSettings

pytestmark = pytest.mark.slow

EXPERIMENTS = sorted((Path(__file__).parents[2] / "experiments").glob("*.toml"))

PLAN = """
title = "A plan"
task = "hopper-medium-v2"
dataset = "data.hdf5"
[train]
critic_steps = 100
[evaluate]
n_candidates = 16
episodes = 5
[grid]
train.seed = [0, 1]
evaluate.guidance_scale = [0.0, 1.0, 5.0]
[[grid.weights]]
train.weight_function = "expectile"
[[grid.weights]]
label = "exp(3 u)"
train.weight_function = "exponential"
train.weight_parameter = 3.0
[[points]]
task = "antmaze-umaze-v2"
dataset = "other.hdf5"
evaluate.n_candidates = [1, 64]
"""


def plan_of(folder, text, *overrides):
    (folder / "plan.toml").write_text(text)
    return read_plan(folder / "plan.toml", overrides)


def resolved(plan):
    return resolve(plan, lambda task, source: f"data of {source}", lambda name: f"policy {name}")


def test_grid_and_points_give_every_cell_once(tmp_path):
    cells = resolved(plan_of(tmp_path, PLAN))
    assert len(cells) == 2 * 3 * 2 + 2 == len({cell.key for cell in cells})
    # Trainings are shared: by all guidance scales, and by both numbers of candidates.
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
    same = ("evaluate.workers=2", "run.threads=2", "train.discount=0.99")  # nothing, or the default
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
    assert not re.search(r"(^|[\"' ])/\w", path.read_text())  # no machine's own paths
    worker.run_settings(plan.run)
    from swg_fast.sweep.views import check_report

    check_report(plan.report)


def test_data_hash_is_of_the_arrays(dataset_file):
    from swg_fast.data import load_dataset

    data = load_dataset(dataset_file, continues_after_terminal=True)
    assert transitions_hash(data) == store.hash_data("antmaze-umaze-v2", str(dataset_file))
    changed = load_dataset(dataset_file)
    changed.rewards[3] += 1e-3
    assert transitions_hash(changed) != transitions_hash(data)


def test_a_folder_has_one_sweep_at_a_time(tmp_path):
    with locked(tmp_path / "lock"), pytest.raises(UsageError, match="another sweep"), \
            locked(tmp_path / "lock"):
        pass
    with locked(tmp_path / "lock"):
        pass


TOY = """
title = "Toys"
[toy]
steps = 2
batch = 8
hidden_dim = 16
samples = 20
[grid]
toy.name = ["spiral", "rings"]
toy.seed = [0, 1, 2]
"""


def test_only_what_is_missing_is_pending(tmp_path):
    plan = plan_of(tmp_path, TOY)
    cells, folder = resolved(plan), Store(tmp_path / "out")
    folder.begin(plan, cells)
    run = worker.run_settings({})
    for cell in cells[:2]:
        worker.run_cell(cell, folder, run)
    assert folder.pending(cells) == ([], cells[2:])
    assert not folder.marks()
    value = json.loads(folder.cell(cells[0].key).read_text())
    assert value["settings"]["steps"] == 2 and value["versions"]["torch"]
    again = worker.run_cell(cells[0], Store(tmp_path / "again"), run)
    assert again["result"] == value["result"]
    out = CliRunner().invoke(sweep, [str(tmp_path / "plan.toml"), "--out", str(folder.folder), "--dry-run"])
    assert "6 cells (2 done)" in out.output and "from one cell timed" in out.output, out.output
    assert folder.pending(cells) == ([], cells[2:])  # a dry run runs nothing


def test_a_training_is_shared_and_taken_up(tmp_path, dataset_file):
    plan = plan_of(tmp_path, f"""
        task = "antmaze-umaze-v2"
        dataset = "{dataset_file}"
        train = {{critic_steps = 12, actor_steps = 12, critic_batch = 8, actor_batch = 8, hidden_dim = 16}}
        evaluate = {{episodes = 1, n_candidates = 1}}
        rank = {{states = 3, candidates = 6}}
        grid.evaluate.select = ["max_weight", "expected_weight"]""")
    cells = resolve(plan, store.hash_data, store.hash_policy)
    folder, run = Store(tmp_path / "out"), worker.run_settings({"save_every": 4, "log_every": 4})
    folder.begin(plan, cells)
    (training,), missing = folder.pending(cells)
    assert missing == cells
    worker.run_training(training, folder, run)
    assert folder.pending(cells) == ([], cells)
    alone = train(store.load(training.task, training.source), TrainSettings.from_dict(training.settings),
                  tmp_path / "alone", options=LoopOptions(tmp_path, log_every=4, progress=False))
    assert (alone / "model.safetensors").read_bytes() == (
        folder.training(training.key) / "policy" / "model.safetensors").read_bytes()
    saved = (folder.training(training.key) / "policy" / "model.safetensors").stat().st_mtime_ns
    worker.run_training(training, folder, run)  # nothing left to do
    assert (folder.training(training.key) / "policy" / "model.safetensors").stat().st_mtime_ns == saved
    value = worker.run_cell(cells[0], folder, run)
    found = value["result"]
    by_expected = worker.run_cell(cells[1], folder, run)["result"]["rank_correlations"]
    assert by_expected != found["rank_correlations"]  # of the weight that ranks, not of the sampled one
    assert found["training"]["held_out_losses"].keys() == read_json(alone / CARD)["training"][
        "held_out_losses"].keys()
    assert value["training"]["data_hash"] == store.hash_data("antmaze-umaze-v2", str(dataset_file))
    assert len(found["scores"]) == 1 and found["successes"] in (0, 1)
    assert len(found["rank_correlations"]) == 3 and all(-1 <= r <= 1 for r in found["rank_correlations"])
    pages = write_report(folder.folder)
    assert (tmp_path / "out" / "report" / "curves.png") in pages
    (tmp_path / "plan.toml").write_text("")
    dataset_file.write_bytes(b"")
    with pytest.raises(UsageError):
        worker.run_training(training, Store(tmp_path / "elsewhere"), run)


def test_trainings_share_a_critic(tmp_path, dataset_file):
    """By whatever does not decide it; the second takes it up, and has its log."""
    plan = plan_of(tmp_path, f"""
        task = "antmaze-umaze-v2"
        dataset = "{dataset_file}"
        train = {{critic_steps = 12, actor_steps = 4, critic_batch = 8, actor_batch = 8, hidden_dim = 16}}
        grid.train.seed = [0, 1]
        grid.train.weight_function = ["dice", "family"]""")
    cells = resolve(plan, store.hash_data, store.hash_policy)
    trainings = [cell.training for cell in cells]
    a, b, c, d = trainings
    assert a.critic_key == b.critic_key != c.critic_key == d.critic_key
    assert spread(trainings) == [a, c, b, d]
    older = [replace(t, settings=t.settings.copy()) for t in (a, b)]
    for training in older:  # which a version without it left: reports go on
        del training.settings["clip_targets"]
    assert older[0].critic_key == older[1].critic_key
    clock = TimeLeft(trainings, [], 1)
    assert clock.kinds["train"].left == pytest.approx(
        2 * training_work(a) + 2 * training_work(b, critic=False))
    folder, run = Store(tmp_path / "out"), worker.run_settings({"log_every": 4})
    worker.run_training(a, folder, run)
    (state,) = folder.critic(a.critic_key).glob("states/critic-*.safetensors")
    written = state.stat().st_mtime_ns
    worker.run_training(b, folder, run)
    assert state.stat().st_mtime_ns == written and folder.history(b)["critic"][-1]["step"] == 12
    first, second = (load_checkpoint(folder.training(t.key) / "policy") for t in (a, b))
    assert torch.equal(first.critic.weights[0], second.critic.weights[0])
    assert second.card["weight_family"] and "weight_family" not in first.card
    state.unlink()
    with pytest.raises(UsageError, match="no saved critic of 12 steps"):
        train(store.load(a.task, a.source), TrainSettings.from_dict(b.settings), tmp_path / "none",
              critic=folder.critic(a.critic_key))


def test_toys_share_a_training(tmp_path):
    cells = resolved(plan_of(tmp_path, TOY + 'toy.sampler = ["ddpm", "ddpm_x0"]'))
    folder, run = Store(tmp_path / "out"), worker.run_settings({})
    found = [worker.run_cell(cell, folder, run)["result"] for cell in cells[:2]]
    assert len(list((folder.folder / "trainings").glob("*/policy"))) == 1 and found[0] != found[1]
    alone = run_toy(**cells[1].settings, progress=False)
    assert found[1]["distances"] == alone.distances


def results(folder, rows):
    """A sweep's folder with made-up results: (task, N, training seed, scores)."""
    cells = []
    for task, n, seed, scores in rows:
        plan = plan_of(folder, f'task = "{task}"\ntrain.seed = {seed}\nevaluate.n_candidates = {n}')
        (cell,) = resolved(plan)
        found = {"scores": scores, "score": float(np.mean(scores)),
                 "episode_lengths": [10] * len(scores), "seconds": {"sampling": 1.0}}
        if task.startswith("antmaze"):
            found["successes"] = sum(score > 50 for score in scores)
        cells.append(cell)
        write_json(Store(folder / "out").cell(cell.key), cell.to_json() | {
            "result": found, "versions": {"torch": "1"}, "seconds": 2.0})
    return cells


def test_report_has_tables_pictures_and_one_page(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(task, n, seed, (100 * (rng.random(8) < 0.3 + n / 100)).tolist())
            for task in ("antmaze-umaze-v2", "antmaze-large-play-v2") for n in (1, 4, 16)
            for seed in (0, 1, 2)]
    cells = results(tmp_path, rows)
    plan = plan_of(tmp_path, """title = "Score <against> N & more"
task = "hopper-medium-v2"
[[report]]
rows = "evaluate.n_candidates"
columns = "task"
metrics = ["success", "iqm"]
[[report]]
rows = "task"
columns = "evaluate.n_candidates"
metrics = ["iqm"]""")
    Store(tmp_path / "out").begin(plan, cells)
    out = CliRunner().invoke(report, [str(tmp_path / "out")])
    assert out.exit_code == 0, out.output
    folder = tmp_path / "out" / "report"
    assert {path.name for path in folder.iterdir()} == {
        "tables.md", "tables.tex", "tables.csv", "1-success.png", "1-iqm.png", "2-iqm.png", "index.html",
        "results.json"}
    page = (folder / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and "Score &lt;against&gt; N &amp; more" in page
    assert not re.search(r'(src|href)="(?!data:)', page)  # opens from disk, alone
    good = sum(s > 50 for task, n, _, scores in rows if (task, n) == ("antmaze-umaze-v2", 4) for s in scores)
    share = f"{100 * good / 24:.1f}"
    markdown = (folder / "tables.md").read_text()
    assert re.search(rf"^\| 4 \| {share} \[", markdown, re.M) and "24 episodes" in markdown
    assert r"N \& more" in (folder / "tables.tex").read_text()
    assert len((folder / "tables.csv").read_text().splitlines()) == 1 + 3 * 6


@pytest.mark.parametrize("length", [3, 14, 30, 60])
def test_a_legend_fits_below_its_picture(length):
    from matplotlib.figure import Figure

    from swg_fast.sweep.plots import legend_below

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for i in range(6):
        axes.errorbar([0], [i], label=f"{i} " + ("highest weight of some " * 3)[:length])
    legend = legend_below(figure, *axes.get_legend_handles_labels(), most=4, fontsize=9)
    figure.canvas.draw()
    box, page = legend.get_window_extent(), figure.bbox
    assert page.x0 <= box.x0 and box.x1 <= page.x1 and box.width > 0
    assert length > 3 or box.height < page.height / 6  # few lines where it can


def test_a_picture_cuts_no_marker_and_names_stand_apart(tmp_path, monkeypatch):
    """A marker at 100 % has room above it; turned names end below their ticks, before the next one's."""
    from matplotlib.figure import Figure

    from swg_fast.sweep.metrics import METRICS, Estimate
    from swg_fast.sweep.plots import draw
    from swg_fast.sweep.views import Block, View

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: (figures.append(figure), path.touch()))
    names = [f"dpmpp_2m_sde, {steps}" for steps in (4, 6, 8, 10, 12, 15)]
    view = View("T", "walk", None, [], ["success"], {})
    values = {(name, None): Estimate(100.0, 84.0, 100.0, 1, 20) for name in names}
    draw([Block(view, METRICS["success"], "success", "", names, [None], values)], tmp_path / "p.png")
    figure = figures[0]
    figure.canvas.draw()
    axes = figure.axes[0]
    assert axes.get_ylim()[0] == 0 and axes.transData.transform((0, 100))[1] + 5 < axes.bbox.y1
    for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True):
        assert label.get_window_extent().x1 < axes.transData.transform((tick + 0.5, 0))[0]


def test_a_report_can_be_made_from_its_json(tmp_path):
    rows = [("hopper-medium-v2", n, seed, [30.0 + n + seed, 40.0]) for n in (1, 4) for seed in (0, 1)]
    plan = plan_of(tmp_path, 'title = "T"\ntask = "hopper-medium-v2"\n[[report]]\nrows = "n_candidates"')
    Store(tmp_path / "out").begin(plan, results(tmp_path, rows))
    write_report(tmp_path / "out")
    first, again = tmp_path / "out" / "report", tmp_path / "again"
    assert str(tmp_path) not in (first / "results.json").read_text()
    write_report(first / "results.json", again)
    names = {path.name for path in first.iterdir()}
    assert names == {path.name for path in again.iterdir()} and "1-iqm.png" in names
    for name in names - {name for name in names if name.endswith(".png")}:
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UsageError, match="not a report's results.json"):
        write_report(tmp_path / "other.json")


def test_report_of_nothing_is_one_line(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError):
            write_report(folder)


def test_interquartile_mean_is_resampled_within_tasks():
    """Two tasks of quite other scores: resampling over both at once would be far wider."""
    rng = np.random.default_rng(0)
    strata = [10 + rng.standard_normal(5), 90 + rng.standard_normal(5)]
    low, high = metrics.stratified(strata, metrics.interquartile_mean)
    value = metrics.interquartile_mean(np.concatenate(strata))
    assert value == pytest.approx(trim_mean(np.concatenate(strata), 0.25)) and low < value < high
    by_hand = [trim_mean(np.concatenate([rng.choice(part, 5) for part in strata]), 0.25) for _ in range(4000)]
    np.testing.assert_allclose([low, high], np.quantile(by_hand, [0.025, 0.975]), atol=0.5)
    assert high - low < 15
    assert metrics.stratified([[1.0], [2.0]], metrics.interquartile_mean) is None
    # A task with one run stands still while the other is resampled.
    low, high = metrics.stratified([[0.0], [1.0, 3.0]], lambda values, axis: values.mean(axis=axis))
    assert (low, high) == pytest.approx((2 / 3, 2.0))


@pytest.mark.parametrize("cpus,gpus,expected", [(1, 0.2, 10), (4, 0.25, 3), (0.1, 0, 120), (12, 1, 1),
                                                (6, 1, 2), (1, 0.6, 2), (1, 2, 1)])
def test_how_many_cells_run_at_once(cpus, gpus, expected):
    """Shares of a device that no binary fraction is, too."""

    class Machine:
        @staticmethod
        def nodes():
            return [{"Alive": True, "Resources": {"CPU": 12.0, "GPU": 2.0}}]

        @staticmethod
        def cluster_resources():
            return {"CPU": 12.0, "GPU": 2.0}

    assert slots(Machine, worker.RunSettings(cpus, gpus)) == expected
    with pytest.raises(UsageError, match="asks for 13"):
        slots(Machine, worker.RunSettings(13, gpus))


def test_time_left_is_by_kind_and_shared_by_slots(tmp_path):
    cells = resolved(plan_of(tmp_path, TOY))
    clock = TimeLeft([], cells, slots=2)
    assert clock.seconds() is None
    clock.add(cells[0], 10.0)
    assert clock.seconds() == pytest.approx(5 * 10 / 2)
    clock.add(cells[1], None)  # failed: no longer left, and no time learned
    assert clock.seconds() == pytest.approx(4 * 10 / 2)
    big = resolved(plan_of(tmp_path, PLAN))
    assert cell_work(big[-1]) > cell_work(big[-2]) * 0.99
    assert [duration(s) for s in (None, 9, 187, 3900)] == ["not known yet", "9 s", "3:07 min", "1:05 h"]
