"""D4RL environments on today's MuJoCo, one at a time or many in worker processes."""

from swg_fast.envs.d4rl_env import D4RLEnv, make_env

__all__ = ["D4RLEnv", "make_env"]
