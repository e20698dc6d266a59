"""Pictures of Ant Maze that follow the ant and mark the goal."""

from __future__ import annotations

from typing import Any

import numpy as np

from swg_fast.envs.camera import Camera, drawing

# From above and behind, steep enough to see over walls of 2 m in cells of 4 m.
CAMERA = Camera(distance=17.0, azimuth=90.0, elevation=-62.0)
GOAL_RADIUS = 0.5  # metres from the goal within which the task is done
POLE = 0.06  # radius of the pole that marks the goal from afar; it is 2 m high
GOAL_COLOR = (0.94, 0.89, 0.26, 1.0)


def draw(core: Any, width: int, height: int) -> np.ndarray:
    """A picture [height, width, 3] uint8 that follows ``core``'s ant; a disc and a pole mark the goal."""
    context = getattr(core, "_swg_fast_drawing", None)
    if context is None:
        context = core._swg_fast_drawing = drawing(core.sim, CAMERA)
    context.cam.lookat[:] = *core.get_xy(), 0.5
    del context._markers[:]
    for radius, half in ((GOAL_RADIUS, 0.03), (POLE, 1.0)):
        context.add_marker(pos=(*core.target_goal, half), size=(radius, radius, half), type="cylinder",
                           rgba=GOAL_COLOR)
    context.render(width, height)
    return context.read_pixels(width, height, depth=False)[::-1]
