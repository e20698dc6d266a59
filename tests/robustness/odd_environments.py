"""Environments that go wrong. Imported by worker processes, so it imports little."""

from __future__ import annotations

import os
import time

import gymnasium as gym
import numpy as np


class Plain(gym.Env):
    """Ends after ten steps, with a reward of one for each."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    last = 10

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, "f4"), {}

    def step(self, action):
        self.steps += 1
        return self.observation(), self.reward(), False, self.steps >= self.last, {}

    def observation(self):
        return np.zeros(3, "f4")

    def reward(self):
        return 1.0


class NanReward(Plain):
    def reward(self):
        return float("nan") if self.steps == 4 else 1.0


class NanObservation(Plain):
    def observation(self):
        return np.full(3, np.nan)


class Wider(Plain):
    def observation(self):
        return np.zeros(4)


class Endless(Plain):
    last = 10**9


class Hangs(Plain):
    def reward(self):
        time.sleep(60)


class Interrupts(Plain):
    def reward(self):
        raise KeyboardInterrupt


class Exits(Plain):
    def reward(self):
        raise SystemExit(0)


class Dies(Plain):
    def reward(self):
        os._exit(3)


class Fails(Plain):
    def reward(self):
        raise ZeroDivisionError("of the\nenvironment")


for each in (Plain, *Plain.__subclasses__()):
    gym.register(f"{each.__name__}-v0", each)
