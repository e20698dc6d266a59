"""Environments that give other things than Gymnasium's API asks for are refused in one line."""

from __future__ import annotations

import gymnasium
import numpy as np
import odd_environments
import pytest
from gymnasium.spaces import Box, Dict

from swg_fast import UsageError
from swg_fast.envs import make_env, worker

ZEROS = np.zeros(3, np.float32)


def made(name, **body):
    """The environment `odd_environments.Plain` with another ``body``."""
    made.count += 1
    task = f"Second{made.count}-v0"
    gymnasium.register(task, type("Odd", (odd_environments.Plain,), body))
    env = make_env(task)
    env.alone = True
    return env


made.count = 0


def step(*values):
    return {"step": lambda self, action: values}


def shows(observation):
    return step(observation, 1.0, True, False, {})


def gives(**changes):
    names = {"observation": ZEROS, "reward": 1.0, "terminated": True, "truncated": False, "info": {}}
    return step(*(names | changes).values())


def starts(value):
    return {"reset": lambda self, **options: value}


STEPS = {
    "four values": (
        step(ZEROS, 1.0, True, {}), "its step gives 4 values, and Gymnasium's gives (observation"),
    "six values": (step(ZEROS, 1.0, True, False, {}, {}), "its step gives 6 values"),
    "nothing": ({"step": lambda self, action: None}, "its step gives a NoneType"),
    "a dictionary": (shows({"a": ZEROS}), "the observation is not the real numbers that its space says"),
    "text": (shows("abc"), "the observation is not the real numbers"),
    "complex numbers": (shows(ZEROS + 1j), "the observation is not the real numbers"),
    "masked numbers": (shows(np.ma.masked_less(ZEROS - 1, 0)), "masked"),
    "ragged": (shows([1, [2, 3]]), "the observation is not the real numbers"),
    "beyond float32": (shows(np.full(3, 1e300)), "infinity in float32"),
    "no reward": (gives(reward=None), "the reward None, expected one number"),
    "rewards": (gives(reward=np.ones(2)), "the reward array([1., 1.]), expected one number"),
    "a reward in words": (gives(reward="1.5"), "the reward '1.5'"),
    "a complex reward": (gives(reward=1j), "the reward 1j"),
    "NaN as reward": (gives(reward=np.nan), "the reward nan"),
    "an end in words": (gives(terminated="False"), "terminated 'False'"),
    "an end that is NaN": (gives(terminated=np.nan), "terminated nan"),
    "several ends": (gives(truncated=np.ones(2, bool)), "truncated array([ True, True])"),
    "no info": (gives(info=None), "the info None, expected a dictionary"),
    "a list of infos": (gives(info=[]), "the info [], expected a dictionary"),
    "success in words": (gives(info={"success": "False"}), "success 'False'"),
    "success that is NaN": (gives(info={"is_success": np.nan}), "is_success nan"),
    "an observation alone": (
        starts(ZEROS), "its reset gives a ndarray, and Gymnasium's gives (observation, info)"),
    "nothing at the start": (starts(None), "its reset gives a NoneType"),
    "no info at the start": (starts((ZEROS, None)), "its reset gives the info None"),
    "a vector for a dictionary": (
        {"observation_space": Dict(a=Box(-1, 1, (3,)))}, "the observation 'a' is not the real numbers"),
}


@pytest.mark.parametrize("name", STEPS)
def test_what_a_step_gives(name):
    body, word = STEPS[name]
    env = made(name, **body)
    with pytest.raises(UsageError) as error:
        worker.reset(env, 0)
        worker.step(env, np.zeros(1))
    assert word in str(error.value) and "mend the environment" in str(error.value)


FINE = {
    "an array as reward": gives(reward=np.ones(1)),
    "a true reward": gives(reward=True),
    "arrays of ends": gives(terminated=np.array([True]), truncated=np.zeros(1)),
    "a list of numbers": shows([0, 0, 0]),
    "a column": shows(ZEROS[:, None]),
    "success that is not said": gives(info={"success": None}),
}


@pytest.mark.parametrize("name", FINE)
def test_what_is_as_good(name):
    env = made(name, **FINE[name])
    worker.reset(env, 0)
    found = worker.step(env, np.zeros(1))
    assert found.observation.tolist() == [0, 0, 0]
    assert (found.reward, found.done, found.success) == (1.0, True, None)


def reversed_box():
    box = Box(-1, 1, (1,))
    box.low, box.high = box.high, box.low
    return box


def leaving(self, **options):
    raise SystemExit(3)


SPACES = {
    "a name with a slash": (
        {"observation_space": Dict({"a/b": Box(-1, 1, (3,))})}, "is named 'a/b'; rename it"),
    "an empty name": ({"observation_space": Dict({"": Box(-1, 1, (3,))})}, "is named ''; rename it"),
    "a number as name": ({"observation_space": Dict({1: Box(-1, 1, (3,))})}, "is named 1; rename it"),
    "reversed actions": ({"action_space": reversed_box()}, "its action 0 goes from 1 to -1"),
    "an action that cannot move": (
        {"action_space": Box(np.float32([-1, 0]), np.float32([1, 0]))}, "its action 1 goes from 0 to 0"),
    "actions beyond float32": ({"action_space": Box(-1e308, 1e308, (1,), np.float64)}, "no finite bounds"),
    "actions without an end": ({"action_space": Box(-1, np.inf, (1,))}, "no finite bounds"),
    "one that leaves": ({"__init__": leaving}, "cannot be made here (3)"),
}


@pytest.mark.parametrize("name", SPACES)
def test_spaces(name):
    body, word = SPACES[name]
    with pytest.raises(UsageError) as error:
        made(name, **body)
    assert word in str(error.value) and str(error.value).startswith(f"Second{made.count}-v0")


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_actions_stay_within_their_bounds(kind):
    """Where low + (high - low) is rounded to more than high, too."""
    seen = []

    def act(self, action):
        seen.append(self.action_space.contains(action))
        return ZEROS, 0.0, False, False, {}

    env = made("bounds", action_space=Box(-0.1, 0.3, (1,), kind), step=act)
    env.reset(0)
    for action in (-1.0, 1.0, -7.0, 7.0):
        env.step(np.array([action]))
    assert all(seen)
