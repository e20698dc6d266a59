"""A whole training run: critic, weights, diffusion, and the policy it leaves."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swg_fast.checkpoint import Checkpoint, save_checkpoint
from swg_fast.data import Transitions
from swg_fast.errors import UsageError
from swg_fast.files import read_json, write_json
from swg_fast.networks import ScoreNetwork
from swg_fast.schedule import NoiseSchedule
from swg_fast.seeds import stream_seed
from swg_fast.training.critic import CriticTrainer
from swg_fast.training.diffusion import DiffusionTrainer
from swg_fast.training.loop import LoopOptions, run_phase
from swg_fast.training.rewards import transform_rewards
from swg_fast.training.settings import TrainSettings
from swg_fast.weights import WEIGHT_FUNCTIONS, compute_weights


def train(data: Transitions, settings: TrainSettings, out: str | Path, *,
          device: str | torch.device = "cpu", resume: bool = False,
          card: dict[str, Any] | None = None, options: LoopOptions | None = None) -> Path:
    """Trains a policy on ``data`` and returns the folder of its checkpoint, ``out/policy``.

    ``out`` holds ``run.json`` (the settings), ``states/`` (resumable), ``logs/`` (TensorBoard) and
    ``policy/``. With ``resume`` the newest states are taken up, bit for bit.

    Raises `UsageError` where ``out`` holds another run, `Interrupted` on Ctrl-C.
    """
    out, device = Path(out), torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no CUDA device here; use --device cpu")
    _claim(out, settings, len(data), resume)
    options = options or LoopOptions(out / "states")
    options = replace(options, folder=out / "states", resume=resume)
    training, held_out = data.split(settings.held_out, settings.seed)
    S, A = data.observations.shape[1], data.actions.shape[1]

    torch.manual_seed(stream_seed(settings.seed, "initialise"))
    critic = CriticTrainer(S, A, settings, device)
    network = ScoreNetwork(S, A, settings.hidden_dim, settings.num_blocks, settings.weight_head,
                           dropout=settings.dropout)
    schedule = NoiseSchedule.by_name(settings.schedule, settings.num_steps)
    diffusion = DiffusionTrainer(network, schedule, settings, device)

    rewards = transform_rewards(data, settings.reward_transform)
    mask = np.isin(data.episodes, np.unique(held_out.episodes))
    rates = {"critic": run_phase(
        critic, critic.pack(training, rewards[~mask]), critic.pack(held_out, rewards[mask]),
        settings.critic_steps, settings.seed, options)}

    parameter = settings.weight_parameter
    if parameter is None and WEIGHT_FUNCTIONS[settings.weight_function].parameter == "tau":
        parameter = settings.expectile
    weights = compute_weights(critic.advantages(data), settings.weight_function, parameter,
                              rescale=settings.rescale_weights).numpy()

    rates["actor"] = run_phase(
        diffusion, diffusion.pack(training, weights[~mask]),
        diffusion.pack(held_out, weights[mask]), settings.actor_steps, settings.seed, options)
    record = {
        "settings": settings.to_dict(),
        "steps_per_second": {k: round(v, 1) for k, v in rates.items()},
        "held_out_losses": _last_losses(options),
        "weights": {"mean": float(weights.mean()), "min": float(weights.min()),
                    "max": float(weights.max())},
    }
    return save_checkpoint(out / "policy", Checkpoint(
        diffusion.ema, schedule, critic.target, critic.value, (card or {}) | {"training": record}))


def _claim(out: Path, settings: TrainSettings, rows: int, resume: bool) -> None:
    """Makes ``out`` this run's folder, or checks that it already is."""
    path = out / "run.json"
    mine = {"settings": settings.to_dict(), "transitions": rows}
    if resume:
        if not path.is_file():
            raise UsageError(f"{out}: nothing to resume; leave out --resume to begin")
        theirs = read_json(path)
        if theirs != mine:
            changed = [k for k, v in mine["settings"].items() if theirs["settings"].get(k) != v]
            raise UsageError(f"{out}: holds a run with other settings "
                             f"({', '.join(changed) or 'another dataset'}); "
                             "resume with the same ones, or choose another --out")
        return
    if path.exists():
        raise UsageError(f"{out}: already holds a run; add --resume to go on with it, or choose "
                         "another --out")
    shutil.rmtree(out / "states", ignore_errors=True)
    write_json(path, mine)


def _last_losses(options: LoopOptions) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in options.history:
        found |= {k: round(v, 5) for k, v in line.items() if "held_out" in k}
    return found
