"""A command that needs a missing extra names it in one line, before any work."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import make_recording, write_hdf5

from swg_fast import UsageError
from swg_fast.cli.main import main
from swg_fast.common.errors import Note
from swg_fast.common.optional_packages import EXTRAS, check, need
from swg_fast.data import load_dataset
from swg_fast.training.logger import check_logger, open_writer

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
DISTRIBUTION = {"imageio_ffmpeg": "imageio[ffmpeg]", "gymnasium_robotics": "gymnasium-robotics",
                "huggingface_hub": "huggingface-hub"}


def test_the_table_is_pyprojects():
    for module, extra in EXTRAS.items():
        required = PROJECT["optional-dependencies"][extra]
        name = DISTRIBUTION.get(module, module)
        assert any(re.match(rf"{re.escape(name)}\W", line) for line in required), (module, extra)
    [everything] = PROJECT["optional-dependencies"]["all"]
    assert set(EXTRAS.values()) == set(everything.split("[")[1].rstrip("]").split(","))


def test_missing_broken_and_present(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UsageError, match=r"^logs needs tensorboard.*pip install 'swg-fast\[train\]'$"):
        check("tensorboard.summary", "logs")
    (tmp_path / "imageio").mkdir()
    (tmp_path / "imageio" / "__init__.py").write_text("import nothing_of_that_name")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "imageio", raising=False)
    with pytest.raises(UsageError, match="cannot be imported.*nothing_of_that_name"):
        need("imageio", "a video")
    assert need("json", "nothing").dumps([1]) == "[1]"


WITHOUT = {
    "wandb": ("wandb", ["train", "antmaze-umaze-v2", "--dataset", "data.hdf5", "--logger", "wandb"]),
    "video": ("imageio", ["evaluate", "antmaze-umaze-v2", "--video", "v.gif"]),
    "jax-import": ("msgpack", ["import-jax", ".", "--out", "mine"]),
    "bench": ("jax", ["bench", "--backends", "jax"]),
    "envs": ("ogbench", ["train", "antmaze-large-navigate-singletask-v0"]),
    "minari": ("minari", ["train", "antmaze-umaze-v2", "--dataset", "minari:D4RL/antmaze/umaze-v1"]),
}


@pytest.mark.parametrize("extra", WITHOUT)
def test_a_command_without_its_extra(extra, tmp_path, monkeypatch, capsys):
    module, arguments = WITHOUT[extra]
    write_hdf5(tmp_path / "data.hdf5", make_recording())
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(sys, "argv", ["swg-fast", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert f"pip install 'swg-fast[{extra}]'" in said and said.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_training_without_tensorboard_says_so_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.warns(Note, match=r"no curves are drawn; .*pip install 'swg-fast\[train\]'"):
        check_logger("tensorboard")
    with open_writer("tensorboard", tmp_path / "logs", {}, False) as writer:
        assert writer is None
    assert not list(tmp_path.iterdir())


def test_wandb_without_a_login_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    wandb = SimpleNamespace(api=SimpleNamespace(api_key=None), __spec__=True)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(UsageError, match="no login on this machine; run 'wandb login', or set WANDB_MODE"):
        check_logger("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_logger("wandb")
    assert not list(tmp_path.iterdir())


def test_minari_is_named_in_python_too(monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(UsageError, match=r"swg-fast\[minari\]"):
        load_dataset("minari:D4RL/antmaze/umaze-v1")
