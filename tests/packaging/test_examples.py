"""What users copy runs: README's Python, and every program of examples/."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SHORT = {"own_robot.py": ["--episodes", "4", "--steps", "40"]}


def test_readmes_python_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert np.isfinite(np.asarray(names["action"])).all()
    assert (tmp_path / "mine" / "model_card.json").is_file()


def test_every_example_is_tried():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == SHORT.keys()


@pytest.mark.parametrize("name", SHORT)
def test_an_example(name, tmp_path):
    out = subprocess.run([sys.executable, str(ROOT / "examples" / name), *SHORT[name]], cwd=tmp_path,
                         env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    for word in ("recorded:", "-2 to 2", "Evaluation of make_robot: mean return", "control loop:"):
        assert word in out.stdout, out.stdout
    assert (tmp_path / "runs" / "own-robot" / "policy" / "model.safetensors").is_file()
