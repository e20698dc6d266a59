"""`evaluate` with SWG-JAX's agent, which a stand-in replaces, since tests have no SWG-JAX checkout."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from swg_fast.evaluation.episodes import evaluate

pytestmark = pytest.mark.slow  # JAX compiles


def test_an_evaluation_takes_it(monkeypatch):
    jax = pytest.importorskip("jax")
    from benchmarks.swg_jax_training import JaxPolicy

    asked = []

    def eval_actions(state, key, parameters):
        """A torque computed from the angle's sine, the key's noise and the settings."""
        asked.append(parameters)
        noise = jax.random.normal(key, (1,)) * parameters["temperature"]
        return jax.numpy.tanh(state[1:2] + noise), None

    def play(seed):
        policy = JaxPolicy(SimpleNamespace(eval_actions=eval_actions), "Pendulum-v1", 4, 2.0, rows=2)
        return evaluate(policy, "Pendulum-v1", episodes=3, envs=3, workers=1, seed=seed, progress=False)

    one, same, other = play(1), play(1), play(2)
    assert one.pooled.scores == same.pooled.scores != other.pooled.scores
    assert len(one.episodes) == 3 and one.candidates == 4 * one.env_steps
    assert one.settings["select"] == "max_q" and one.settings["guidance_scale"] == 2.0
    assert {(p["batch_size"], p["guidance_scale"], p["temperature"]) for p in asked} == {(4, 2.0, 1.0)}
    assert np.isfinite(one.pooled.mean) and np.abs(one.episodes[0].actions).max() <= 2
