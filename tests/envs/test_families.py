"""Every family of D4RL: made, seeded, stepped, scored, drawn; and the modules that stand in for its imports.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import types
import weakref

import numpy as np
import pytest

from swg_fast.common.errors import UsageError
from swg_fast.envs import d4rl_import, make_env, model_files, simulator, status
from swg_fast.envs.d4rl_import import FAMILY_MODULES
from swg_fast.envs.status import family_status
from swg_fast.envs.tasks import presets

gym = pytest.importorskip("gym", reason="D4RL is not installed")

# task: its state and action sizes in the paper, and D4RL's reference returns of score 0 and 100
TASKS = {
    "hopper-medium-v2": (11, 3, -20.272305, 3234.3),
    "walker2d-medium-replay-v2": (17, 6, 1.629008, 4592.3),
    "halfcheetah-expert-v2": (17, 6, -280.178953, 12135.0),
    "pen-human-v1": (45, 24, 96.262799, 3076.8331017826877),
    "hammer-cloned-v1": (46, 26, -274.856578, 12794.134825156867),
    "door-expert-v1": (39, 28, -56.512833, 2880.5693087298737),
    "relocate-human-v1": (39, 30, -6.425911, 4233.877797728884),
    "kitchen-complete-v0": (60, 9, 0, 4),
    "kitchen-mixed-v0": (60, 9, 0, 4),
}


@pytest.mark.parametrize("task", TASKS)
def test_make_seed_step_score(task):
    states, actions, low, high = TASKS[task]
    env = make_env(task)
    assert (env.state_dim, env.action_dim) == (states, actions)

    def run(seed):
        rng = np.random.default_rng(0)
        out = [env.reset(seed)]
        for _ in range(8):
            observation, reward, done = env.step(rng.uniform(-1, 1, actions))
            out.append(np.append(observation, reward))
            assert isinstance(done, bool)
        return np.concatenate(out)

    first, other, again = run(3), run(4), run(3)
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float64 and np.isfinite(first).all()
    assert not np.array_equal(first[:states], other[:states])
    assert env.normalized_score(low) == pytest.approx(0, abs=1e-9)
    assert env.normalized_score(high) == pytest.approx(100)
    assert env.position() is None and env.goal() is None and env.maze() is None


def test_every_preset_is_registered_with_its_limit():
    for family, module in FAMILY_MODULES.items():
        d4rl_import.import_d4rl(module)
        assert family_status(family) == "works"
    for task, preset in presets().items():
        assert gym.spec(task).max_episode_steps == preset.max_episode_steps


@pytest.mark.slow
@pytest.mark.parametrize("task", ["hopper-medium-v2", "pen-human-v1", "kitchen-mixed-v0"])
def test_pictures(task):
    env = make_env(task)
    env.reset(0)
    try:
        image = env.render(96, 64)
    except UsageError as error:
        assert "OpenGL" in str(error)
        pytest.skip(f"no picture: {error}")
    assert image.shape == (64, 96, 3) and image.dtype == np.uint8 and image.std() > 5
    # A picture's memory is freed with its environment; each environment holds 100 to 700 MB.
    renderer = weakref.ref(env.core.sim.render_contexts[-1]._renderer)
    env.close()
    assert renderer() is None
    np.testing.assert_array_equal(env.render(96, 64), image)
    renderer = weakref.ref(env.core.sim.render_contexts[-1]._renderer)
    del env
    gc.collect()
    assert renderer() is None


def test_stand_ins_do_not_stay():
    """After D4RL, an import of another package's mjrl or dm_control works as before."""
    d4rl_import.import_d4rl("kitchen")
    assert getattr(sys.modules.get("dm_control"), "__file__", "real") is not None
    assert "mjrl" not in sys.modules


def test_a_model_that_this_mujoco_reads_is_left_as_it_is(tmp_path):
    (tmp_path / "m.xml").write_text('<mujoco><option timestep="0.1"/><worldbody/></mujoco>')
    assert model_files.load(tmp_path / "m.xml").opt.timestep == 0.1
    (tmp_path / "part.xml").write_text('<mujocoinclude><option apirate="9" timestep="0.2"/>'
                                       '<default class="other"><geom size="1"/></default></mujocoinclude>')
    (tmp_path / "m.xml").write_text('<mujoco><default><geom size="2"/></default>'
                                    '<include file="part.xml"/><worldbody>'
                                    '<geom class="other"/><geom/></worldbody></mujoco>')
    model = model_files.load(tmp_path / "m.xml")
    assert model.opt.timestep == 0.2 and model.geom_size[:, 0].tolist() == [1, 2]
    (tmp_path / "m.xml").write_text("<mujoco><nonsense/></mujoco>")
    with pytest.raises(ValueError, match="nonsense"):
        model_files.load(tmp_path / "m.xml")


def test_another_packages_gym_is_named(monkeypatch):
    versions = {"gym": "0.26.2", "d4rl": "1.1"}
    monkeypatch.setattr(d4rl_import.metadata, "version", versions.__getitem__)
    with pytest.raises(UsageError, match=r"gym 0\.26\.2 .* pip install 'gym>=0\.23,<0\.24'"):
        make_env("hopper-medium-v2")
    assert "gym 0.26.2" in family_status("locomotion")


def test_reasons_are_whole(monkeypatch):
    def fail(name):
        raise RuntimeError("first line " + "x" * 200 + "\nand the end")

    monkeypatch.setattr(status, "import_family_module", fail)
    assert family_status("kitchen").endswith("x and the end")


def test_the_real_mujoco_py_only_when_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco_py", types.ModuleType("mujoco_py"))
    with pytest.raises(UsageError, match="imported before"):
        simulator.install()
    monkeypatch.setenv(simulator.REAL, "1")
    monkeypatch.setattr(sys.modules["mujoco_py"], "get_version", lambda: "2.1.2", raising=False)
    simulator.install()
    assert simulator.describe() == {"name": "mujoco-py", "version": "2.1.2", "contacts": "as they are"}
    monkeypatch.setattr(sys.modules["mujoco_py"], "is_swg_fast_adapter", True, raising=False)
    with pytest.raises(UsageError, match="before the program starts"):
        simulator.install()


def test_a_real_mujoco_py_that_does_not_work_is_said():
    """d4rl brings its Python part, which finds no MuJoCo 2.1 here; with the variable set that is an error."""
    out = subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['mujoco_py'] = None\n"
         "from swg_fast.envs import make_env; make_env('hopper-medium-v2')"],
        env={"SWG_FAST_MUJOCO_PY": "1", "PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert "asks for the real mujoco-py, which cannot be imported" in out.stderr.splitlines()[-1]
