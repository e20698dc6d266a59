"""Checks, before a run begins, of what would fail late in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from swg_fast.common.errors import UsageError, note
from swg_fast.common.hardware import check_memory
from swg_fast.common.meta_modules import shapes_only
from swg_fast.data import Transitions
from swg_fast.data.travel import travel, walks
from swg_fast.kernels.cpu.network_onednn import has_native_bf16
from swg_fast.method.networks import ScoreNetwork
from swg_fast.training.loop import BLOCK
from swg_fast.training.ranker import BATCH as RANKER_BATCH
from swg_fast.training.rewards import transform_rewards
from swg_fast.training.settings import TrainSettings

COPIES = 5  # of the parameters: themselves, gradient, two moments, average


def check_run(data: Transitions, settings: TrainSettings, device: torch.device) -> np.ndarray:
    """The transformed rewards [N] of ``data``.

    Raises `UsageError` for arrays that do not fit each other or are not finite float32, rewards that the
    transform cannot take, a precision that the processor would emulate, and a network or batch that is too
    large for the memory.
    """
    check_precision(settings.precision, device)
    if not isinstance(data, Transitions):
        raise UsageError(f"data is {type(data).__name__}, expected the Transitions that load_dataset gives")
    for name in ("observations", "next_observations", "actions", "rewards"):
        array = getattr(data, name)
        if len(array) != len(data) or array.ndim != (1 if name == "rewards" else 2) or not array.size:
            raise UsageError(f"data.{name} has shape {list(array.shape)} for {len(data)} transitions")
        if array.dtype != np.float32 or not np.isfinite(array.min()) or not np.isfinite(array.max()):
            raise UsageError(f"data.{name} is not finite float32; load it with load_dataset")
    rewards = transform_rewards(data, settings.reward_transform)
    if not np.isfinite(rewards).all():
        raise UsageError(f"reward transform {settings.reward_transform!r} makes rewards beyond float32; use "
                         "another --reward-transform")
    used = walks(data, settings.min_travel)
    if not used.any():
        raise UsageError(f"min_travel={settings.min_travel:g}: in none of the {len(data)} steps does the "
                         f"body travel so far in 20 steps (at most {travel(data).max():.3g} m); use less")
    episodes = len(np.unique(data.episodes))
    mask = data.held_out(settings.held_out, settings.seed)
    if episodes > 1 and round(settings.held_out * episodes) >= episodes:
        raise UsageError(f"held_out={settings.held_out:g} leaves none of the {episodes} episodes to train on"
                         "; use less")
    if not (used & ~mask).any():
        raise UsageError(f"held_out={settings.held_out:g} and min_travel={settings.min_travel:g} leave "
                         "nothing to train on; use less of one of them")
    if settings.held_out > 0 and not (used & mask).any():
        what = ("diffusion loss of held-out episodes, in none of which the body travels "
                f"min_travel={settings.min_travel:g}; hold out more, or use another seed" if mask.any() else
                "loss of held-out episodes, since the data are one episode; add episodes, or use held_out=0")
        note(f"held_out={settings.held_out:g}: the run will log no {what}")
    _check_memory(data, settings, device)
    return rewards


def check_precision(precision: str, device: torch.device) -> None:
    """`UsageError` for a precision that the processor would emulate."""
    if precision == "bf16" and device.type == "cpu" and not has_native_bf16():
        raise UsageError("precision 'bf16': this processor has no native bf16 (AVX512-BF16 or AMX), and "
                         "emulating it takes far too long; use --precision fp32, or a machine that has bf16")


def floats_to_learn(batch: int, **sizes: Any) -> int:
    """How many numbers are in memory while a `ScoreNetwork` of these ``sizes`` learns from a batch."""
    with shapes_only():
        network = ScoreNetwork(**sizes)
    parameters = sum(p.numel() for p in network.parameters())
    activations = batch * network.hidden_dim * (11 * network.num_blocks + 4)
    return COPIES * parameters + 2 * activations


def _check_memory(data: Transitions, settings: TrainSettings, device: torch.device) -> None:
    S, A = data.observations.shape[1], data.actions.shape[1]
    learning = floats_to_learn(
        settings.actor_batch, state_dim=S, action_dim=A, hidden_dim=settings.hidden_dim,
        num_blocks=settings.num_blocks, weight_head=settings.weight_head)
    draws = BLOCK * max(settings.actor_batch * (A + 5), 2 * settings.critic_batch)
    rows = len(data) * (2 * S + A + 2)
    check_memory(4 * (learning + draws + rows), "this training",
                 "use a smaller --hidden-dim, --num-blocks or --actor-batch", device)
    if settings.critics:
        floats = 2 * _ensemble_floats(settings.critics, settings.critic_batch, S + A, 256)  # Q and V
        check_memory(4 * (floats + rows), f"training {settings.critics} critics",
                     "use fewer --critics or a smaller --critic-batch", device)
    if settings.ranker_steps:
        floats = _ensemble_floats(settings.rankers or 2, RANKER_BATCH, S + A, settings.ranker_hidden_dim)
        check_memory(4 * (floats + rows), "training the ranker",
                     "use fewer --rankers or a smaller --ranker-hidden-dim", device)


def _ensemble_floats(members: int, batch: int, inputs: int, hidden_dim: int) -> int:
    """How many numbers are in memory while an `EnsembleQ` of these sizes learns from a batch."""
    return members * hidden_dim * (COPIES * (inputs + hidden_dim + 3) + 8 * batch)
