"""A small robot with bounds of its own, as a user would write it, and a recording of it."""

from __future__ import annotations

import gymnasium as gym
import numpy as np


class Robot(gym.Env):
    """A cart that a force of -1 to 3 N moves; it succeeds where it stops within 0.2 m of the middle."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Box(-1.0, 3.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.steps, self.forces = self.np_random.uniform(-1, 1, 2).astype("f4"), 0, []
        return self.state.copy(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.forces.append(float(action[0]))
        self.steps += 1
        place, speed = self.state
        speed = 0.9 * speed + 0.1 * (float(action[0]) - 1.0)
        self.state = np.array([place + 0.1 * speed, speed], np.float32)
        near = bool(abs(self.state[0]) < 0.2)
        return self.state.copy(), -float(abs(self.state[0])), False, self.steps == 10, {"success": near}


def recorded(episodes=30, force=None, seed=0):
    """Arrays as `swg_fast.train` takes them, of random forces or of one ``force``."""
    rng, env, rows = np.random.default_rng(seed), Robot(), []
    for episode in range(episodes):
        state, _ = env.reset(seed=episode)
        done = False
        while not done:
            action = rng.uniform(-1, 3, 1) if force is None else np.full(1, force)
            following, reward, terminal, done, _ = env.step(action.astype(np.float32))
            rows.append((state, action, reward, following, terminal, done))
            state = following
    names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
