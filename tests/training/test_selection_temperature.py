"""The temperature of softmax that is fitted to a policy's weights: a known answer, its use, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import make_network, make_recording, run_cli, write_hdf5

from swg_fast import NoiseSchedule, Policy, UsageError, load_policy
from swg_fast.common.errors import Note
from swg_fast.data.transitions import to_transitions
from swg_fast.policy.backends.job import Samples
from swg_fast.policy.model_card import FITTED
from swg_fast.training import selection_temperature as fitting
from swg_fast.training.distillation.run import Teaching, distill
from swg_fast.training.distillation.settings import DistillSettings
from swg_fast.training.loop import LoopOptions

S, A = 4, 2
STATES = torch.randn(3, S, generator=torch.Generator().manual_seed(1))
SOFTMAX = {"select": "softmax", "n_candidates": 32, "temperature": 1.0, "seed": 2}


def policy(**card: object) -> Policy:
    return Policy(make_network(S, A, 16, 2), NoiseSchedule.vp(4),
                  card={"training": {"weights": {"mean": 0.3}}, "task": "mine"} | card)


def entry(temperature: object) -> dict[str, object]:
    return {FITTED: {"temperature": temperature, "states": 100, "candidates": 16, "sampler": "ddpm",
                     "guidance_scale": 1.0}}


def test_the_noise_that_weights_have_is_found(monkeypatch):
    """Log weights are the expected ones with noise of 0.25. One in fifty is at the clip: no matter."""
    generator = torch.Generator().manual_seed(0)

    def sample(self, states, config, **more):
        expected = torch.rand(len(states), config.n_candidates, generator=generator) * 0.5 + 0.3
        noise = 0.25 * torch.randn(expected.shape, generator=generator)
        weights = torch.where(torch.rand(expected.shape, generator=generator) < 0.02, -1.0,
                              expected * noise.exp())
        return Samples(states, states, states, None, weights, expected)

    monkeypatch.setattr(Policy, "sample", sample)
    found = fitting.fit_temperature(policy(), torch.zeros(500, S), 0)
    assert found.temperature == pytest.approx(0.25, rel=0.08) and found.states == 500


def test_it_is_the_same_in_every_call_and_above_zero():
    mine, states = policy(), torch.randn(90, S, generator=torch.Generator().manual_seed(4))
    one, again = (fitting.fit_temperature(mine, states, 3) for _ in range(2))
    assert one == again and one.temperature > 0
    assert (one.sampler, one.guidance_scale, one.candidates) == ("ddpm", 1.0, 16)


def test_states_are_of_held_out_episodes():
    data = to_transitions(make_recording(400, 20, S, A))
    mask = data.held_out(0.2, 5)
    found = fitting.held_out_states(data, 0.2, 30, 5).numpy()
    assert len(found) == 30 and len(np.unique(found, axis=0)) == 30
    held = {row.tobytes() for row in data.observations[mask]}
    assert all(row.tobytes() in held for row in found)
    assert len(fitting.held_out_states(data, 0.2, 10_000, 5)) == mask.sum()
    with pytest.warns(Note, match="no episode is held out"):
        assert len(fitting.held_out_states(data, 0.0, 10, 5)) == 10


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_auto_is_the_fitted_number(backend):
    mine = policy(**entry(0.37))
    auto, number = (mine.sample(STATES, selection_temperature=value, backend=backend, dtype="fp32", **SOFTMAX)
                    for value in ("auto", 0.37))
    assert torch.equal(auto.indices, number.indices)
    other = mine.sample(STATES, selection_temperature=1e-4, backend=backend, dtype="fp32", **SOFTMAX)
    assert not torch.equal(auto.indices, other.indices)
    plain = mine.sample(STATES, n_candidates=8, seed=0, selection_temperature="auto")
    assert torch.equal(plain.indices, mine.sample(STATES, n_candidates=8, seed=0).indices)


@pytest.mark.parametrize("card,chosen,word", [
    ({}, {}, "swg-fast rank POLICY --temperature-states"), ({FITTED: None}, {}, "its card has none"),
    (entry(0.3), {"select": "chi_squared"}, "is of select='softmax'"),
    (entry(0.0), {}, f"{FITTED} in the policy's card must be finite and above 0"),
    (entry("hot"), {}, f"{FITTED} in the policy's card must be a number"),
    ({}, {"selection_temperature": "cold"}, "selection_temperature must be a number")])
def test_what_has_no_fitted_temperature_is_one_line(card, chosen, word):
    with pytest.raises(UsageError, match=word) as error:
        policy(**card).sample(STATES, **SOFTMAX | {"selection_temperature": "auto"} | chosen)
    assert "\n" not in str(error.value)


def test_weights_without_noise_or_mean(monkeypatch):
    flat = Samples(STATES, STATES, STATES, None, torch.ones(3, 16), torch.ones(3, 16))
    monkeypatch.setattr(Policy, "sample", lambda *arguments, **keywords: flat)
    with pytest.raises(UsageError, match="have no noise"):
        fitting.fit_temperature(policy(), STATES, 0)
    with pytest.raises(UsageError, match="mean of the training weights"):
        fitting.draws_of(Policy(make_network(S, A, 16, 2), NoiseSchedule.vp(4)))


def test_a_student_has_none_of_its_teacher(tmp_path):
    teaching = Teaching.of(policy(**entry(0.3)), DistillSettings(pairs=100, steps=5, batch=16, hidden_dim=16))
    options = LoopOptions(tmp_path / "states", log_every=5, progress=False)
    data = to_transitions(make_recording(200, 20, S, A))
    assert FITTED not in load_policy(distill(teaching, data, tmp_path / "student", options=options)).card


def test_the_commands_fit_state_and_use_it(tmp_path):
    write_hdf5(tmp_path / "data.hdf5", make_recording(200, 20, 11, 3))
    done = run_cli("rank", "hopper-medium-v2", "--dataset", "data.hdf5", "--temperature-states", 8,
                   "--out", "r", "--device", "cpu", "--threads", 1, "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--select softmax --selection-temperature auto" in done.stdout
    fitted = json.loads((tmp_path / "r" / "policy" / "model_card.json").read_text())[FITTED]
    looked = run_cli("inspect", "r", "--dataset", "data.hdf5", "--states", 2, "--candidates", 2, "--quiet",
                     cwd=tmp_path)
    assert looked.returncode == 0, looked.stderr
    assert f"{fitted['temperature']:.3g}, the noise" in looked.stdout
    refused = run_cli("rank", "hopper-medium-v2", "--temperature-states", 0, cwd=tmp_path)
    assert refused.returncode == 2 and "temperature_states must be at least 1" in refused.stderr
    for value, code in (("auto", 0), ("0.5", 0), ("cold", 2)):
        out = run_cli("export", "r/policy", "--out", "f.pt2", "--format", "torch", "--selection-temperature",
                      value, cwd=tmp_path)
        assert out.returncode == code, out.stderr
