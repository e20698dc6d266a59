"""D4RL's six Ant Maze tasks without gym and d4rl: the same model, starts, goals, rewards and scores.

The ant is Gymnasium's, which has the same bodies as D4RL's. Time step, softness of contacts and motors are
set to D4RL's values, and the walls are added. Equal seeds give D4RL's own numbers.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from swg_fast.common.errors import UsageError
from swg_fast.envs.base import Maze, Step, TaskEnv
from swg_fast.envs.camera import NO_OPENGL, close_drawings
from swg_fast.envs.tasks import find_preset

# Walls are #; the ant starts at S, and the goal is near G. A cell is SCALE metres wide.
MAZES = {
    "umaze": ("#####",
              "#S..#",
              "###.#",
              "#G..#",
              "#####"),
    "medium": ("########",
               "#S.##..#",
               "#..#...#",
               "##...###",
               "#..#...#",
               "#.#..#.#",
               "#...#.G#",
               "########"),
    "large": ("############",
              "#S...#.....#",
              "#.##.#.#.#.#",
              "#......#...#",
              "#.####.###.#",
              "#..#.#.....#",
              "##.#.#.#.###",
              "#..#...#.G.#",
              "############"),
}
SCALE = 4.0
WALL_HEIGHT = 2.0
FRAME_SKIP = 5
GOAL_RADIUS = 0.5
TORQUE = 30.0  # of every motor at an action of 1


class NativeAntMaze(TaskEnv):
    """One of D4RL's Ant Maze tasks, such as ``antmaze-umaze-v2``.

    The observation [29] is the ant's position and posture (15) and their velocities (14). The goal
    is drawn anew for each episode and not observed; within 0.5 m of it the reward is 1 and the episode
    ends. Raises `UsageError` for another task.
    """

    score_name = "D4RL normalized score"
    succeeds_or_fails = True
    state_dim, action_dim = 29, 8

    def __init__(self, task: str) -> None:
        from swg_fast.envs import mujoco_adapter

        preset = find_preset(task)
        if preset.family != "antmaze":
            raise UsageError(f"{task} is no Ant Maze task; the others need D4RL's own environments")
        self.task, self.max_episode_steps = task, preset.max_episode_steps
        self.rows = MAZES[task.split("-")[1]]
        self.start = _find(self.rows, "S")
        self.sim = mujoco_adapter.MjSim(mujoco_adapter.load_model_from_xml(model_xml(self.rows)))
        self._first_qpos = self.sim.data.qpos.copy()
        self.target_goal = np.zeros(2)
        self._steps = 0

    def reset(self, seed: int) -> np.ndarray:
        postures = np.random.default_rng(seed)
        goals = np.random.RandomState(seed)  # D4RL draws goals from numpy's older generator
        self.target_goal = self._draw_goal(goals)
        self.sim.reset()
        data = self.sim.data
        data.qpos[:] = self._first_qpos + postures.uniform(-0.1, 0.1, len(data.qpos))
        data.qvel[:] = postures.standard_normal(len(data.qvel)) * 0.1
        self.sim.forward()
        self._steps, self.truncated = 0, False
        return self._observation()

    def step(self, action: np.ndarray) -> Step:
        torque = -TORQUE + (np.asarray(action, np.float64) + 1.0) * 0.5 * (2 * TORQUE)
        self.sim.data.ctrl[:] = np.clip(torque, -TORQUE, TORQUE)
        for _ in range(FRAME_SKIP):
            self.sim.step()
        self._steps += 1
        reached = bool(np.linalg.norm(self.get_xy() - self.target_goal) <= GOAL_RADIUS)
        self.truncated = not reached and self._steps >= self.max_episode_steps
        return Step(self._observation(), float(reached), reached or self.truncated)

    def get_xy(self) -> np.ndarray:
        """The ant's position [2] in metres."""
        return self.sim.data.qpos[:2]

    def position(self) -> np.ndarray:
        return self.get_xy().copy()

    def goal(self) -> np.ndarray:
        return self.target_goal.copy()

    def maze(self) -> Maze:
        return Maze(np.array([self._place(cell) for cell in _cells(self.rows, "#")]), SCALE)

    def normalized_score(self, mean_return: float) -> float:
        """D4RL's score in per cent; its references are returns of 0 and 1."""
        return 100.0 * mean_return

    def score(self, total_reward: float, success: bool | None) -> float:
        return self.normalized_score(total_reward)

    def render(self, width: int = 480, height: int = 480) -> np.ndarray:
        from swg_fast.envs import antmaze_drawing

        try:
            return np.ascontiguousarray(antmaze_drawing.draw(self, width, height))
        except Exception as error:
            raise UsageError(NO_OPENGL) from error

    def close(self) -> None:
        close_drawings(self.sim)

    def simulator(self) -> dict[str, str]:
        from swg_fast.envs import contacts
        from swg_fast.envs.opengl import mujoco

        return {"name": "mujoco", "version": mujoco.__version__, "contacts": contacts.describe(),
                "environment": "swg-fast's own Ant Maze"}

    def _observation(self) -> np.ndarray:
        return np.concatenate([self.sim.data.qpos, self.sim.data.qvel]).astype(np.float32)

    def _place(self, cell: tuple[int, int]) -> tuple[float, float]:
        row, column = cell
        return (column - self.start[1]) * SCALE, (row - self.start[0]) * SCALE

    def _draw_goal(self, random: np.random.RandomState) -> np.ndarray:
        """Up to 1.5 m beyond the middle of the goal's cell, in both directions."""
        cells = _cells(self.rows, "G")
        place = np.array(self._place(cells[random.choice(len(cells))]))
        place = place + [random.uniform(0, SCALE * 0.25), random.uniform(0, SCALE * 0.25)]
        place = place + [random.uniform(0, 0.5) * 0.25 * SCALE, random.uniform(0, 0.5) * 0.25 * SCALE]
        return np.maximum(place, 0)


@cache
def model_xml(rows: tuple[str, ...]) -> str:
    """The ant among a maze's walls, as MuJoCo's XML."""
    import gymnasium

    path = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "ant.xml"
    root = ET.parse(path).getroot()
    _one(root, "option").set("timestep", "0.02")
    _one(root, "default/geom").set("solimp", ".8 .8 .01")
    _one(root, "asset/texture[@name='texplane']").attrib |= {"rgb1": "0.2 0.3 0.4", "rgb2": "0.1 0.2 0.3"}
    _one(root, "asset/material[@name='MatPlane']").set("reflectance", "0")
    for motor in root.iter("motor"):
        motor.attrib |= {"ctrlrange": f"{-TORQUE} {TORQUE}", "gear": "1"}
    world = _one(root, "worldbody")
    start = _find(rows, "S")
    half = SCALE / 2
    for row, column in _cells(rows, "#"):
        x, y = (column - start[1]) * SCALE, (row - start[0]) * SCALE
        ET.SubElement(world, "geom", type="box", contype="1", conaffinity="1", rgba="0.7 0.5 0.3 1",
                      name=f"wall_{row}_{column}", pos=f"{x} {y} {WALL_HEIGHT / 2}",
                      size=f"{half} {half} {WALL_HEIGHT / 2}")
    return ET.tostring(root, encoding="unicode")


def _one(root: ET.Element, path: str) -> Any:
    found = root.find(path)
    if found is None:
        raise UsageError(f"Gymnasium's ant.xml has no {path} any more; pip install 'gymnasium<1.5'")
    return found


def _cells(rows: tuple[str, ...], kind: str) -> list[tuple[int, int]]:
    return [(i, j) for i, row in enumerate(rows) for j, cell in enumerate(row) if cell == kind]


def _find(rows: tuple[str, ...], kind: str) -> tuple[int, int]:
    return _cells(rows, kind)[0]
