"""One step of every task from recorded states, compared with MuJoCo 2.3.3."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("d4rl") is None:
    pytest.skip("D4RL is not installed", allow_module_level=True)

from benchmarks import one_step
from swg_fast.envs import contacts, make_env, simulator
from swg_fast.envs.tasks import presets

# Bound of the median over recorded steps of the largest |d qpos|: rounding (1e-12) where contacts are equal.
# Ant Maze's legs, the hammer and the kettle touch shapes with edges, for which later MuJoCo versions have
# only a collider that places contact points a little differently.
BOUNDS = {"antmaze-umaze": 1e-4, "antmaze-medium": 1e-4, "antmaze-large": 1e-4, "hopper": 1e-12,
          "walker2d": 1e-12, "halfcheetah": 1e-12, "pen": 1e-12, "hammer": 1e-6, "door": 1e-12,
          "relocate": 1e-12, "kitchen": 5e-4}


@pytest.mark.parametrize("model", one_step.MODELS)
def test_one_step(model):
    recorded = one_step.load(model)
    error = one_step.errors(make_env(one_step.MODELS[model]), recorded)
    moved = np.abs(recorded["next_qpos"] - recorded["qpos"]).max(axis=1)
    assert len(moved) == one_step.STARTS * one_step.STEPS and np.median(moved) > 3e-3
    assert np.median(error["qpos"]) < BOUNDS[model]
    assert np.median(error["reward"]) < 10 * BOUNDS[model]


def test_every_task_has_a_recording():
    for task, preset in presets().items():
        assert presets()[one_step.MODELS[one_step.model_of(task)]].family == preset.family


@pytest.mark.skipif(not contacts.adds_margins(), reason="this MuJoCo collides as D4RL's did")
@pytest.mark.parametrize("model", ["antmaze-umaze", "hopper", "pen", "hammer", "relocate", "kitchen"])
def test_it_would_show(model, monkeypatch):
    monkeypatch.setattr(contacts, "mend", lambda model: None)
    error = one_step.errors(make_env(one_step.MODELS[model]), one_step.load(model))
    assert np.median(error["qpos"]) > BOUNDS[model]


def test_margins_are_halved_once_per_model():
    core = make_env("antmaze-umaze-v2").core
    np.testing.assert_allclose(core.model.geom_margin, 0.005 if contacts.adds_margins() else 0.01)
    again = make_env("antmaze-umaze-v2").core
    np.testing.assert_array_equal(again.model.geom_margin, core.model.geom_margin)


def test_the_simulator_is_named():
    import mujoco

    found = simulator.describe()
    assert (found["name"], found["version"]) == ("mujoco", mujoco.__version__)
    assert ("margins halved" in found["contacts"]) == contacts.adds_margins()
