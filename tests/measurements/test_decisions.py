"""The contenders of `benchmarks.decisions` for policies with a student, and the lines of its plot."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from click.testing import CliRunner
from conftest import make_network, make_recording, write_hdf5

from benchmarks import decisions, decisions_report
from benchmarks.measuring import ROOT
from swg_fast.common.errors import UsageError
from swg_fast.method.networks import TwinQ, ValueNetwork
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.method.student import StudentWalk
from swg_fast.policy.policy import Policy

CHOSEN = decisions.Chosen(None, "dpmpp_2m_sde", 6, ("dpmpp_2m:8",), 1.0, "fp32")
WALK = StudentWalk("", "dpmpp_2m", 15, (1.0, 1.0), (14,), (1e-4, 1.0), "exact", True)
CARD = {"distilled": {"walk": asdict(WALK)}, "sampling": {"sampler": "student"},
        "training": {"weights": {"mean": 0.5}}}


@pytest.fixture
def both():
    networks = [make_network(29, 8, hidden_dim=16, num_blocks=2) for _ in range(2)]
    return Policy(networks[0], NoiseSchedule.vp(15), TwinQ(29, 8, 16), value=ValueNetwork(29, 16), card=CARD,
                  student=networks[1])


def test_contenders_of_a_policy_with_a_student(both, monkeypatch):
    found = decisions.contenders(both, CHOSEN)
    assert {"eager", "ours", "dpmpp_2m 8", "solver", "tree", "student", "draft and finish"} <= found.keys()
    assert {"student mean", "student supported", "student expected weight"} <= found.keys()
    # The default is the student, and fp32 already; there is no ranker.
    assert not {"default", "student fp32", "student lcb_weight"} & found.keys()
    every = decisions.cells(found, [1, 16, 64])
    assert {"student 1", "student 16", "draft and finish 64"} <= every.keys()
    assert "draft and finish 16" not in every  # it would be the teacher's own walk
    for settings in every.values():
        both.bind(**settings)
    assert both.settings(**every["draft and finish 64"]).finish == 16
    assert both.settings(**every["ours 16"]).finish is None
    assert both.bind(**every["student mean 64"]).config.averaged == 2
    backend = both.backend("auto", "fp32", student=True)
    monkeypatch.setattr(Policy, "backend", lambda *_, **__: backend)
    monkeypatch.setattr(backend, "dtype", "bf16")
    wide = decisions.contenders(both, replace(CHOSEN, dtype="auto"))
    assert (wide["student"]["dtype"], wide["student fp32"]["dtype"]) == ("auto", "fp32")


def test_what_has_no_contenders(both):
    with pytest.raises(UsageError, match="--only nobody: no contender"):
        decisions.contenders(both, replace(CHOSEN, only="ours,nobody"))
    alone = Policy(both.model.student, both.model.schedule, card=CARD)
    with pytest.raises(UsageError, match="a student alone.*--with-teacher"):
        decisions.contenders(alone, CHOSEN)
    assert "student" not in decisions.contenders(Policy(both.model.network, both.model.schedule), CHOSEN)


def test_a_quick_measurement(both, tmp_path, monkeypatch):
    """Times and quality of student and of draft and finish, in the JSON, the table and the plot."""
    monkeypatch.chdir(tmp_path)
    both.save("both")
    write_hdf5(tmp_path / "data.hdf5", make_recording(n=600))
    asked = ["antmaze-umaze-v2", "--policy", "both", "--judge", "both", "--data", "data.hdf5", "--quick",
             "--dtype", "fp32", "--parts", "time,states", "--json", "out.json"]
    scale = CliRunner().invoke(decisions.main, [*asked, "-g", "3"], standalone_mode=False)
    assert "has learnt guidance_scale=1" in str(scale.exception)
    only = ["--only", "eager,ours,solver,student,draft and finish"]
    out = CliRunner().invoke(decisions.main, asked + only, standalone_mode=False)
    assert out.exception is None, out.exception
    data = json.loads((tmp_path / "out.json").read_text())
    assert decisions_report.points(data, "states")["draft and finish"][0]["n"] == 64
    assert [row["n"] for row in decisions_report.points(data, "states")["student"]] == [1, 64]
    assert [line.contender for line in decisions_report.lines(data, "states")] == [
        "eager", "ours", "solver", "student", "draft and finish"]
    assert (tmp_path / "out.png").stat().st_size > 0


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").glob("decisions-*.json")),
                         ids=lambda path: path.stem)
def test_the_recorded_plots_have_few_lines(path):
    found = decisions_report.lines(json.loads(path.read_text()), "states")
    assert 3 <= len(found) <= len(decisions_report.COLORS) == len(decisions_report.MARKERS)
    assert len({line.label for line in found}) == len({line.look for line in found}) == len(found)
