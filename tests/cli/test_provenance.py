"""Every JSON of results says where it comes from: commit, version, command, device, hash of its data."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_recording, run_cli, write_hdf5

from benchmarks.measuring import ROOT, save
from swg_fast import __version__
from swg_fast.cli.main import cli
from swg_fast.common import provenance
from swg_fast.common.hardware import device_name
from swg_fast.common.read_files import validated
from swg_fast.data.load import load_for
from swg_fast.sweep import worker
from swg_fast.sweep.cells import resolve
from swg_fast.sweep.plan_file import read_plan
from swg_fast.sweep.settings import RunSettings
from swg_fast.sweep.store import Store, hash_data, hash_policy

TASK = "antmaze-umaze-v2"
TOY = ("toy", "spiral", "--steps", 2, "--batch", 8, "--hidden-dim", 16, "--samples", 20, "--quiet")
# Each command that writes a JSON of results, and that file. Sweeps and inspections have tests of their own.
COMMANDS = {
    "evaluate": ("evaluate", TASK, "-n", 1, "--episodes", 1, "--quiet", "--json", "out.json"),
    "toy": (*TOY, "--json", "out.json"),
    "bench": ("bench", "--state-dim", 3, "--action-dim", 2, "--hidden-dim", 16, "--states", 1, "--dtypes",
              "fp32", "--backends", "reference", "--candidates", 4, "--repeats", 1, "--quiet", "--json",
              "out.json"),
    "compare": ("compare", "in.json", "in.json", "--json", "out.json"),
}
EVALUATION = {"task": TASK, "policy": "p", "score_name": "score", "scores": [1.0, 2.0], "interval": None,
              "settings": {}}


def check(found: dict, command: str | None, data_hash: str | None) -> None:
    made = validated(found["provenance"], provenance.Provenance, "provenance", "mend it")
    assert made["commit"] == provenance.commit() and made["version"] == __version__
    assert made["device"] == device_name(torch.device("cpu"))
    assert made["versions"]["torch"] and made["data_hash"] == data_hash
    assert command is None or made["command"] == command


def test_the_version_is_that_of_the_code(monkeypatch):
    """An editable installation keeps the version that its checkout had then."""
    monkeypatch.setattr(provenance.metadata, "version", lambda name: "0.0.1")
    found = provenance.provenance()
    assert found["version"] == found["versions"]["swg-fast"] == __version__
    assert found["versions"]["torch"] == "0.0.1"


def test_no_command_is_left_out():
    with_json = {name for name, command in cli.commands.items()
                 if any("--json" in parameter.opts for parameter in command.params)}
    assert with_json == {*COMMANDS, "sweep"}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_writes(name, tmp_path):
    (tmp_path / "in.json").write_text(json.dumps(EVALUATION))
    out = run_cli(*COMMANDS[name], cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    words = " ".join(["swg-fast", *map(str, COMMANDS[name])])
    check(json.loads((tmp_path / "out.json").read_text()), words, None)


@pytest.mark.slow
def test_what_a_training_leaves_and_inspect_finds(tmp_path):
    write_hdf5(tmp_path / "data.hdf5", make_recording())
    small = ("--critic-steps", 4, "--actor-steps", 4, "--critic-batch", 8, "--actor-batch", 8, "--hidden-dim",
             16, "--num-steps", 2, "--quiet", "--logger", "none")
    done = run_cli("train", TASK, "--dataset", "data.hdf5", "--out", "run", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run_cli("inspect", "run", "--states", 4, "-n", 4, "--quiet", cwd=tmp_path)
    found = json.loads((tmp_path / "run" / "inspect" / "inspect.json").read_text())
    check(found, "swg-fast inspect run --states 4 -n 4 --quiet",
          load_for(TASK, str(tmp_path / "data.hdf5")).fingerprint())


@pytest.mark.slow
def test_what_a_sweep_and_its_report_write(tmp_path):
    (tmp_path / "plan.toml").write_text('[toy]\nname = "spiral"\nsteps = 2\nbatch = 8\nhidden_dim = 16\n'
                                        "samples = 20")
    plan, store = read_plan(tmp_path / "plan.toml"), Store(tmp_path / "out")
    cells = resolve(plan, hash_data, hash_policy)
    store.begin(plan, cells)
    worker.run_cell(cells[0], store, RunSettings(), command="swg-fast sweep plan.toml")
    check(json.loads((tmp_path / "out" / "sweep.json").read_text()), None, None)
    check(json.loads(store.cell(cells[0].key).read_text()), "swg-fast sweep plan.toml", None)
    dry = ("sweep", "plan.toml", "--out", "other", "--dry-run", "--json", "cost.json")
    assert run_cli(*dry, cwd=tmp_path).returncode == 0
    check(json.loads((tmp_path / "cost.json").read_text()), " ".join(["swg-fast", *dry]), None)
    assert run_cli("report", "out", cwd=tmp_path).returncode == 0
    found = json.loads((tmp_path / "out" / "report" / "results.json").read_text())
    assert found["provenance"] == store.read()["provenance"]
    check(found["results"][0], "swg-fast sweep plan.toml", None)


def test_scripts_write_through_one_function(tmp_path):
    """`measuring.save`, which adds the provenance; a file that grows keeps the hash of its data."""
    for path in sorted((ROOT / "benchmarks").rglob("*.py")):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert "write_json" not in names or path.name == "measuring.py", path
    found: dict = {"rows": [1]}
    save(tmp_path / "f.json", found, data_hash="abc")
    save(tmp_path / "f.json", found | {"rows": [1, 2]})
    check(json.loads((tmp_path / "f.json").read_text()), None, "abc")


def test_a_commit_is_the_checkouts_own(tmp_path, monkeypatch):
    """None outside a checkout, and where the package lies inside another project's."""
    def found():
        provenance.commit.cache_clear()
        return provenance.commit()

    here = found()
    try:
        there = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        assert here is None if there.returncode else here.removesuffix("-dirty") == there.stdout.strip()
        monkeypatch.setattr(provenance, "ROOT", tmp_path)
        assert found() is None
        monkeypatch.setattr(provenance, "ROOT", ROOT / "tests")
        assert found() is None
    finally:
        provenance.commit.cache_clear()


@pytest.mark.parametrize("program, words", {
    "/usr/bin/swg-fast": "swg-fast", str(ROOT / "swg_fast" / "__main__.py"): "swg-fast",
    str(ROOT / "benchmarks" / "shards.py"): "python -m benchmarks.shards",
    "/else/where/mine.py": "mine.py"}.items())
def test_the_command_as_it_is_typed(program, words, monkeypatch):
    monkeypatch.setattr(sys, "argv", [program, "a b", "--json", str(Path("f.json"))])
    assert provenance.command_line() == f"{words} 'a b' --json f.json"
