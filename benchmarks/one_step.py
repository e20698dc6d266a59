"""One step of each D4RL environment from recorded states: its error against MuJoCo 2.3.3.

MuJoCo 2.3.3 is the last version that reads D4RL's models unchanged and that collides as it did when their
data were recorded. The recordings in tests/data/physics were made once, in a separate environment:

    python3.11 -m venv old && old/bin/pip install "mujoco==2.3.3" "numpy<2"
    echo "$PWD/.venv/lib/python3.11/site-packages" > old/lib/python3.11/site-packages/rest.pth
    PYTHONPATH=. old/bin/python -m benchmarks.one_step tests/data/physics

rest.pth takes all other packages from the project's environment.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from swg_fast.envs import make_env
from swg_fast.envs.d4rl_env import D4RLEnv
from swg_fast.envs.tasks import presets

FOLDER = Path(__file__).parents[1] / "tests" / "data" / "physics"
STARTS, APART, STEPS = 6, 12, 6  # starts, steps between two recorded ones, recorded steps of a start

# One recording for each model: tasks that differ only in their data or their goal share it.
MODELS = {
    "antmaze-umaze": "antmaze-umaze-v2", "antmaze-medium": "antmaze-medium-play-v2",
    "antmaze-large": "antmaze-large-play-v2", "hopper": "hopper-medium-v2",
    "walker2d": "walker2d-medium-v2", "halfcheetah": "halfcheetah-medium-v2", "pen": "pen-human-v1",
    "hammer": "hammer-human-v1", "door": "door-human-v1", "relocate": "relocate-human-v1",
    "kitchen": "kitchen-complete-v0",
}


def model_of(task: str) -> str:
    """The name of the recording for ``task``."""
    return next(model for model in MODELS if task.startswith(model))


def restart(env: D4RLEnv, seed: int, qpos: np.ndarray, qvel: np.ndarray) -> None:
    """Puts ``env`` into a state that the arguments alone decide, with the solver's warm start."""
    env.reset(seed)
    core = env.core
    core.sim.reset()
    core.set_state(qpos.copy(), qvel.copy())
    if env.preset.family == "kitchen":  # its speed limits look at noisy past observations
        core.seed(seed)
        core.robot._observation_cache_refresh(core)


def beside_a_wall(env: D4RLEnv, rng: np.random.Generator) -> np.ndarray:
    """A place [2] of an Ant Maze where the ant's legs reach a wall on its left."""
    maze = env.maze()
    right = maze.walls + [maze.size, 0]
    taken = (right[:, None] == maze.walls).all(-1).any(-1)
    inside = (right[:, 0] < maze.walls[:, 0].max()) & ~taken
    return rng.permutation(maze.walls[inside])[0] + [maze.size / 2 + 0.8, 0]


def record(task: str) -> dict[str, np.ndarray]:
    """Rows of seed, qpos, qvel, action, and the qpos, qvel and reward one step later."""
    env = make_env(task)
    rows: list[dict[str, Any]] = []
    for seed in range(STARTS):
        rng = np.random.default_rng(seed)
        env.reset(seed)
        state = env.core.sim.get_state()
        if env.preset.family == "antmaze" and seed % 2:
            state.qpos[:2] = beside_a_wall(env, rng)
        for _ in range(STEPS):
            restart(env, seed, state.qpos, state.qvel)
            for _ in range(APART):
                env.step(rng.uniform(-1, 1, env.action_dim))
            state = env.core.sim.get_state()
            action = rng.uniform(-1, 1, env.action_dim)
            restart(env, seed, state.qpos, state.qvel)
            reward = env.step(action)[1]
            after = env.core.sim.get_state()
            rows.append({"seed": seed, "qpos": state.qpos, "qvel": state.qvel, "action": action,
                         "next_qpos": after.qpos, "next_qvel": after.qvel, "reward": reward})
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def errors(env: D4RLEnv, recorded: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Largest absolute difference of each row's next qpos, next qvel and reward; [rows] each."""
    found: dict[str, list[float]] = {"qpos": [], "qvel": [], "reward": []}
    for i, seed in enumerate(recorded["seed"]):
        restart(env, int(seed), recorded["qpos"][i], recorded["qvel"][i])
        reward = env.step(recorded["action"][i])[1]
        after = env.core.sim.get_state()
        found["qpos"].append(np.abs(after.qpos - recorded["next_qpos"][i]).max())
        found["qvel"].append(np.abs(after.qvel - recorded["next_qvel"][i]).max())
        found["reward"].append(abs(reward - recorded["reward"][i]))
    return {key: np.array(values) for key, values in found.items()}


def load(model: str) -> dict[str, np.ndarray]:
    """The recording of a model."""
    with np.load(FOLDER / f"{model}.npz") as file:
        return {key: file[key] for key in file.files if key != "mujoco"}


def main() -> None:
    import mujoco

    folder = Path(sys.argv[1])
    assert all(model_of(task) for task in presets())
    for model, task in MODELS.items():
        np.savez_compressed(folder / f"{model}.npz", mujoco=mujoco.__version__, **record(task))
        print(folder / f"{model}.npz", mujoco.__version__, flush=True)


if __name__ == "__main__":
    main()
