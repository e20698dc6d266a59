"""The JSON that a script of benchmarks/ goes on with is held against what it writes, before any work."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from benchmarks.beside_swg_jax import Compared
from benchmarks.compare import Suite
from benchmarks.decisions import Recorded
from benchmarks.gpu import Measured
from benchmarks.measuring import ROOT, read_result, recorded
from benchmarks.score_table import SCORES, WALKS, Scores, Walk, walked
from swg_fast import UsageError

ROW = {"n_candidates": 1, "guidance_scale": 0, "select": "none", "temperature": 0.0, "normalized_score": 3.5,
       "interval": None}
BAD = {
    "a list": ([], Scores, "the whole"), "text": ('"rows"', Compared, "the whole"),
    "cut short": ('{"rows": [', Scores, "not valid JSON"),
    "no rows": ({"versions": {}}, Scores, "rows is missing"),
    "rows by name": ({"rows": {}}, Scores, "rows: "),
    "a row of text": ({"rows": ["x"]}, Scores, "rows.0: "),
    "no interval": ({"rows": [ROW, {"n_candidates": 1}]}, Scores, "rows.1.guidance_scale is missing"),
    "N as text": ({"rows": [ROW | {"n_candidates": "1"}]}, Scores, "rows.0.n_candidates: "),
    "no sampler": ({"rows": [ROW]}, Walk, "sampler is missing"),
    "steps as text": ({"rows": [ROW], "sampler": "ddpm", "sampler_steps": "all"}, Walk, "sampler_steps: "),
    "no settings": ({"parts": {}}, Recorded, "settings is missing"),
    "a cell of numbers": ({"settings": {}, "parts": {"time": {"ours 1": 3}}}, Recorded, "time.ours 1: "),
    "no device": ({"parity": {}}, Measured, "device is missing"),
    "a run without rows": ({"runs": [{"what": {}}]}, Compared, "runs.0.rows is missing"),
    "a median of text": ({"benchmarks": [{"name": "a", "stats": {"median": "1"}}]}, Suite, "stats.median: "),
    "door of a list": ({"starts": []}, dict[str, dict], "starts: "),
}


@pytest.mark.parametrize("name", BAD)
def test_a_json_of_another_script_is_refused(name, tmp_path):
    value, kind, words = BAD[name]
    path = tmp_path / "found.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    before = path.read_bytes()
    with pytest.raises(UsageError) as error:
        recorded(path, {}, kind)
    said = str(error.value)
    assert words in said and str(path) in said and "\n" not in said and path.read_bytes() == before


def test_what_a_script_wrote_is_kept_whole(tmp_path):
    """Whatever else stands there, too; and what it does not find yet begins."""
    path = tmp_path / "new" / "found.json"
    assert recorded(path, {"rows": []}, Scores) == {"rows": []}
    path.write_text(json.dumps({"rows": [ROW | {"per_seed": [1]}], "versions": {"torch": "2"}}))
    assert recorded(path, {}, Scores) == {"rows": [ROW | {"per_seed": [1]}], "versions": {"torch": "2"}}
    with pytest.raises(UsageError, match="is a folder"):
        recorded(tmp_path, {}, Scores)


RESULTS = ROOT / "benchmarks" / "results"


def test_the_recorded_figures_are_what_the_scripts_read():
    for path in SCORES.glob("*.json"):
        read_result(path, Scores)
    assert all(walked(folder) for folder in WALKS.iterdir())
    for path in RESULTS.glob("decisions-*.json"):
        read_result(path, Recorded)
    read_result(RESULTS / "beside-swg-jax.json", Compared)
    read_result(RESULTS / "door.json", dict[str, dict])
    read_result(RESULTS / "nvidia-h200" / "gpu.json", Measured)


SCRIPTS = {
    "beside_swg_jax": ["checkout", "--task", "antmaze-umaze-v2", "--json", "gpu.json"],
    "compare": ["gpu.json", "gpu.json"],
    "decisions": ["hopper-medium-v2", "--json", "gpu.json"],
    "door": ["--data", "none.hdf5", "--json", "gpu.json"],
    "gpu": ["--device", "cpu", "--tiny", "--out", "."],
    "score_table": ["hopper-medium-v2", "--json", "gpu.json"],
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_refuses_before_it_measures(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    (tmp_path / "gpu.json").write_text("[3]")
    main = importlib.import_module(f"benchmarks.{name}").main
    out = CliRunner().invoke(main, SCRIPTS[name], standalone_mode=False)
    assert isinstance(out.exception, UsageError), (out.exception, out.output)
    assert "gpu.json: the whole: " in str(out.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py")
                                        if "@click.command" in path.read_text()))
def test_every_script_ends_like_a_command(name):
    """`run` prints one line and exits with 2."""
    text = (ROOT / "benchmarks" / f"{name}.py").read_text()
    assert text.endswith('if __name__ == "__main__":\n    run(main)\n')


def test_a_script_ends_in_one_line(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[3]")
    out = subprocess.run([sys.executable, "-m", "benchmarks.compare", path, path], cwd=ROOT,
                         capture_output=True, text=True)
    assert out.returncode == 2 and out.stderr.count("\n") == 1 and "a.json: the whole: " in out.stderr
