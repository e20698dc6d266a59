"""Exported decisions against the policy's own: the same kept candidate, and actions to 1e-5."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_network, run_cli

from swg_fast import Policy, UsageError, load_policy
from swg_fast.method.networks import EnsembleQ, Ranker, TwinQ
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.method.student import StudentWalk
from swg_fast.reference import philox

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
SEED, N, STATES, ACTIONS, STEPS = 2**40 + 11, 6, 5, 3, 4
WALK = {"sampler": "dpmpp_2m", "sampler_steps": 2, "guidance_scale": 2.0}
LEARNT = StudentWalk("", "dpmpp_2m", STEPS, (0.0, 3.0), (3,), (1e-4, 1.0), "exact", True)
BARE = """
import sys, numpy, torch
given = dict(numpy.load(sys.argv[2]))
found = torch.export.load(sys.argv[1]).module()(**{name: torch.from_numpy(x) for name, x in given.items()})
assert not any(name.startswith("swg_fast") for name in sys.modules)
numpy.savez(sys.argv[3], *(x.numpy() for x in found))
"""


@pytest.fixture(scope="module")
def policy() -> Policy:
    torch.manual_seed(1)
    networks = {"network": make_network(STATES, ACTIONS, 16, 2, "early"),
                "student": make_network(STATES + 1, ACTIONS, 16, 2, "joint"),
                "critic": TwinQ(STATES, ACTIONS, 16), "ranker": Ranker(STATES, ACTIONS, 16, 3),
                "critics": EnsembleQ(STATES, ACTIONS, 16, 3)}
    card = {"task": "mine", "observation_keys": ["place", "speed"], "licence": "MIT",
            "training": {"settings": {"read_share": 0.1}}, "distilled": {"walk": asdict(LEARNT)}}
    return Policy(schedule=NoiseSchedule.vp(STEPS), card=json.loads(json.dumps(card)), **networks)


def inputs(policy: Policy, states: torch.Tensor, steps: list[int], takes: str) -> dict[str, np.ndarray]:
    """What the graph is given for the noise of ``SEED``; ``steps`` are those of the walk that add noise."""
    found = {"state": states.numpy()}
    if takes == "seed":
        return found | {"seed": np.array(SEED)}
    D, T = policy.action_dim + 1, policy.model.schedule.num_steps
    rows, columns = torch.arange(len(states))[:, None, None], torch.arange(N)[:, None]
    drawn = philox.normals(SEED, columns, rows, torch.tensor([T, *steps]), D).numpy()
    return found | {"noise": drawn[:, :, 0]} | ({"step_noise": drawn[:, :, 1:]} if steps else {})


def by_onnx(path: Path, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(str(path)).run(None, given)


def by_torch(path: Path, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    """In a process that imports torch alone."""
    np.savez(path.with_suffix(".in.npz"), **given)
    out = path.with_suffix(".out.npz")
    subprocess.run([sys.executable, "-c", BARE, path, path.with_suffix(".in.npz"), out], check=True,
                   cwd=path.parent)
    return list(np.load(out).values())


def assert_the_policys(policy: Policy, found: list[np.ndarray], states: torch.Tensor, settings: dict) -> None:
    kept = policy.sample(states, seed=SEED, backend="torch", dtype="fp32", n_candidates=N, **settings)
    assert np.array_equal(found[2], kept.indices)
    assert np.abs(found[0] - kept.actions.numpy()).max() < 1e-5
    # Weights are not clipped: far outside the data one may be -40, where float32 rounds to 4e-6.
    np.testing.assert_allclose(found[1], kept.weights.numpy(), rtol=1e-5, atol=1e-5)


def states_of(policy: Policy, count: int) -> torch.Tensor:
    return torch.randn(count, policy.state_dim, generator=torch.Generator().manual_seed(3))


def test_onnx_of_a_walk_from_noise_in_every_batch(policy, tmp_path):
    settings = WALK | {"select": "max_q"}
    path = policy.export(tmp_path / "walk.onnx", n_candidates=N, **settings)
    assert [entry.name for entry in tmp_path.iterdir()] == ["walk.onnx"]  # one file, the weights in it
    for count in (1, 2, 7):
        states = states_of(policy, count)
        found = by_onnx(path, inputs(policy, states, [], "noise"))
        assert_the_policys(policy, found, states, settings)


def test_onnx_of_a_student_from_a_seed_with_its_description(policy, tmp_path):
    settings = {"sampler": "student", "guidance_scale": 1.0, "select": "expected_weight", "ranking": "ranker"}
    path = policy.export(tmp_path / "student.onnx", takes="seed", n_candidates=N, **settings)
    states = states_of(policy, 9)
    assert_the_policys(policy, by_onnx(path, inputs(policy, states, [], "seed")), states, settings)
    said = onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
    assert said["task"] == "mine" and said["licence"] == "MIT"
    assert json.loads(said["observation_keys"]) == ["place", "speed"]
    assert json.loads(said["action_low"]) == [-1.0] * ACTIONS
    assert json.loads(said["sampling"])["sampler"] == "student" and said["swg_fast_version"]


@pytest.mark.parametrize("select", ["lcb_weight", "lcb_q"])
def test_onnx_of_an_ensembles_lower_bound(policy, tmp_path, select):
    settings = {"sampler": "student", "guidance_scale": 1.0, "select": select, "pessimism": 2.0}
    path = policy.export(tmp_path / "bound.onnx", n_candidates=N, **settings)
    states = states_of(policy, 5)
    assert_the_policys(policy, by_onnx(path, inputs(policy, states, [], "noise")), states, settings)


@pytest.mark.slow
def test_torch_of_a_noisy_walk_without_this_package(policy, tmp_path):
    settings = {"sampler": "ddpm", "guidance_scale": 2.0, "select": "expected_weight", "ranking": "read"}
    path = policy.export(tmp_path / "walk.pt2", format="torch", n_candidates=N, **settings)
    states = states_of(policy, 3)
    found = by_torch(path, inputs(policy, states, list(range(STEPS - 1, 0, -1)), "noise"))
    assert_the_policys(policy, found, states, settings)
    extra = {"swg_fast.json": ""}
    torch.export.load(path, extra_files=extra)
    assert json.loads(extra["swg_fast.json"])["task"] == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("name,kind", [("antmaze-umaze-v2", "onnx"), ("antmaze-umaze-v2", "torch"),
                                       ("antmaze-large-play-v2", "onnx"), ("hopper-medium-v2", "onnx")])
def test_a_bundled_policys_own_decision(name, kind, tmp_path):
    policy, path = load_policy(name), tmp_path / f"policy.{kind}"
    said = run_cli("export", name, "--format", kind, "--out", path, "--candidates", N, cwd=tmp_path)
    assert said.returncode == 0 and said.stderr == "", said.stderr
    states = states_of(policy, 4)
    found = {"onnx": by_onnx, "torch": by_torch}[kind](path, inputs(policy, states, [], "noise"))
    assert_the_policys(policy, found, states, {})


@pytest.mark.slow
def test_a_bundled_policys_walk(tmp_path):
    policy = load_policy("antmaze-umaze-v2")
    settings = {"sampler": "dpmpp_2m", "sampler_steps": 8}
    states = states_of(policy, 4)
    path = policy.export(tmp_path / "walk.onnx", n_candidates=N, **settings)
    assert_the_policys(policy, by_onnx(path, inputs(policy, states, [], "noise")), states, settings)


def test_actions_come_out_in_the_environments_units(tmp_path):
    torch.manual_seed(2)
    bounds = {"low": [-2.0, 0.0, 0.1], "high": [2.0, 0.5, 0.3]}
    policy = Policy(make_network(STATES, ACTIONS, 16, 2, "early"), NoiseSchedule.vp(STEPS),
                    card={"action_bounds": bounds})
    path = policy.export(tmp_path / "units.pt2", format="torch", takes="seed", n_candidates=N, **WALK)
    states = states_of(policy, 4)
    extra = {"swg_fast.json": ""}
    decide = torch.export.load(path, extra_files=extra).module()
    action = decide(state=states, seed=torch.tensor(SEED))[0].numpy()
    expected, _ = policy.predict(states, seed=SEED, backend="torch", dtype="fp32", n_candidates=N, **WALK)
    assert np.abs(action - expected).max() < 1e-5
    assert (action >= policy.bounds.inside[0]).all() and (action <= policy.bounds.inside[1]).all()
    assert json.loads(json.loads(extra["swg_fast.json"])["action_low"]) == bounds["low"]


def test_nothing_compared_draws_one(policy, tmp_path):
    path = policy.export(tmp_path / "first.pt2", format="torch", n_candidates=N, sampler="student",
                         select="none")
    states = states_of(policy, 2)
    given = {name: x if name == "state" else x[:, :1] for name, x in
             inputs(policy, states, [], "noise").items()}
    found = torch.export.load(path).module()(**{name: torch.from_numpy(x) for name, x in given.items()})
    assert_the_policys(policy, [x.numpy() for x in found], states, {"sampler": "student", "select": "none"})


REFUSED = {
    "select='softmax'": {"select": "softmax"},
    "select='chi_squared'": {"select": "chi_squared"},
    "select='support'": {"select": "support", "ranking_mean": 0.3},
    "ranking='draws'": {"select": "expected_weight", "ranking_mean": 0.3},
    "ranking='read' of a student": {"select": "expected_weight", "ranking": "read", "sampler": "student"},
    "leaves=2": {"leaves": 2, "sampler": "ddpm"},
    "keep_share=0.5": {"keep_share": 0.5, "ranking": "ranker"},
    "finish=2": {"finish": 2, "sampler": "student"},
    "dtype": {"dtype": "bf16"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_graph_is_refused_by_name(policy, tmp_path, name):
    with pytest.raises(UsageError, match=rf"^{name}.*; (use|leave)"):
        policy.export(tmp_path / "out.onnx", n_candidates=N, **REFUSED[name])
    with pytest.raises(UsageError, match="format"):
        policy.export(tmp_path / "out.onnx", format="tflite")
    assert not list(tmp_path.iterdir())
