"""Where the walls, the agent and the goal are, in the mazes of Gymnasium-Robotics and OGBench."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from swg_fast.envs.base import Maze


class _MazeView(Protocol):
    def position(self) -> np.ndarray: ...
    def goal(self) -> np.ndarray: ...
    def walls(self) -> Maze: ...


def maze_of(env: Any) -> _MazeView | None:
    """The maze of a Gymnasium environment; None where it has none, or one of an unknown kind."""
    core = env.unwrapped
    if hasattr(core, "maze") and hasattr(core.maze, "cell_rowcol_to_xy"):
        return _Robotics(core)
    if hasattr(core, "maze_map") and hasattr(core, "ij_to_xy"):
        return _OGBench(core)
    return None


class _Robotics:
    """Gymnasium-Robotics: AntMaze and PointMaze."""

    def __init__(self, core: Any) -> None:
        self.core = core

    def position(self) -> np.ndarray:
        inner = getattr(self.core, "ant_env", None) or getattr(self.core, "point_env", self.core)
        return np.array(inner.unwrapped.data.qpos[:2])

    def goal(self) -> np.ndarray:
        return np.array(self.core.goal)

    def walls(self) -> Maze:
        maze = self.core.maze
        cells = [maze.cell_rowcol_to_xy(np.array([row, column]))
                 for row, line in enumerate(maze.maze_map)
                 for column, cell in enumerate(line) if cell == 1]
        return Maze(np.array(cells), float(maze.maze_size_scaling))


class _OGBench:
    """OGBench: point, ant, humanoid and ball mazes."""

    def __init__(self, core: Any) -> None:
        self.core = core

    def position(self) -> np.ndarray:
        return np.array(self.core.get_xy())

    def goal(self) -> np.ndarray:
        return np.array(self.core.cur_goal_xy)

    def walls(self) -> Maze:
        cells = [self.core.ij_to_xy((i, j)) for i, j in np.argwhere(self.core.maze_map == 1)]
        return Maze(np.array(cells), float(self.core._maze_unit))
