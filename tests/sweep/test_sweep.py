"""A sweep without Ray: names of results, missing results, shared results."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from plans import PLAN, TOY, plan_of, resolved

from swg_fast.cli.sweep import sweep
from swg_fast.common.errors import UsageError
from swg_fast.common.read_files import read_json
from swg_fast.data.load import load_for
from swg_fast.evaluation.toy import run_toy
from swg_fast.policy.checkpoint import CARD, load_checkpoint
from swg_fast.sweep import store, worker
from swg_fast.sweep.cells import Cell, resolve
from swg_fast.sweep.estimate import TimeLeft, Timing, cell_work, cost, training_work
from swg_fast.sweep.live import duration
from swg_fast.sweep.ray_runner import slots, spread
from swg_fast.sweep.report_page import write_report
from swg_fast.sweep.settings import RunSettings
from swg_fast.sweep.store import Store, locked
from swg_fast.training.loop import LoopOptions
from swg_fast.training.run import train
from swg_fast.training.settings import TrainSettings


def test_data_hash_is_of_the_arrays(dataset_file):
    from swg_fast.data import load_dataset

    data = load_dataset(dataset_file, continues_after_terminal=True)
    assert data.fingerprint() == store.hash_data("antmaze-umaze-v2", str(dataset_file))
    changed = load_dataset(dataset_file)
    changed.rewards[3] += 1e-3
    assert changed.fingerprint() != data.fingerprint()


def test_a_folder_has_one_sweep_at_a_time(tmp_path):
    with locked(tmp_path / "lock"), pytest.raises(UsageError, match="another sweep"), \
            locked(tmp_path / "lock"):
        pass
    with locked(tmp_path / "lock"):
        pass


@pytest.mark.slow
def test_only_what_is_missing_is_pending(tmp_path):
    plan = plan_of(tmp_path, TOY)
    cells, folder = resolved(plan), Store(tmp_path / "out")
    folder.begin(plan, cells)
    run = RunSettings()
    for cell in cells[:2]:
        worker.run_cell(cell, folder, run)
    assert folder.pending(cells) == ([], cells[2:])
    assert not folder.marks()
    value = json.loads(folder.cell(cells[0].key).read_text())
    assert value["settings"]["steps"] == 2 and value["provenance"]["versions"]["torch"]
    again = worker.run_cell(cells[0], Store(tmp_path / "again"), run)
    assert again["result"] == value["result"]
    out = CliRunner().invoke(sweep, [str(tmp_path / "plan.toml"), "--out", str(folder.folder), "--dry-run"])
    assert "6 cells (2 done)" in out.output and "from one cell timed" in out.output, out.output
    assert "CPU hours to toy, on " in out.output
    assert folder.pending(cells) == ([], cells[2:])  # a dry run runs nothing


@pytest.mark.slow
def test_a_training_is_shared_and_taken_up(tmp_path, dataset_file):
    plan = plan_of(tmp_path, f"""
        task = "antmaze-umaze-v2"
        dataset = "{dataset_file}"
        train = {{critic_steps = 12, actor_steps = 12, critic_batch = 8, actor_batch = 8, hidden_dim = 16}}
        evaluate = {{episodes = 1, n_candidates = 1}}
        rank = {{states = 3, candidates = 6}}
        grid.train.num_steps = [3]
        grid.evaluate.select = ["max_weight", "expected_weight"]""")
    cells = resolve(plan, store.hash_data, store.hash_policy)
    folder, run = Store(tmp_path / "out"), RunSettings(save_every=4, log_every=4)
    folder.begin(plan, cells)
    (training,), missing = folder.pending(cells)
    assert missing == cells
    worker.run_training(training, folder, run)
    assert folder.pending(cells) == ([], cells)
    alone = train(load_for(training.task, training.source), TrainSettings.from_dict(training.settings),
                  tmp_path / "alone", options=LoopOptions(tmp_path, log_every=4, progress=False))
    assert (alone / "model.safetensors").read_bytes() == (
        folder.training(training.key) / "policy" / "model.safetensors").read_bytes()
    saved = (folder.training(training.key) / "policy" / "model.safetensors").stat().st_mtime_ns
    worker.run_training(training, folder, run)  # nothing left to do
    assert (folder.training(training.key) / "policy" / "model.safetensors").stat().st_mtime_ns == saved
    value = worker.run_cell(cells[0], folder, run)
    found = value["result"]
    by_expected = worker.run_cell(cells[1], folder, run)["result"]["rank_correlations"]
    assert by_expected != found["rank_correlations"]  # it uses the ranking weight, not the sampled one
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


@pytest.mark.slow
def test_trainings_share_a_critic(tmp_path, dataset_file):
    """Trainings whose settings differ only after the critic share it: the second loads it, with its log."""
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
    for training in older:  # in the form of an older version, which reports still read
        del training.settings["clip_targets"]
    assert older[0].critic_key == older[1].critic_key
    clock = TimeLeft(trainings, [], 1)
    assert clock.kinds["train"].left == pytest.approx(
        2 * training_work(a) + 2 * training_work(b, critic=False))
    folder, run = Store(tmp_path / "out"), RunSettings(log_every=4)
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
        train(load_for(a.task, a.source), TrainSettings.from_dict(b.settings), tmp_path / "none",
              critic=folder.critic(a.critic_key))


def test_toys_share_a_training(tmp_path):
    cells = resolved(plan_of(tmp_path, TOY + 'toy.sampler = ["ddpm", "ddpm_x0"]'))
    folder, run = Store(tmp_path / "out"), RunSettings()
    found = [worker.run_cell(cell, folder, run)["result"] for cell in cells[:2]]
    assert len(list((folder.folder / "trainings").glob("*/policy"))) == 1 and found[0] != found[1]
    alone = run_toy(**cells[1].settings, progress=False)
    assert found[1]["distances"] == alone.distances


@pytest.mark.parametrize("cpus,gpus,expected", [(1, 0.2, 10), (4, 0.25, 3), (0.1, 0, 120), (12, 1, 1),
                                                (6, 1, 2), (1, 0.6, 2), (1, 2, 1)])
def test_how_many_cells_run_at_once(cpus, gpus, expected):
    """Shares of a device may be fractions that floating point rounds, such as 0.2."""

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


def test_a_dry_run_says_what_it_costs(tmp_path, monkeypatch):
    """Hours that a CPU works, however many cells run at once and however much of it other work takes."""
    cells = resolved(plan_of(tmp_path, TOY))
    one, two = (cost([], cells, RunSettings(), at_once) for at_once in (1, 2))
    assert (one.cells, one.trainings, one.unit) == (6, 0, "CPU") and one.hours.keys() == {"toy"}
    for found in (one, two):
        assert 0 < found.hours["toy"] < 1.1 * found.at_once * found.seconds / 3600
    timing = Timing({"toy": 6.0}, {"toy": 0.25}, "a cell")
    monkeypatch.setattr("swg_fast.sweep.estimate.time_one", lambda cells, run: timing)
    units = sum(map(cell_work, cells))
    busy = cost([], cells, RunSettings(), 2)
    assert (busy.seconds, busy.hours["toy"]) == pytest.approx((6 * units / 2, 6 * units * 0.25 / 3600))
    (tmp_path / "plan.toml").write_text(TOY)
    out = CliRunner().invoke(sweep, [str(tmp_path / "plan.toml"), "--out", str(tmp_path / "out"), "--json",
                                     str(tmp_path / "cost.json")], standalone_mode=False)
    assert isinstance(out.exception, UsageError) and "is for --dry-run" in str(out.exception)


def test_time_left_is_by_kind_and_shared_by_slots(tmp_path):
    cells = resolved(plan_of(tmp_path, TOY))
    clock = TimeLeft([], cells, slots=2)
    assert clock.seconds() is None
    clock.add(cells[0], 10.0)
    assert clock.seconds() == pytest.approx(5 * 10 / 2)
    clock.add(cells[1], None)  # a failed cell is done, but its time does not count
    assert clock.seconds() == pytest.approx(4 * 10 / 2)
    few = [Cell("evaluate", {}, {"n_candidates": n}, task="hopper-medium-v2") for n in (572, 844, 525, 548)]
    clock = TimeLeft([], [*few, cells[0]], slots=1)
    for cell in few:
        clock.add(cell, None)
    assert clock.kinds["evaluate"].left > 0  # by rounding
    clock.add(cells[0], 1.0)
    assert clock.seconds() == 0.0
    big = resolved(plan_of(tmp_path, PLAN))
    assert cell_work(big[-1]) > cell_work(big[-2]) * 0.99
    assert [duration(s) for s in (None, 9, 187, 3900)] == ["not known yet", "9 s", "3:07 min", "1:05 h"]
