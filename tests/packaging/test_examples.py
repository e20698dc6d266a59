"""Every example runs, with a small budget."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from conftest import run_cli
from flax_files import golden, nest, pack_flax

EXAMPLES = Path(__file__).parents[2] / "examples"
TESTED = {"sample.py", "evaluate.py", "control_loop.py", "control_loop_onnx.py", "import_swg_jax.py",
          "own_robot.py", "sweep.py"}


def run_example(name, *arguments, cwd):
    """What the example prints."""
    def program():
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")

    out = run_cli(*arguments, cwd=cwd, program=program)
    assert out.returncode == 0, out.stderr
    return out.stdout


def test_every_example_is_run():
    assert {path.name for path in EXAMPLES.glob("*.py")} == TESTED


def test_sample(tmp_path):
    out = run_example("sample.py", cwd=tmp_path)
    assert out.count("is kept") == 3 and "its action: [" in out


@pytest.mark.slow
def test_evaluate_draws_scores(tmp_path):
    out = run_example("evaluate.py", "hopper-medium-v2", "--episodes", 1, "--candidates", "1,2", cwd=tmp_path)
    assert out.count("95 % interval") == 2
    assert (tmp_path / "scores.png").stat().st_size > 5000


def test_control_loop(tmp_path):
    out = run_example("control_loop.py", "--steps", 5, "--hertz", 1000, "--candidates", 4, cwd=tmp_path)
    assert out.startswith("5 decisions at 1000 Hz: ")


@pytest.mark.slow
def test_control_loop_onnx(tmp_path):
    pytest.importorskip("onnxruntime")
    out = run_example("control_loop_onnx.py", "--steps", 5, "--states", 3, "--rate", 1000, cwd=tmp_path)
    assert all(f"N = {n} " in out for n in (1, 16, 64))
    found = json.loads((tmp_path / "control_loop_onnx.json").read_text())
    assert found["drive"]["steps"] == 5 and 0 <= found["drive"]["late"] <= 5
    assert (tmp_path / "control_loop_onnx.png").stat().st_size > 5000


@pytest.mark.slow
def test_import_swg_jax(tmp_path):
    pytest.importorskip("msgpack")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "actor_params_1.msgpack").write_bytes(pack_flax(nest(golden("params/"))))
    out = run_example("import_swg_jax.py", "models", "policy", cwd=tmp_path)
    assert "action [" in out and (tmp_path / "policy" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.waits
def test_sweep(tmp_path):
    pytest.importorskip("ray")
    out = run_example("sweep.py", "--out", "sweep", "--steps", 5, cwd=tmp_path)
    assert "6 cells" in out and (tmp_path / "sweep" / "report" / "index.html").is_file()


@pytest.mark.slow
def test_own_robot(tmp_path):
    out = run_example("own_robot.py", "--episodes", 4, "--steps", 40, cwd=tmp_path)
    for word in ("recorded:", "-2 to 2", "Evaluation of make_robot: mean return", "control loop:"):
        assert word in out, out
    assert (tmp_path / "runs" / "own-robot" / "policy" / "model.safetensors").is_file()
