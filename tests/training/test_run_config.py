"""A run's configuration: one source of options, files and checks, and the file that reproduces a run."""

from __future__ import annotations

import json
import sys
import tomllib
import types
from dataclasses import asdict, fields, replace

import pytest
from click.testing import CliRunner
from conftest import make_recording, write_hdf5
from safetensors.torch import load_file

from swg_fast.cli.main import cli
from swg_fast.common.errors import UsageError
from swg_fast.common.read_files import read_json
from swg_fast.envs.tasks import find_preset, presets
from swg_fast.policy.policy import load_policy
from swg_fast.policy.sampling import check_overrides
from swg_fast.training.history import append_line, read_history
from swg_fast.training.logger import open_writer
from swg_fast.training.run_config import RunOptions, config_fields, read_config, resolve, write_config
from swg_fast.training.run_folder import RunRecord
from swg_fast.training.settings import TrainSettings

TASK = "antmaze-umaze-v2"
SMALL = ["--critic-steps", "4", "--critic-batch", "8", "--actor-steps", "4", "--actor-batch", "8",
         "--hidden-dim", "16", "--num-steps", "3", "--log-every", "2"]


def swg_fast(*arguments):
    return CliRunner().invoke(cli, list(map(str, arguments)), standalone_mode=False)


def test_every_setting_is_an_option_with_help():
    text = swg_fast("train", "--help").output
    for name, entry in config_fields().items():
        if name != "task":
            assert f"--{name.replace('_', '-')} " in text, name
        assert entry.metadata["help"].endswith("."), name
        if entry.metadata["choices"] and entry.default is not None:
            assert entry.default in entry.metadata["choices"], name


def test_option_over_file_over_preset_over_default():
    preset = find_preset(TASK)  # expectile 0.9
    file = {"dropout": 0.2, "discount": 0.95}
    options, settings = resolve({"dropout": 0.3, "critic_lr": None}, file, preset)
    assert (settings.dropout, settings.discount, settings.expectile) == (0.3, 0.95, 0.9)
    assert settings.critic_lr == TrainSettings().critic_lr and options == RunOptions()


def test_presets_set_what_there_is():
    for preset in presets().values():
        TrainSettings(**preset.training)
        check_overrides(preset.sampling)
    wide, narrow = (presets()[f"antmaze-{maze}-v2"] for maze in ("medium-diverse", "umaze"))
    assert wide.training["discount"] == 0.998 and "discount" not in narrow.training
    assert wide.training["expectile"] == narrow.training["expectile"] == 0.9


def test_a_wide_maze_begins_with_its_own_settings(tmp_path):
    """The preset's settings apply unless an option overrides them; the policy samples by its settings."""
    write_hdf5(tmp_path / "data.hdf5", make_recording())
    run = swg_fast("train", "antmaze-large-play-v2", "--dataset", tmp_path / "data.hdf5", *SMALL,
                   "--discount", 0.9, "--min-travel", 0.5, "--logger", "none", "--out", tmp_path / "run")
    assert run.exception is None, run.exception
    written = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert (written["discount"], written["min_travel"], written["value_norm"]) == (0.9, 0.5, False)
    policy = load_policy(tmp_path / "run" / "policy")
    assert (policy.settings().n_candidates, policy.settings().guidance_scale) == (1, 5.0)


def test_a_run_writes_the_file_that_gives_it_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_hdf5(tmp_path / "data.hdf5", make_recording())
    (tmp_path / "mine.toml").write_text("critic_lr = 1e-3\nema_rate = 0.5\ncosine_decay = false\n")
    first = swg_fast("train", TASK, "--dataset", "data.hdf5", "--config", "mine.toml", *SMALL,
                     "--ema-rate", 0.25, "--held-out", 0.2, "--logger", "none", "--out", "first")
    assert first.exception is None, first.exception
    written = tomllib.loads((tmp_path / "first" / "config.toml").read_text())
    assert (written["critic_lr"], written["ema_rate"], written["cosine_decay"]) == (1e-3, 0.25, False)
    assert written["task"] == TASK and written["dataset"] == str(tmp_path / "data.hdf5")
    without_value = {"weight_parameter", "weight_family", "observation_keys", "mirror", "critic",
                     "action_low", "action_high", "eval_every", "rankers", "critics"}
    assert set(written) == set(config_fields()) - without_value
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = swg_fast("train", "--config", tmp_path / "first" / "config.toml", "--out", "again")
    assert again.exception is None, again.exception
    runs = tmp_path / "first", tmp_path / "elsewhere" / "again"
    records = [read_json(run / "run.json", RunRecord) for run in runs]
    assert replace(records[0], id="") == replace(records[1], id="") and records[0].id != records[1].id
    assert len({(run / "config.toml").read_text() for run in runs}) == 1
    a, b = (load_file(run / "policy" / "model.safetensors") for run in runs)
    assert all((a[name] == b[name]).all() for name in a)
    lines = read_history(runs[0] / "logs" / "history.jsonl")
    assert [line["step"] for line in lines["actor"]] == [2, 4] and "critic/value_loss" in lines["critic"][0]
    card = json.loads((runs[0] / "policy" / "model_card.json").read_text())
    assert card["training"]["held_out_losses"]["critic/held_out_value_loss"] == pytest.approx(
        lines["critic"][-1]["critic/held_out_value_loss"], abs=1e-5)


def test_a_critic_of_another_run_is_an_option(tmp_path, monkeypatch):
    """A relative path is written in full; the policy equals that of a run which trains its critic."""
    monkeypatch.chdir(tmp_path)
    write_hdf5(tmp_path / "data.hdf5", make_recording())
    first = ["train", TASK, "--dataset", "data.hdf5", *SMALL, "--logger", "none"]
    for more in (["--out", "first"], ["--critic", "first", "--out", "second"]):
        done = swg_fast(*first, *more)
        assert done.exception is None, done.exception
    written = tomllib.loads((tmp_path / "second" / "config.toml").read_text())
    assert written["critic"] == str(tmp_path / "first")
    a, b = (load_file(tmp_path / run / "policy" / "model.safetensors") for run in ("first", "second"))
    assert a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)
    refused = swg_fast(*first, "--discount", 0.9, "--critic", "first", "--out", "third")
    assert "other settings (discount)" in str(refused.exception) and not (tmp_path / "third").exists()


def test_round_trip_of_a_file(tmp_path):
    values = asdict(RunOptions(task=TASK, dataset='a "quoted" \\ päth.hdf5'))
    values |= asdict(TrainSettings(dropout=0.0))
    write_config(tmp_path / "c.toml", values)
    assert read_config(tmp_path / "c.toml") == {k: v for k, v in values.items() if v is not None}


@pytest.mark.parametrize("text,word", [
    ("dropuot = 0.1", "unknown key 'dropuot'; did you mean 'dropout'"), ("x", "not valid TOML"),
    ("dropout = 1.0", "at least 0 and below 1, got 1.0"), ("critic_steps = 1.5", "a whole number, got 1.5"),
    ("critic_steps = true", "a whole number"), ("discount = nan", "finite"), ("polyak = '1'", "a number"),
    ("rescale_weights = 1", "true or false"), ("schedule = 'x'", "one of vp, cosine"),
    ("threads = 0", "at least 1, got 0"),
    ("[actor]\nlr = 1", "unknown key 'actor'"), ("seed = [1]", "a whole number")])
def test_a_bad_file_is_named(tmp_path, text, word):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match="bad.toml") as error:
        read_config(path)
    assert word in str(error.value) and "\n" not in str(error.value)


def test_no_file_and_no_task(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_config(tmp_path / "none.toml")
    assert "no TASK" in str(swg_fast("train").exception)


@pytest.mark.parametrize("entry", [e for e in fields(TrainSettings) if e.metadata["bounds"]],
                         ids=lambda entry: entry.name)
def test_bounds_hold(entry):
    """Values just outside each bound, and on the bound if it is open."""
    bounds, step = entry.metadata["bounds"], 1 if entry.type == "int" else 1e-9
    for end, away in (("min", -step), ("max", step)):
        if end in bounds:
            for value in [bounds[end] + away] + [bounds[end]] * bounds.get(f"{end}_open", False):
                with pytest.raises(UsageError, match=entry.name):
                    TrainSettings(**{entry.name: value})


def test_history_survives_a_crash(tmp_path):
    path = tmp_path / "logs" / "h.jsonl"
    for step, loss in ((10, 3.0), (20, 2.0)):
        append_line(path, "critic", {"step": step, "loss": loss})
    path.write_bytes(path.read_bytes() + b'{"phase": "critic", "st')
    append_line(path, "critic", {"step": 20, "loss": 1.0})  # resumed from step 10
    append_line(path, "actor", {"step": 10, "loss": 5.0})
    assert read_history(path) == {"critic": [{"step": 10, "loss": 3.0}, {"step": 20, "loss": 1.0}],
                                  "actor": [{"step": 10, "loss": 5.0}]}
    assert read_history(tmp_path / "none") == {}


def test_wandb_goes_on_in_the_same_run(tmp_path, monkeypatch):
    """Uses a stand-in with wandb's names: checks the log, and the run that it continues after a resume."""
    calls = []

    class Run:
        def __init__(self, **arguments):
            calls.append(("init", arguments))
            self.id = arguments["id"] or "r1"

        def __getattr__(self, name):
            return lambda *arguments, **more: calls.append((name, *arguments, more))

    stand_in = types.ModuleType("wandb")
    stand_in.__spec__ = types.SimpleNamespace(name="wandb")
    stand_in.init = lambda **arguments: Run(**arguments)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    for resume in (False, True):
        with open_writer("wandb", tmp_path / "run" / "logs", {"seed": 1}, resume) as writer:
            writer.add_scalar("critic/value_loss", 0.5, 100)
    starts = [call[1] for call in calls if call[0] == "init"]
    assert [(s["id"], s["resume"]) for s in starts] == [(None, None), ("r1", "allow")]
    assert starts[0]["name"] == "run" and starts[0]["config"] == {"seed": 1}
    assert ("log", {"critic/value_loss": 0.5, "critic/step": 100}, {}) in calls
    assert [call[0] for call in calls].count("finish") == 2


def test_loggers_by_name(tmp_path):
    with open_writer("none", tmp_path / "logs", {}, False) as writer:
        assert writer is None and not (tmp_path / "logs").exists()
    with pytest.raises(UsageError, match="unknown logger"), open_writer("mlflow", tmp_path, {}, False):
        pass
