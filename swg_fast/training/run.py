"""A whole training run: critic, weights, diffusion, what ranks candidates if asked for, and the policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from swg_fast.common.atomic_files import user_path
from swg_fast.common.hardware import resolve_device
from swg_fast.common.seeds import stream_seed
from swg_fast.data import Transitions
from swg_fast.data.travel import walks
from swg_fast.envs.action_bounds import CARD
from swg_fast.method.networks import EnsembleQ, Ranker
from swg_fast.method.weight_functions import compute_weights
from swg_fast.policy.checkpoint import save_checkpoint
from swg_fast.policy.model import Model
from swg_fast.policy.policy import Policy
from swg_fast.training.borrowed_critic import check_critic, take_critic
from swg_fast.training.critic import CriticTrainer
from swg_fast.training.critics import CriticsTrainer
from swg_fast.training.diffusion import DiffusionTrainer
from swg_fast.training.history import HISTORY, read_history
from swg_fast.training.logger import check_logger, open_writer
from swg_fast.training.loop import LoopOptions, run_phase
from swg_fast.training.preflight import check_run
from swg_fast.training.ranker import RankerTrainer
from swg_fast.training.rewards import UNBOUNDED, return_bounds
from swg_fast.training.run_config import CONFIG, write_config
from swg_fast.training.run_folder import RunRecord, claimed
from swg_fast.training.saved_state import Origin
from swg_fast.training.settings import TrainSettings

Critic = TypeVar("Critic", bound=CriticTrainer)


def train(data: Transitions, settings: TrainSettings, out: str | Path, *,
          device: str | torch.device = "cpu", resume: bool = False,
          card: dict[str, Any] | None = None, config: Mapping[str, Any] | None = None,
          logger: str = "none", options: LoopOptions | None = None, critic: Path | None = None) -> Path:
    """Trains a policy on ``data`` and returns the folder of its checkpoint, ``out/policy``.

    ``out`` holds ``run.json`` (the settings), ``config.toml`` (the same, with what ``config`` adds, for
    ``swg-fast train --config``), ``states/`` (resumable), ``logs/`` (``history.jsonl``, and what
    ``logger`` writes: tensorboard, wandb or none) and ``policy/``. ``resume`` continues
    from the newest states, bit for bit.

    ``critic`` is the folder of another run or of `train_critic`. Its saved critic, which must be the one that
    these settings would train, is copied from there; the policy is the same.

    Raises `UsageError` for what would fail later, before ``out`` is touched; where ``out`` holds another
    run or is in use; and where the losses are no longer finite (`Diverged`). Raises `Interrupted` on Ctrl-C
    and SIGTERM. The policy is written whole or not at all.
    """
    out, device = user_path(out), resolve_device(device)
    check_logger(logger)
    rewards = check_run(data, settings, device)
    mine = RunRecord(settings.to_dict(), len(data), data.fingerprint())
    if critic is not None:
        check_critic(critic, settings, len(data), Origin.of(settings, mine.data_hash))
    options = options or LoopOptions(out / "states")
    with claimed(out, mine, resume) as record:
        history, origin = out / "logs" / HISTORY, Origin.of(settings, mine.data_hash, record.id)
        if critic is not None:
            take_critic(critic, out, settings.critic_steps, origin)
        config = dict(config or {}) | settings.to_dict()
        write_config(out / CONFIG, config)
        with open_writer(logger, out / "logs", config, resume) as writer:
            options = replace(options, folder=out / "states", history=history, origin=origin,
                              resume=resume or critic is not None, writer=writer or options.writer)
            return _train(data, rewards, settings, out, device, card or {}, options)


def train_critic(data: Transitions, settings: TrainSettings, folder: Path, *,
                 device: str | torch.device = "cpu", options: LoopOptions | None = None) -> None:
    """Trains the critic alone, from its newest state if there is one. Its states and log go to ``folder``, as
    in a run's folder.

    Every training with the same data and the same `settings.CRITIC` has this critic. The caller must lock the
    folder. Raises as `train` does.
    """
    device = resolve_device(device)
    rewards = check_run(data, settings, device)
    options = replace(options or LoopOptions(folder), folder=folder / "states", resume=True,
                      history=folder / "logs" / HISTORY, origin=Origin.of(settings, data.fingerprint()))
    trainer = new_critic(CriticTrainer, data, rewards, settings, device)
    _run_critic(trainer, data, rewards, settings, options)


def new_critic(kind: type[Critic], data: Transitions, rewards: np.ndarray, settings: TrainSettings,
               device: torch.device) -> Critic:
    """A trainer of that ``kind`` before its first step."""
    stream = () if kind is CriticTrainer else (kind.phase,)
    torch.manual_seed(stream_seed(settings.seed, *stream, "initialise"))
    bounds = return_bounds(rewards, settings.discount) if settings.clip_targets else UNBOUNDED
    return kind(data.observations.shape[1], data.actions.shape[1], settings, device, bounds)


def _run_critic(critic: CriticTrainer, data: Transitions, rewards: np.ndarray, settings: TrainSettings,
                options: LoopOptions) -> float:
    mask = data.held_out(settings.held_out, settings.seed)
    rows, held_out = (critic.pack(data.subset(some), rewards[some]) for some in (~mask, mask))
    return run_phase(critic, rows, held_out, settings.critic_steps, settings.seed, options)


def _train(data: Transitions, rewards: np.ndarray, settings: TrainSettings, out: Path, device: torch.device,
           card: dict[str, Any], options: LoopOptions) -> Path:
    """Trains the critic, the diffusion on its weights, and what ranks; saves the policy."""
    critic = new_critic(CriticTrainer, data, rewards, settings, device)
    diffusion = DiffusionTrainer.of(settings, data.observations.shape[1], data.actions.shape[1], device)
    family = diffusion.family
    rates = {"critic": _run_critic(critic, data, rewards, settings, options)}

    if data.bounds is not None:
        card = card | {CARD: data.bounds.to_card()}
    used = walks(data, settings.min_travel)
    weights = critic.advantages(data).numpy()
    if family is None:
        weights = compute_weights(torch.from_numpy(weights), settings.weight_function,
                                  settings.parameter_of_weights(), rescale=settings.rescale_weights).numpy()
        some = weights[used]
        about = {"mean": float(some.mean()), "min": float(some.min()), "max": float(some.max())}
    else:  # every step computes the weights of its own rows
        diffusion.family = family = family.fitted(torch.from_numpy(weights[used]))
        card = card | {"weight_family": family.to_card()}
        about = {"mean": float(np.mean(family.means or ()))}

    mask = data.held_out(settings.held_out, settings.seed)
    about["share_of_steps"] = float(used.mean())
    rows, held_out = (diffusion.pack(data.subset(some), weights[some])
                      for some in (used & ~mask, used & mask))
    now = replace(options, policy=lambda: Policy(**Model(
        diffusion.ema, diffusion.schedule, critic.target, critic.value, card).parts(), device=device))
    rates["actor"] = run_phase(diffusion, rows, held_out, settings.actor_steps, settings.seed, now)
    ranker = critics = None
    if settings.ranker_steps:
        ranker, rates["ranker"] = train_ranker(data, weights, settings, device, options)
    if settings.critics:
        critics, rates["critics"] = train_critics(data, rewards, settings, device, options)
    record = {
        "settings": settings.to_dict(),
        "data_hash": options.origin.data,
        "steps_per_second": {k: round(v, 1) for k, v in rates.items() if v},
        "held_out_losses": last_losses(options.history),
        "weights": about,
    }
    return save_checkpoint(out / "policy", Model(
        diffusion.ema, diffusion.schedule, critic.target, critic.value, card | {"training": record}, ranker,
        critics=critics))


def train_ranker(data: Transitions, weights: np.ndarray, settings: TrainSettings, device: torch.device,
                 options: LoopOptions) -> tuple[Ranker, float]:
    """A ranker trained on the ``weights`` [N] of ``data`` that are not held out, and its steps/s."""
    mask = data.held_out(settings.held_out, settings.seed)
    torch.manual_seed(stream_seed(settings.seed, "ranker", "initialise"))
    S, A = data.observations.shape[1], data.actions.shape[1]
    trainer = RankerTrainer(S, A, weights[~mask], settings, device)
    rows, held_out = (trainer.pack(data.subset(some), weights[some]) for some in (~mask, mask))
    rate = run_phase(trainer, rows, held_out, settings.ranker_steps, settings.seed, options)
    return trainer.ranker(), rate


def train_critics(data: Transitions, rewards: np.ndarray, settings: TrainSettings, device: torch.device,
                  options: LoopOptions) -> tuple[EnsembleQ, float]:
    """The target Q of ``settings.critics`` critics, trained on ``data`` with its transformed ``rewards`` [N],
    and their steps/s."""
    trainer = new_critic(CriticsTrainer, data, rewards, settings, device)
    rate = _run_critic(trainer, data, rewards, settings, options)
    return trainer.target, rate


def last_losses(history: Path | None) -> dict[str, float]:
    return {name: round(value, 5) for lines in (read_history(history) if history else {}).values()
            for name, value in lines[-1].items() if "held_out" in name and value is not None}
