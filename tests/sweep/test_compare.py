"""`swg-fast compare`: two evaluations, two sweeps, and files that are neither."""

from __future__ import annotations

import json

import pytest
from conftest import run_cli

from swg_fast.common.errors import UsageError
from swg_fast.common.intervals import score_difference
from swg_fast.sweep.compare import compare

WILSON = {"low": 1.0, "high": 2.0, "method": "wilson", "level": 0.95}
MADE = {"commit": None, "version": "1", "command": "c", "device": "cpu", "data_hash": None,
        "versions": {"torch": "2"}}
SWEEP = {"results_format": 1, "cells": 1, "failures": [], "histories": {},
         "sweep": {"title": "t", "question": "", "report": []}}


def evaluation(path, scores, **changes):
    value = {"task": "antmaze-umaze-v2", "policy": "p", "score_name": "D4RL normalized score",
             "scores": scores, "interval": WILSON, "settings": {"n_candidates": 1, "seed": 0},
             "simulator": {"version": "3"}, "provenance": MADE}
    path.write_text(json.dumps(value | changes))
    return path


def sweep(path, **scores):
    """A report's results: cells of one axis, by its value."""
    cells = [{"kind": "evaluate", "axes": {"evaluate.n_candidates": name},
              "settings": {"episodes": len(found)}, "task": "hopper-medium-v2",
              "policy": "p", "policy_hash": "h", "training": None, "rank": {},
              "key": name, "seconds": 1.0, "versions": {"torch": "1"},
              "result": {"score": 0.0, "scores": found}} for name, found in scores.items()]
    path.write_text(json.dumps(SWEEP | {"results": cells}))
    return path


def test_two_evaluations(tmp_path):
    evaluation(tmp_path / "a.json", [100.0] * 5 + [0.0] * 5)
    evaluation(tmp_path / "b.json", [100.0] * 9 + [0.0], settings={"n_candidates": 16, "seed": 0},
               provenance=MADE | {"device": "gpu", "versions": {"torch": "3"}})
    out = run_cli("compare", "a.json", "b.json", "--json", "c.json", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    for words in ("A: a.json", "50.0", "90.0", "+40.0", "10 episodes", "Newcombe", "n_candidates"):
        assert words in out.stdout, words
    found = json.loads((tmp_path / "c.json").read_text())
    (cell,) = found["cells"]
    right = score_difference([100.0] * 5 + [0.0] * 5, [100.0] * 9 + [0.0], True)
    assert cell["difference"] == 40 and cell["interval"]["low"] == pytest.approx(right.low)
    assert (cell["a"]["episodes"], cell["b"]["score"]) == (10, 90)
    assert found["settings"] == [{"name": "n_candidates", "a": 1, "b": 16},
                                 {"name": "version.torch", "a": "2", "b": "3"},
                                 {"name": "device", "a": "cpu", "b": "gpu"}]


def test_two_sweeps_cell_by_cell(tmp_path):
    a = sweep(tmp_path / "a.json", one=[1.0, 2.0, 3.0], two=[5.0, 6.0], three=[1.0])
    b = sweep(tmp_path / "b.json", one=[2.0, 4.0, 6.0], two=[5.0], four=[1.0])
    found = compare(a, b)
    assert [(pair.cell, pair.difference) for pair in found.pairs] == [
        ("hopper-medium-v2: n_candidates one", 2.0), ("hopper-medium-v2: n_candidates two", -0.5)]
    assert found.pairs[0].interval.method == "bootstrap" and found.pairs[1].interval is None
    assert "no interval" in found.pairs[1].text()
    assert [cell.rpartition(" ")[2] for cell in found.alone] == ["four", "three"]
    assert [tuple(each) for each in found.differences()] == [("evaluate.episodes", 2, 1)]


BAD = {
    "a model card": (lambda path: path.write_text('{"training": {}}'), "task is missing"),
    "a list": (lambda path: path.write_text("[1]"), "in.json: the whole"),
    "no JSON": (lambda path: path.write_text("x"), "not valid JSON"),
    "a folder": (lambda path: path.mkdir(), "not a regular file"),
    "nothing": (lambda path: None, "no such file"),
    "no episode": (lambda path: evaluation(path, []), "no episode"),
    "an older evaluation": (lambda path: evaluation(path, None), "scores: "),
    "toys alone": (lambda path: path.write_text(json.dumps(SWEEP | {"results": []})), "no evaluation"),
    "a sweep": (lambda path: sweep(path, one=[1.0]), "two of a kind"),
    "other scores": (lambda path: evaluation(path, [1.0], score_name="mean return"), "one kind of score"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_result_is_refused_in_one_line(name, tmp_path):
    make, words = BAD[name]
    evaluation(tmp_path / "good.json", [100.0, 0.0])
    make(tmp_path / "in.json")
    out = run_cli("compare", "good.json", "in.json", "--json", "out.json", cwd=tmp_path)
    assert out.returncode == 2 and words in out.stderr and "in.json" in out.stderr
    assert out.stderr.count("\n") == 1 and not (tmp_path / "out.json").exists()


def test_sweeps_over_other_axes_are_refused(tmp_path):
    a, b = sweep(tmp_path / "a.json", one=[1.0]), sweep(tmp_path / "b.json", two=[1.0])
    with pytest.raises(UsageError, match="no cell has the same task and axes"):
        compare(a, b)
