"""`swg-fast inspect` of policies with a student, of students alone and of distillations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import make_network, make_recording, write_hdf5
from matplotlib.figure import Figure
from safetensors.numpy import load_file, save_file

from swg_fast.cli.main import cli
from swg_fast.common.errors import UsageError
from swg_fast.evaluation.inspect import student
from swg_fast.evaluation.inspect.measure import Draws
from swg_fast.method.networks import TwinQ, ValueNetwork
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.policy.policy import Policy, load_policy

SMALL = ["--dataset", "data.hdf5", "--steps", 4, "--pairs", 128, "--batch", 8, "--log-every", 2,
         "--held-out", 0.2, "--device", "cpu"]
LOOK = ["--dataset", "data.hdf5", "--states", 6, "-n", 5, "--quiet"]


def swg_fast(*arguments):
    return CliRunner().invoke(cli, list(map(str, arguments)), standalone_mode=False)


@pytest.fixture
def teacher(tmp_path, monkeypatch):
    """A policy without V in the folder ``teacher``, and data for it; pictures are not drawn."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: Path(path).touch())
    write_hdf5(tmp_path / "data.hdf5", make_recording(n=1500))
    torch.manual_seed(0)
    policy = Policy(make_network(29, 8, hidden_dim=16, num_blocks=2), NoiseSchedule.vp(3), TwinQ(29, 8, 16),
                    card={"task": "antmaze-umaze-v2"})
    policy.save("teacher")
    return policy


def looked(*arguments):
    """What a command printed, and the figures and pictures in the folder ``out``."""
    found = swg_fast("inspect", *arguments, "--out", "out")
    assert found.exception is None, found.exception
    return found.output, json.loads(Path("out/inspect.json").read_text()), {
        path.name for path in Path("out").glob("*.png")}


def test_a_distillation_of_a_teacher_without_value(teacher, tmp_path):
    assert swg_fast("distill", "teacher", "--out", "run", *SMALL).exception is None
    text, figures, pictures = looked("run", "--quiet")
    assert pictures == {"student.png", "losses.png"} and "128 pairs, from held-out states" in text
    found = figures["student"]
    card = load_policy("run/policy").card["distilled"]["held_out_error"]
    assert found["action"]["error"] == pytest.approx(card["action_rmse"], abs=1e-4)
    assert [each["error"] for each in found["entries"]] == pytest.approx(
        card["action_rmse_by_entry"], abs=1e-4)
    assert found["weight"]["correlation"] == pytest.approx(card["weight_correlation"], abs=1e-3)
    assert figures["losses"]["student"]["step"] == 4

    (tmp_path / "run" / "policy").rename(tmp_path / "alone")
    Path("out/student.png").unlink()
    Path("out/losses.png").unlink()
    text, figures, pictures = looked("alone", "--quiet")  # needs no data
    assert not pictures and "inspect the run that distilled it" in text
    assert figures["student"]["action"]["error"] == card["action_rmse"]
    assert "has learnt guidance_scale=1" in str(swg_fast("inspect", "alone", "-g", 2).exception)
    assert "no saved states" in str(swg_fast("inspect", "alone", "--every-state", *LOOK).exception)


def test_a_distillation_under_way(teacher):
    assert swg_fast("distill", "teacher", "--out", "run", *SMALL, "--stop-after", 2).exit_code != 2
    text, figures, pictures = looked("run")
    assert pictures == {"losses.png"} and "student at step 2" in text and "student" not in figures
    Path("run/logs/history.jsonl").unlink()
    assert "has logged no step yet" in str(swg_fast("inspect", "run").exception)


def test_teacher_and_student_in_one_policy(teacher, tmp_path, monkeypatch):
    """With V as well, so that everything is looked at."""
    torch.manual_seed(1)
    Policy(*(getattr(teacher.model, name) for name in ("network", "schedule", "critic")),
           value=ValueNetwork(29, 16), card=teacher.card).save("teacher")
    assert swg_fast("distill", "teacher", "--out", "run", *SMALL, "--with-teacher").exception is None
    (tmp_path / "run" / "policy").rename(tmp_path / "both")
    assert "--dataset" in str(swg_fast("inspect", "both").exception)
    _, figures, pictures = looked("both", *LOOK)
    assert pictures == {"value.png", "advantages.png", "maze.png", "weights.png", "student.png"}
    assert figures["student"]["pairs"] == 30 and len(figures["student"]["entries"]) == 8
    assert [key for key in figures["weights"] if key.startswith("guidance")] == ["guidance 1"]

    monkeypatch.setattr(student, "PART", 2)
    policy, states = load_policy("both"), np.random.default_rng(0).standard_normal((5, 29)).astype("float32")
    ends = student.draw_ends(policy, policy.model.walk, states, Draws(n_candidates=3, seed=7, progress=False))
    for i in range(len(states)):
        for found, sampler in ((ends.teacher, "dpmpp_2m"), (ends.student, "student")):
            own = policy.sample(states[i:i + 1], sampler=sampler, n_candidates=3, select="none", seed=7,
                                state_indices=np.array([i]), return_candidates=True)
            np.testing.assert_allclose(found[3 * i:3 * i + 3, :-1], own.candidates[0], atol=1e-5)
            np.testing.assert_allclose(found[3 * i:3 * i + 3, -1], own.candidate_weights[0], atol=1e-5)


def test_figures_of_known_ends(tmp_path, monkeypatch):
    """A student that is off by a tenth in one entry and has another's sign; of ten entries the worst eight
    are drawn."""
    titles = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: titles.extend(
        ax.get_title() for ax in figure.axes if ax.get_title()))
    rng = np.random.default_rng(0)
    teacher = rng.standard_normal((400, 11)).astype("float32")
    copy = teacher.copy()
    copy[:, 2] += 0.1
    copy[:, 5] *= -1
    copy[:, -1] = 1.0
    found = student.student_figures(student.Ends(teacher, copy, "nowhere"), tmp_path / "a.png")
    errors = [entry["error"] for entry in found["entries"]]
    assert errors[2] == pytest.approx(0.1, abs=1e-6) and sum(error > 0 for error in errors) == 2
    assert found["entries"][2]["correlation"] == pytest.approx(1.0)
    assert found["entries"][5]["correlation"] == pytest.approx(-1.0)
    assert found["weight"]["correlation"] is None and found["pairs"] == 400
    assert len(titles) == 9 and "weight" in titles[-1] and titles[-1].endswith("correlation -")
    assert sum("entry 2 " in title or "entry 5 " in title for title in titles) == 2


def test_damaged_ends(tmp_path):
    path = tmp_path / "held_out.safetensors"
    ends = np.zeros((4, 3), np.float32)
    save_file({"teacher": ends, "student": ends}, path)
    assert student.read_ends(path, 3).teacher.shape == load_file(path)["student"].shape
    bad = {"is .4, 3. and .4, 3., expected .n, 4.": ({"teacher": ends, "student": ends}, 4),
           "NaN": ({"teacher": ends, "student": ends + np.nan}, 3), "not readable": ({"teacher": ends}, 3)}
    for message, (tensors, width) in bad.items():
        save_file(tensors, path)
        with pytest.raises(UsageError, match=message.replace("is ", "are ")):
            student.read_ends(path, width)
