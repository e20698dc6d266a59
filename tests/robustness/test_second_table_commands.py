"""Commands whose paths and names mean something else than was written."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from conftest import make_network

from swg_fast import NoiseSchedule, Policy, UsageError
from swg_fast.cli.ending import run
from swg_fast.cli.main import cli

EVALUATE = ["evaluate", "Pendulum-v1", "--policy", "mine"]
BAD = {
    "json without a name": ([*EVALUATE, "--json", ""], "an empty path names nothing"),
    "plot without a name": (["toy", "spiral", "--plot", ""], "an empty path names nothing"),
    "import to no name": (["import-jax", ".", "--out", ""], "an empty path names nothing"),
    "import of no name": (["import-jax", "", "--out", "o"], "an empty path names nothing"),
    "a sweep without a name": (["sweep", ""], "an empty path names nothing"),
    "config without a name": (["train", "--config", ""], "an empty path names nothing"),
    "the policy's card": ([*EVALUATE, "--json", "mine/model_card.json"], "sweep's own file; give"),
    "a policy's weights": (["toy", "spiral", "--json", "mine/model.safetensors"], "sweep's own file"),
    "a mirror without an address": (["download", "hopper-medium-v2", "--mirror", ""], "begins with http"),
    "a name of one's own without a version": (
        ["train", "mine", "--new-task"], "give the path of a D4RL HDF5 file to --dataset"),
}


@pytest.mark.parametrize("name", BAD)
def test_commands(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    Policy(make_network(3, 1, 16), NoiseSchedule.vp(3)).save("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    arguments, word = BAD[name]
    found = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert isinstance(found.exception, UsageError) and word in str(found.exception)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_current_folder_that_is_gone(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit) as ended:
        run(cli)
    assert ended.value.code == 2 and "the current folder is gone" in capsys.readouterr().err
