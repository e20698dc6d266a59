"""Your own robot, from a recording to a control loop: record, train, evaluate, distil, act.

    python examples/own_robot.py [--episodes 60] [--steps 4000] [--out runs/own-robot]

`--episodes 4 --steps 40` runs each part once, for a first look. The robot is a pendulum whose motor gives
-2 to 2 N m; replace `make_robot` and `operator` by yours. The policy goes to OUT/policy, its student to
OUT-student/policy.
"""

from __future__ import annotations

import argparse

import gymnasium
import numpy as np

import swg_fast


def make_robot() -> gymnasium.Env:
    """The robot: any Gymnasium environment whose observations and actions are vectors."""
    return gymnasium.make("Pendulum-v1")


def operator(state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The controller that was recorded: it swings the pendulum up, not very well."""
    cosine, sine, speed = state
    angle = np.arctan2(sine, cosine)
    if abs(angle) < 0.6:
        torque = -8.0 * angle - 2.0 * speed
    else:
        energy = 0.5 * speed**2 + 10.0 * (cosine - 1.0)
        torque = np.copysign(2.0, -energy * speed)
    return np.clip(torque + rng.normal(0.0, 0.6, 1), -2.0, 2.0).astype(np.float32)


def record(episodes: int, seed: int) -> dict[str, np.ndarray]:
    """Arrays with a row a step: observations, actions in N m, rewards, next observations and ends."""
    names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    rows: dict[str, list] = {name: [] for name in names}
    robot, rng = make_robot(), np.random.default_rng(seed)
    for episode in range(episodes):
        state, _ = robot.reset(seed=seed + episode)
        ended = False
        while not ended:
            action = operator(state, rng)
            following, reward, terminal, timeout, _ = robot.step(action)
            step = (state, action, reward, following, terminal, timeout)
            for name, value in zip(names, step, strict=True):
                rows[name].append(value)
            state, ended = following, terminal or timeout
    return {name: np.array(column) for name, column in rows.items()}


def control(policy: swg_fast.Policy, steps: int, seed: int) -> float:
    """Runs the control loop; returns the sum of its rewards. `predict` gives N m, within the bounds."""
    robot = make_robot()
    state, _ = robot.reset(seed=seed)
    total = 0.0
    for _ in range(steps):
        action, _ = policy.predict(state, n_candidates=4)
        state, reward, terminal, timeout, _ = robot.step(action)
        total += float(reward)
        if terminal or timeout:
            break
    return total


def main() -> None:
    options = argparse.ArgumentParser(description="Record, train, evaluate, distil and act.")
    options.add_argument("--episodes", type=int, default=60, help="episodes to record")
    options.add_argument("--steps", type=int, default=4000, help="steps of the critic and of the diffusion")
    options.add_argument("--out", default="runs/own-robot", help="folder of the run")
    options.add_argument("--seed", type=int, default=0, help="seed of everything random")
    chosen = options.parse_args()

    recording = record(chosen.episodes, chosen.seed)
    print(f"recorded: {sum(recording['rewards']) / chosen.episodes:.0f} an episode")
    policy = swg_fast.train(
        "own-robot", environment=make_robot, out=chosen.out, preset="small", critic_steps=chosen.steps,
        actor_steps=chosen.steps, discount=0.95, seed=chosen.seed, **recording)
    print(policy)
    print(swg_fast.evaluate(policy, make_robot, episodes=5, n_candidates=4, seed=chosen.seed))
    # A student draws a candidate in one network call, which leaves the loop more time for other work.
    student = swg_fast.distill(chosen.out, states=recording["observations"], out=f"{chosen.out}-student",
                               pairs=20_000, steps=chosen.steps, seed=chosen.seed)
    print(f"control loop: {control(policy, 200, chosen.seed):.0f}, and by the student "
          f"{control(student, 200, chosen.seed):.0f}")


if __name__ == "__main__":
    main()
