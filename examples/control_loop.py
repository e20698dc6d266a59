"""A control loop at a fixed rate: one decision in every period, and how often a deadline was missed.

    python examples/control_loop.py [--hertz 50] [--candidates 16] [--steps 200]

Replace the environment by your robot: its `step` moves it and gives the next observation.
"""

from __future__ import annotations

import argparse
import time

import torch

import swg_fast
import swg_fast.envs


def main() -> None:
    options = argparse.ArgumentParser(description="A control loop at a fixed rate.")
    options.add_argument("--hertz", type=float, default=50.0)
    options.add_argument("--candidates", type=int, default=16)
    options.add_argument("--steps", type=int, default=200)
    chosen = options.parse_args()

    policy = swg_fast.load_policy("hopper-medium-v2")
    sampler = policy.bind(n_candidates=chosen.candidates)  # settings are checked here, once
    robot = swg_fast.envs.make("hopper-medium-v2")
    observation, _ = robot.reset(seed=0)
    sampler.draw(_state(observation), seed=0)  # the first call packs the network and compiles

    missed, slowest, period = 0, 0.0, 1.0 / chosen.hertz
    for step in range(chosen.steps):
        begun = time.perf_counter()
        action = sampler.draw(_state(observation), seed=step).actions[0].numpy()
        took = time.perf_counter() - begun
        missed, slowest = missed + (took > period), max(slowest, took)
        time.sleep(max(0.0, period - took))
        observation, _, terminated, truncated, _ = robot.step(action)
        if terminated or truncated:
            observation, _ = robot.reset(seed=step)
    print(f"{chosen.steps} decisions at {chosen.hertz:g} Hz: {missed} missed, the slowest took "
          f"{1000 * slowest:.1f} ms")


def _state(observation: object) -> torch.Tensor:
    return torch.as_tensor(observation, dtype=torch.float32)[None]  # [1, S]


if __name__ == "__main__":
    main()
