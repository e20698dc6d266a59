"""What D4RL's Adroit tasks need of ``mjrl``, which is not on PyPI: one base class."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import gym
import numpy as np
from gym import spaces
from gym.utils import seeding

from swg_fast.envs.camera import Camera, drawing

# From behind and above the hand, near enough to see its fingers.
CAMERA = Camera(distance=1.25, azimuth=100.0, elevation=-38.0, lookat=(0.0, -0.05, 0.2))


class MujocoEnv(gym.Env):
    """A model that takes ``frame_skip`` steps an action. The task defines step, get_obs and reset_model."""

    def __init__(self, model_path: str, frame_skip: int) -> None:
        import mujoco_py

        self.frame_skip = frame_skip
        self.model = mujoco_py.load_model_from_path(model_path)
        self.sim = mujoco_py.MjSim(self.model)
        self.data = self.sim.data
        self.mujoco_render_frames = False
        self._drawing: Any = None
        self.init_qpos = self.data.qpos.ravel().copy()
        self.init_qvel = self.data.qvel.ravel().copy()
        observation, _, done, _ = self.step(np.zeros(self.model.nu))
        assert not done
        self.obs_dim = observation.size
        low, high = self.model.actuator_ctrlrange.copy().T
        self.action_space = spaces.Box(low, high, dtype=np.float32)
        self.observation_space = spaces.Box(-np.inf, np.inf, (self.obs_dim,), np.float32)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / self.dt)}
        self.seed()

    @property
    def dt(self) -> float:
        return self.model.opt.timestep * self.frame_skip

    def seed(self, seed: int | None = None) -> list[int]:
        self.np_random, seed = seeding.np_random(seed)
        return [seed]

    reset_model: Callable[[], np.ndarray]

    def reset(self) -> np.ndarray:
        self.sim.reset()
        self.sim.forward()
        return self.reset_model()

    def set_state(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        state = self.sim.get_state()
        self.sim.set_state(state._replace(qpos=np.asarray(qpos), qvel=np.asarray(qvel)))
        self.sim.forward()

    def do_simulation(self, ctrl: np.ndarray, n_frames: int) -> None:
        self.data.ctrl[:] = ctrl
        for _ in range(n_frames):
            self.sim.step()

    def state_vector(self) -> np.ndarray:
        return np.concatenate([self.data.qpos.ravel(), self.data.qvel.ravel()])

    def render(self, mode: str = "rgb_array", width: int = 480, height: int = 480) -> np.ndarray:
        if self._drawing is None:
            self._drawing = drawing(self.sim, CAMERA)
        self._drawing.render(width, height)
        return self._drawing.read_pixels(width, height, depth=False)[::-1]


def mjrl_modules() -> dict[str, ModuleType]:
    """The modules by name under which D4RL looks for this class."""
    modules = {name: ModuleType(name) for name in ("mjrl", "mjrl.envs", "mjrl.envs.mujoco_env")}
    vars(modules["mjrl"])["envs"] = modules["mjrl.envs"]
    vars(modules["mjrl.envs"])["mujoco_env"] = modules["mjrl.envs.mujoco_env"]
    vars(modules["mjrl.envs.mujoco_env"])["MujocoEnv"] = MujocoEnv
    return modules
