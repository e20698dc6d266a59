"""Environments that fail, hang or never end; names and datasets that ask for code; where an evaluation is
called from."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import gymnasium
import numpy as np
import odd_environments
import pytest
import torch

from swg_fast import NoiseSchedule, Policy, ScoreNetwork, UsageError, evaluate
from swg_fast.envs import make_env
from swg_fast.envs.settings import EnvSettings
from swg_fast.envs.trust import check_spec

SETTINGS = {"n_candidates": 2, "guidance_scale": 1.0, "temperature": 1.0, "select": "max_weight",
            "backend": "torch", "progress": False}


def play(task, **environment):
    policy = Policy(ScoreNetwork(3, 1, 16, 2), NoiseSchedule.vp(2))
    return evaluate(policy, task, episodes=2, workers=1, environment=EnvSettings(**environment), **SETTINGS)


BAD = {
    "a NaN reward": ("NanReward", {}, "episode 0, after 3 steps: the step gives the reward nan"),
    "a NaN observation": ("NanObservation", {}, "episode 0, after 0 steps: the observation has NaN"),
    "more numbers than its space": ("Wider", {}, "has 4 numbers and its space 3"),
    "a hanging step": ("Hangs", {"step_timeout": 0.3}, "after 0 steps: it took over 0.3 s; .*--step-timeout"),
    "a KeyboardInterrupt": ("Interrupts", {}, "after 0 steps: KeyboardInterrupt"),
    "a SystemExit": ("Exits", {}, "after 0 steps: SystemExit"),
    "a dead process": ("Dies", {}, r"died \(exit code 3\)"),
    "an error of two lines": ("Fails", {}, "ZeroDivisionError: of the environment"),
    "no end": ("Endless", {}, "after 49 steps: the episode has no end; .*--episode-limit"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_environment_that_fails_is_named(name, monkeypatch):
    task, environment, word = BAD[name]
    monkeypatch.setattr("swg_fast.evaluation.episodes.STATE_STRIDE", 50)
    with pytest.raises(UsageError, match=word) as error:
        play(f"{task}-v0", **environment)
    assert "\n" not in str(error.value) and (f"{task}-v0" in str(error.value) or task == "Dies")


def test_an_episode_limit_ends_an_endless_one():
    found = play("Endless-v0", episode_limit=7)
    assert [episode.length for episode in found.episodes] == [7, 7]
    assert json.dumps(found.settings)


def spec(point, **more):
    return gymnasium.envs.registration.EnvSpec("Any-v0", entry_point=point, **more)


def wrapped(point):
    wrapper = gymnasium.envs.registration.WrapperSpec("any", point, {})
    return spec("gymnasium.envs.classic_control.pendulum:PendulumEnv", additional_wrappers=(wrapper,))


UNTRUSTED = {
    "a program": (lambda: check_spec(spec("subprocess:Popen", kwargs={"args": ["true"]}), "minari:x", ()),
                  "minari:x asks to run subprocess:Popen.*--trust subprocess:Popen"),
    "a wrapper": (lambda: check_spec(wrapped("os:system"), "minari:x", ()), "os:system"),
    "a wrapper that writes": (
        lambda: check_spec(wrapped("gymnasium.wrappers.rendering:RecordVideo"), "x", ()), "RecordVideo"),
    "vector": (lambda: check_spec(spec(None, vector_entry_point="os:abort"), "minari:x", ()), "os:abort"),
    "a module by name": (lambda: make_env("this:Thing-v0"), "code of the module 'this'.*--trust this"),
    "another module trusted": (lambda: make_env("this:Thing-v0", trust=["that"]), "--trust this"),
    "trust as text": (lambda: EnvSettings(trust="this"), "a list of names"),
    "no seconds": (lambda: EnvSettings(step_timeout=0), "step_timeout must be"),
    "no steps": (lambda: EnvSettings(episode_limit=0), "episode_limit must be at least 1"),
    "too many steps": (lambda: EnvSettings(episode_limit=2**16), "episode_limit must be at most 65535"),
    "no such module": (lambda: make_env("no_such:Thing-v0", trust=["no_such"]), "no_such"),
}


@pytest.mark.parametrize("name", UNTRUSTED)
def test_only_known_or_trusted_code_runs(name):
    run, word = UNTRUSTED[name]
    with pytest.raises(UsageError, match=word) as error:
        run()
    assert "\n" not in str(error.value) and "this" not in sys.modules


def test_trusted_code_runs():
    check_spec(spec("subprocess:Popen"), "x", ["subprocess:Popen"])
    check_spec(wrapped("gymnasium.wrappers.common:TimeLimit"), "x", ())
    trust = [odd_environments.__name__]
    assert play(f"{trust[0]}:Plain-v0", trust=trust).pooled.mean == 10


@pytest.mark.parametrize("task", ["Pendulum-v1", "PointMaze_UMaze-v3", "antmaze-umaze-v2"])
def test_global_generators_stay_as_they_were(task):
    if task.startswith("Point"):
        pytest.importorskip("gymnasium_robotics")

    def state():
        return [random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state().numpy()]

    np.random.standard_normal()  # a second number waits
    before = state()
    env = make_env(task)
    first = env.reset(5)
    actions = np.full((3, env.action_dim), 0.1)
    steps = [env.step(action).observation for action in actions]
    np.testing.assert_equal(state(), before)
    np.random.seed(1)
    np.testing.assert_array_equal(env.reset(5), first)
    np.testing.assert_array_equal([env.step(action).observation for action in actions], steps)


SCRIPT = f"""
import multiprocessing, threading
import gymnasium as gym
import numpy as np
from swg_fast import NoiseSchedule, Policy, ScoreNetwork, evaluate

class Own(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    def reset(self, *, seed=None, options=None):
        return np.zeros(3, "f4"), {{}}
    def step(self, action):
        return np.zeros(3, "f4"), 1.0, True, False, {{}}

gym.register("Own-v0", "__main__:Own")
policy = Policy(ScoreNetwork(3, 1, 16, 2), NoiseSchedule.vp(2))

def play(task):
    print(evaluate(policy, task, episodes=2, **{SETTINGS!r}).env_steps, flush=True)

play("Own-v0")
gym.register("Other-v0", lambda: Own())
thread = threading.Thread(target=play, args=("Other-v0",))
thread.start()
thread.join()
multiprocessing.current_process()._config["daemon"] = True  # as in a pool's worker
play("Own-v0")
"""
CALLERS = {"a script": (["SCRIPT"], None), "standard input": (["-P", "-"], SCRIPT)}


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLERS)
def test_an_evaluation_runs_wherever_it_is_called_from(name, tmp_path):
    """No guard of the main module, an environment of the script, another thread, a daemonic process; and
    files in the current folder that have modules' names."""
    (tmp_path / "script").mkdir()
    script = tmp_path / "script" / "script.py"
    script.write_text(SCRIPT)
    for module in ("multiprocessing", "numpy", "json", "swg_fast", "cloudpickle"):
        (tmp_path / f"{module}.py").write_text("open('ran', 'w')\nraise SystemExit('ran')")
    arguments, said = CALLERS[name]
    command = [sys.executable, *(str(script) if a == "SCRIPT" else a for a in arguments)]
    out = subprocess.run(command, input=said, cwd=tmp_path, capture_output=True, text=True,
                         timeout=120)
    assert (out.returncode, out.stdout.split()) == (0, ["2", "2", "2"]), out.stderr
    assert "Traceback" not in out.stderr and not (tmp_path / "ran").exists()
