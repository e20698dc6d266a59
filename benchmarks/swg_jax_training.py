"""SWG-JAX's own training and policy, imported from a checkout, on swg-fast's transitions.

The checkout's code is unchanged: its agent takes the steps; its data set draws the batches, builds the
weights and scales the rewards. Its Hydra, wandb and downloads are not used. Needs flax and optax.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from swg_fast.common.atomic_files import replacing
from swg_fast.data import Transitions
from swg_fast.envs import make_env
from swg_fast.policy.sampling import SamplingConfig
from swg_fast.training.settings import TrainSettings


def import_checkout(checkout: str | Path, task: str) -> SimpleNamespace:
    """The checkout's agent and data set classes. Raises `FileNotFoundError` for another folder."""
    if not (Path(checkout) / "src" / "agent" / "swg_agent.py").is_file():
        raise FileNotFoundError(f"{checkout}: no src/agent/swg_agent.py; give a checkout of SWG-JAX")
    make_env(task)  # prepares D4RL's import, which the checkout repeats
    sys.path.insert(0, str(Path(checkout).resolve()))
    data = importlib.import_module("src.jaxrl5.data")
    return SimpleNamespace(Agent=importlib.import_module("src.agent").DDPMSWGLearner,
                           Weighted=data.WeightedDataset,
                           Dataset=importlib.import_module("src.jaxrl5.data.dataset").Dataset)


def config(settings: TrainSettings) -> SimpleNamespace:
    """The checkout's configuration with the values of our settings."""
    s = settings
    return SimpleNamespace(
        diffusion=SimpleNamespace(time_emb=128, hidden_dim=s.hidden_dim, num_blocks=s.num_blocks,
                                  use_layer_norm=True, dropout_rate=s.dropout, schedule=s.schedule,
                                  n_timesteps=s.num_steps),
        critic=SimpleNamespace(hidden_dim=256, n_hidden=2, value_layer_norm=s.value_norm),
        train=SimpleNamespace(cosine_decay=True, ema_update=s.ema_rate, actor_lr=s.actor_lr,
                              critic_lr=s.critic_lr, target_update=s.polyak, discount=s.discount,
                              critic_hyperparam=s.expectile))


def arrays(data: Transitions) -> dict[str, np.ndarray]:
    """Transitions under the checkout's names; an episode ends where the next row does not continue it."""
    jump = np.linalg.norm(data.observations[1:] - data.next_observations[:-1], axis=1) > 1e-6
    dones = np.append(jump | data.terminals[:-1], True)
    return {"observations": data.observations, "actions": data.actions, "rewards": data.rewards.copy(),
            "next_observations": data.next_observations,
            "masks": 1.0 - data.terminals.astype(np.float32), "dones": dones}


def train(code: SimpleNamespace, task: str, data: Transitions, settings: TrainSettings, states: Path,
          progress: bool = True) -> tuple[Any, dict[str, float]]:
    """The agent after its critic and actor phases, and the seconds of each without compilation. Progress is
    saved in the folder ``states``; a call with the same folder continues from there."""
    env = make_env(task).env
    agent = code.Agent.create(settings.seed, env.observation_space, env.action_space, config(settings))
    whole = code.Dataset(arrays(data), seed=settings.seed)
    if settings.reward_transform == "minus_one":
        whole.dataset_dict["rewards"] -= 1.0
    elif settings.reward_transform == "return_range":
        whole.normalize_returns()
    seconds = {}
    kept, _ = whole.split(1 - settings.held_out)
    agent, seconds["critic"] = phase("critic", code.Agent.critic_update, agent, kept, settings.critic_steps,
                                     settings.critic_batch, states, progress)
    # Its constructor would load D4RL's file again; these rows are ours.
    weighted = code.Weighted.__new__(code.Weighted)
    code.Dataset.__init__(weighted, arrays(data), seed=settings.seed)
    weighted.build_weights(agent, critic_hyperparam=settings.expectile,
                           weights_function=settings.weight_function, norm=settings.rescale_weights)
    kept, _ = weighted.split(1 - settings.held_out)
    agent, seconds["actor"] = phase("actor", code.Agent.actor_update, agent, kept, settings.actor_steps,
                                    settings.actor_batch, states, progress)
    return agent, seconds


def phase(name: str, update: Any, agent: Any, rows: Any, steps: int, batch: int, states: Path, progress: bool,
          every: int = 2000) -> tuple[Any, float]:
    """The agent after ``steps`` updates, and their seconds without each start's first update, which compiles.
    """
    import jax
    from flax.serialization import from_bytes, to_bytes
    from tqdm import trange

    path = states / f"{name}.msgpack"
    rows.sample_jax(batch)  # the first call makes the key of the draws and fixes the batch size
    state = {"agent": agent, "draws": rows.rng, "seconds": 0.0, "timed": 0, "step": 0}
    if path.is_file():
        state = from_bytes(state, path.read_bytes())
    agent, rows.rng, seconds, timed = state["agent"], state["draws"], state["seconds"], state["timed"]
    started, first = time.perf_counter(), state["step"]
    last = first
    for step in trange(first, steps, desc=f"SWG-JAX {name}", unit="step", disable=not progress,
                       smoothing=0.05, initial=first, total=steps):
        agent, info = update(agent, rows.sample_jax(batch))
        save = (step + 1) % every == 0 or step + 1 == steps
        if save or step == first:
            jax.block_until_ready(info)
            if step > first:
                seconds += time.perf_counter() - started
                timed += step - last
            if save:
                with replacing(path) as temporary:
                    temporary.write_bytes(to_bytes({"agent": agent, "draws": rows.rng, "seconds": seconds,
                                                    "timed": timed, "step": step + 1}))
            started, last = time.perf_counter(), step
    return agent, seconds * steps / max(1, timed)


def save(agent: Any, folder: Path) -> None:
    """Writes the msgpack files of the checkout's own training, for ``swg-fast import-jax``."""
    folder.mkdir(parents=True, exist_ok=True)
    agent.save_critic(str(folder), 0)
    agent.save_actor(str(folder), 0)


class JaxPolicy:
    """SWG-JAX's agent as a policy for `swg_fast.evaluation.episodes.evaluate`. It samples as in its own
    evaluation, vmapped, and keeps the candidate with the highest Q."""

    def __init__(self, agent: Any, task: str, candidates: int, guidance_scale: float, rows: int) -> None:
        import jax

        env = make_env(task)
        self.state_dim, self.action_dim, self.card = env.state_dim, env.action_dim, {}
        self.config = SamplingConfig(n_candidates=candidates, guidance_scale=guidance_scale,
                                     temperature=0.0 if candidates == 1 else 1.0, select="max_q")
        self.carried_out_by = "SWG-JAX"
        self.rows = rows  # rows a call: fewer are padded, so that it compiles once
        parameters = {"temperature": self.config.temperature, "guidance_scale": guidance_scale,
                      "clip_denoised": True, "batch_size": candidates, "max_weight_clip": 1.0,
                      "min_weight_clip": 1e-4}
        self.act = jax.jit(jax.vmap(lambda state, key: agent.eval_actions(state, key, parameters)[0]))
        self.keys = jax.jit(jax.vmap(jax.random.PRNGKey))

    def bind(self, config: None = None) -> JaxPolicy:
        """The policy itself: calls cannot change its sampling settings."""
        return self

    def sample(self, states: np.ndarray, *, seed: int, state_indices: np.ndarray, **_: Any) -> Any:
        """Kept actions of states [B, S]; the seed and the state's index make the noise's key."""
        import torch

        B = len(states)
        padded = np.zeros((-(-B // self.rows) * self.rows, states.shape[1]), np.float32)
        padded[:B] = states
        words = np.zeros(len(padded), np.uint32)
        words[:B] = (np.asarray(state_indices) * 7919 + seed) % 2**32
        parts = [self.act(padded[i:i + self.rows], self.keys(words[i:i + self.rows]))
                 for i in range(0, len(padded), self.rows)]
        return SimpleNamespace(actions=torch.from_numpy(np.concatenate(parts)[:B].copy()))
