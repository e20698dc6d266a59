"""Every file that a command reads back is held against what it should hold: one line names file and field."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_runs import small_data, train

from swg_fast import UsageError
from swg_fast.cli.main import cli
from swg_fast.common import read_files
from swg_fast.common.atomic_files import finite, write_json
from swg_fast.common.console import print_table
from swg_fast.common.read_files import read_json, read_text
from swg_fast.policy.swg_jax_import import value
from swg_fast.sweep.cells import Cell
from swg_fast.sweep.files import SweepJson, read_finished, read_results
from swg_fast.sweep.plan_file import Plan
from swg_fast.sweep.report_page import collect
from swg_fast.sweep.store import Mark, Store
from swg_fast.training.history import append_line, read_history, set_aside
from swg_fast.training.loop import Interrupted
from swg_fast.training.run_folder import RunRecord

ROOT = Path(__file__).parents[2]
CELL = {"kind": "toy", "axes": {"toy.seed": 0}, "settings": {"name": "rings", "seed": 0}, "task": None,
        "policy": None, "policy_hash": None, "training": None, "rank": {}, "versions": {}, "seconds": 1.5,
        "key": "k", "result": {"distances": {"guided_to_target": 0.5}}}
SWEEP = {"format": 1, "title": "t", "question": "", "run": {}, "report": [], "versions": {}, "cells": []}
RESULTS = {"results_format": 1, "cells": 1, "failures": [], "histories": {}, "results": [CELL],
           "sweep": {"title": "t", "question": "", "report": []}}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def swg_fast(*arguments):
    return CliRunner().invoke(cli, list(map(str, arguments)), standalone_mode=False)


def refusal(function, *arguments):
    with pytest.raises(UsageError) as error:
        function(*arguments)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    return str(error.value)


PATHS = {
    "nothing": (lambda: "none", "no such file"),
    "a folder": (lambda: os.mkdir("f") or "f", "a folder, not a regular file"),
    "a pipe": (lambda: os.mkfifo("p") or "p", "not a regular file"),
    "a device": (lambda: "/dev/zero", "not a regular file"),
    "below a file": (lambda: Path("a").touch() or "a/b", "no such file"),
    "300 letters": (lambda: "x" * 300, "too long"),
    "empty": (lambda: "", "empty path"),
    "a list": (lambda: [1], "a path was expected"),
    "a link to itself": (lambda: os.symlink("l", "l") or "l", "symbolic links"),
    "large": (lambda: Path("large").write_bytes(b"0" * 100) and "large", "far more than"),
}


@pytest.mark.parametrize("name", PATHS)
def test_paths(name, monkeypatch):
    make, word = PATHS[name]
    monkeypatch.setattr(read_files, "LARGEST", 99)
    assert word in refusal(read_text, make(), "mend")


def text(value):
    return lambda path: path.write_text(value if isinstance(value, str) else json.dumps(value))


CONTENTS = {
    "not UTF-8": (lambda path: path.write_bytes(b'"\xff"'), None, "not valid JSON"),
    "NaN": (text("[NaN]"), None, "NaN is not a number"),
    "overflow": (text("[1e999]"), None, "1e999 is not a number"),
    "400 digits": (text("1" + "0" * 400), None, "beyond 64 bits"),
    "deep": (text("[" * 10**6), None, "nested too deeply"),
    "list for run": (text([1]), RunRecord, "the whole"),
    "text for a number": (text({"settings": {}, "transitions": "9"}), RunRecord, "transitions: "),
    "null": (text({"settings": None, "transitions": 9}), RunRecord, "settings: "),
    "half a number": (text({"settings": {}, "transitions": 9.5}), RunRecord, "transitions: "),
    "true for a number": (text({"settings": {}, "transitions": True}), RunRecord, "transitions: "),
    "mark": (text({"what": "a", "pid": "1", "host": "h", "since": 0}), Mark, "pid: "),
    "sweep, list": (text([]), SweepJson, "the whole"),
    "sweep, empty": (text({}), SweepJson, "format is missing"),
    "sweep, format": (text(SWEEP | {"format": 2}), SweepJson, "format: "),
    "sweep, title": (text(SWEEP | {"title": 3}), SweepJson, "title: "),
    "sweep, report": (text(SWEEP | {"report": [{"rows": 1}]}), SweepJson, "report.0.rows: "),
    "sweep, cells": (text(SWEEP | {"cells": {"a": 1}}), SweepJson, "cells: "),
    "sweep, newer": (text(SWEEP | {"cells": [CELL]}), SweepJson, "cells.0.versions: "),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_contents(name, place):
    write, kind, word = CONTENTS[name]
    write(place / "file.json")
    found = refusal(*([read_json, place / "file.json"] + ([kind] if kind else [])))
    assert word in found and "file.json" in found


CELLS = {
    "list": ([], "input should be an object"), "empty": ({}, "kind is missing"),
    "null": ({"result": None}, "missing"),
    "kind": (CELL | {"kind": "dance"}, "kind: "), "newer": (CELL | {"novel": 1}, "novel: "),
    "axes": (CELL | {"axes": {"a": {"b": 1}}}, "axes.a"), "no result": (CELL | {"result": {}}, "distances"),
    "distance": (CELL | {"result": {"distances": {"guided_to_target": "near"}}}, "guided_to_target: "),
    "no scores": (CELL | {"kind": "evaluate"}, "score is missing"),
    "training": (CELL | {"training": {"task": 1}}, "training.task: "),
    "seconds": (CELL | {"seconds": None}, "seconds: "),
}


@pytest.mark.parametrize("name", CELLS)
def test_cells_and_results(name, place):
    value, word = CELLS[name]
    write_json("cell.json", value)
    assert word in refusal(read_finished, place / "cell.json")
    write_json("results.json", RESULTS | {"results": [value]})
    assert word in refusal(read_results, place / "results.json")


RECORDED = sorted((ROOT / "experiments" / "results").glob("*.json"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_results_still_load(path):
    assert read_results(path)["results"]


def test_what_reports_write_they_can_read(place):
    """A loss that is not finite, brackets, dollars and tags in names: drawn and printed as they are."""
    lines = [{"step": 1, "critic/held_out_loss": None}, {"step": 2, "critic/held_out_loss": 1.0}]
    titles = {"title": "$x_{ [/b] <script>", "question": "?", "report": []}
    odd = CELL | {"axes": {"toy.name": r"$\frac{ [/b] <script>x</script> | ü"}}
    write_json("in.json", RESULTS | {"results": [odd, CELL | {"axes": {"toy.name": "b"}}],
                                     "sweep": titles,
                                     "histories": {"$_{": {"critic": lines}}})
    out = swg_fast("report", "in.json", "--out", "out")
    assert out.exception is None, out.exception
    table = (place / "out" / "tables.md").read_text(encoding="utf-8")
    assert "<script" not in table and "[/b] &lt;script&gt;" in table and "ü" in table
    assert "<script>x" not in (place / "out" / "index.html").read_text(encoding="utf-8")
    assert read_results(place / "out" / "results.json")["results"][0]["axes"] == odd["axes"]


def test_a_damaged_cell_is_found_again(place):
    """A cell's file that is cut short, or another's, does not count as done; a report says so."""
    cell = Cell.from_json({name: value for name, value in CELL.items() if name in Cell.__dataclass_fields__})
    other = replace(cell, settings={"name": "rings", "seed": 1})
    store = Store("~/sweep")
    assert store.folder == place / "home" / "sweep"  # as for every other path
    store.begin(Plan(place / "plan.toml", "t", "", {}, [{}]), [cell, other])
    for one in (cell, other):
        write_json(store.cell(one.key), CELL | one.to_json())
    assert store.pending([cell, other]) == ([], [])
    for damage in (lambda path: path.write_bytes(path.read_bytes()[:40]), lambda path: path.unlink(),
                   lambda path: shutil.copy(store.cell(other.key), path), lambda path: write_json(path, [])):
        damage(store.cell(cell.key))
        assert store.pending([cell, other]) == ([], [cell])
    found = collect(store.folder)
    assert len(found["results"]) == 1 and "is damaged" in found["failures"][0][1]


def test_brackets_are_printed_as_they_are(capsys):
    print_table("[/b] title", [("[red]name", "[/]")])
    out = capsys.readouterr().out
    assert "[/b] title" in out and "[red]name" in out and "[/]" in out


def test_two_trees_of_parameters_are_not_guessed_between():
    leaf = np.zeros((2, 2), np.float32)
    tree = {f"{name}/params/OutputVDense/kernel": leaf for name in ("target", "online")}
    assert "2 trees of value parameters: target/params, online/params" in refusal(value, tree)


def test_what_is_not_finite_is_none():
    assert finite({"a": [1.0, float("inf"), (float("nan"),)], "b": 2}) == {"a": [1.0, None, [None]], "b": 2}


COMMANDS = {
    "report of a list": (["report", "list.json"], "the whole"),
    "report of a folder": (["report", "folder"], "no such file"),
    "report of 300 letters": (["report", "x" * 300], "too long"),
    "inspect of 300 letters": (["inspect", "x" * 300], "too long"),
    "data of 300 letters": (["train", "antmaze-umaze-v2", "--dataset", "x" * 300], "too long"),
    "critic of 300 letters": (["train", "antmaze-umaze-v2", "--dataset", "d.hdf5", "--critic", "x" * 300],
                              "too long"),
    "flax of 300 letters": (["import-jax", "x" * 300, "--out", "o"], "too long"),
    "report in a file": (["report", "good.json", "--out", "good.json"], "is a file, not a folder"),
    "report with no name": (["report", "good.json", "--out", ""], "empty path"),
    "inspect of a list as run": (["inspect", "run"], "not the record of a run"),
    "train with no name": (["train", "antmaze-umaze-v2", "--dataset", "d.hdf5", "--out", ""], "empty path"),
    "a misspelt task": (["train", "antmaze-ümaze-v2", "--dataset", "d.hdf5"], "did you mean antmaze-umaze"),
    "a family that does not fit": (["inspect", "hopper-medium-v2", "--task", "antmaze-umaze-v2", "--dataset",
                                    "d.hdf5"], "another family"),
    "1e300 for a float32": (["train", "antmaze-umaze-v2", "--min-travel", "1e300"], "min_travel must be"),
    "10**400 in a config": (["train", "antmaze-umaze-v2", "--config", "wide.toml"], "wide.toml: weight_loss"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name, place):
    arguments, word = COMMANDS[name]
    for folder in ("folder", "run"):
        (place / folder).mkdir()
    write_json("list.json", [])
    write_json("run/run.json", [1])
    write_json("good.json", RESULTS)
    Path("wide.toml").write_text(f"weight_loss = 1{'0' * 400}\n")
    out = swg_fast(*arguments)
    assert isinstance(out.exception, UsageError) and word in str(out.exception), out.exception
    assert "\n" not in str(out.exception) and not (place / "runs").exists()


def test_history_skips_what_is_no_line(place):
    path = place / "logs" / "h.jsonl"
    append_line(path, "critic", {"step": 10, "loss": float("inf")})
    odd = ['{"phase": "critic", "step": "20"}', '{"phase": 3, "step": 1}', "[1]", "null", '{"step": 1}', "{",
           '{"phase": "critic", "step": 30, "loss": "a"}', '{"phase": "critic", "step": [1]}', "[" * 10**5]
    with path.open("a") as file:
        file.write("\n".join(odd) + '\n{"phase": "critic", "step": 40, "loss": Infinity}\n')
    assert read_history(path) == {"critic": [{"step": 10, "loss": None}, {"step": 40, "loss": None}]}
    set_aside(path)
    assert not path.exists() and len(read_history(path.with_name("h.1.jsonl"))["critic"]) == 2


def test_a_full_disk_ends_no_history(monkeypatch):
    assert "make room" in refusal(append_line, Path("/dev/full"), "critic", {"step": 1})


def test_a_history_with_a_bad_line_does_not_end_a_resumed_run(place):
    data = small_data()
    with pytest.raises(Interrupted):
        train(data, place / "r", stop_after=10)
    (place / "r" / "logs" / "history.jsonl").open("a").write('{"phase": "actor", "step": {}}\n')
    train(data, place / "r", resume=True)


def test_a_history_from_before_is_kept(place):
    (place / "r" / "logs").mkdir(parents=True)
    (place / "r" / "logs" / "history.jsonl").write_text("mine")
    train(small_data(), place / "r")
    assert (place / "r" / "logs" / "history.1.jsonl").read_text() == "mine"


WRONG_KINDS = {f"{name}, a {kind}": (name, kind) for name, kind in (
    ("policy", "file"), ("states", "file"), ("logs", "file"), (".lock", "folder"), ("run.json", "folder"),
    ("config.toml", "folder"), ("logs/history.jsonl", "folder"), ("policy", "link to nothing"))}


@pytest.mark.parametrize("name", WRONG_KINDS)
def test_parts_of_a_run_of_the_wrong_kind_are_found_first(name, place):
    part, kind = WRONG_KINDS[name]
    path = place / "r" / part
    path.parent.mkdir(parents=True)
    {"file": path.touch, "folder": path.mkdir, "link to nothing": lambda: path.symlink_to("gone")}[kind]()
    before = sorted(place.rglob("*"))
    data = small_data()
    assert part.split("/")[-1] in refusal(train, data, place / "r")
    assert sorted(place.rglob("*")) == before


def test_held_out_shares_that_leave_nothing(place):
    data = small_data()
    assert "leaves none of the" in refusal(lambda: train(data, place / "r", changes={"held_out": 0.999}))
    one = replace(data, episodes=data.episodes * 0)
    train(one, place / "one", changes={"held_out": 0.999})  # a single episode is never held out
