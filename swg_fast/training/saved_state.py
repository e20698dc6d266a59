"""Resumable training state: every buffer of a trainer, in one safetensors file by step."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from swg_fast.common.atomic_files import replacing
from swg_fast.common.errors import UsageError

KEEP = 2  # how many of a phase's newest states stay on disk by default


def gather_state(trainer: Any) -> dict[str, torch.Tensor]:
    """Parameters, averages and optimiser moments, by name. The tensors are the live ones."""
    tensors = {f"flat.{name}": flat.data.data for name, flat in trainer.flats().items()}
    for name, optimizer in trainer.optimizers.items():
        for key, value in optimizer.state[optimizer.param_groups[0]["params"][0]].items():
            tensors[f"optimizer.{name}.{key}"] = value
    return tensors


def restore_state(trainer: Any, tensors: dict[str, torch.Tensor], source: str) -> None:
    """The inverse of `gather_state`, in place. `UsageError` where the shapes differ."""
    for name, flat in trainer.flats().items():
        saved = tensors.get(f"flat.{name}")
        if saved is None or saved.shape != flat.data.shape:
            raise UsageError(f"{source}: state of another network; resume with the settings of the "
                             "run, or choose another --out")
        flat.data.data.copy_(saved)
    for name, optimizer in trainer.optimizers.items():
        parameter = optimizer.param_groups[0]["params"][0]
        prefix = f"optimizer.{name}."
        moments = {key.removeprefix(prefix): value for key, value in tensors.items()
                   if key.startswith(prefix)}
        shapes = {key: tuple(value.shape) for key, value in moments.items()}
        if shapes != {"step": (), "exp_avg": tuple(parameter.shape), "exp_avg_sq": tuple(parameter.shape)}:
            raise UsageError(f"{source}: lacks what the optimizer needs; delete it to resume from the one "
                             "before")
        optimizer.state[parameter] = {
            key: value.to(_optimizer_device(optimizer, parameter, key)).clone()
            for key, value in moments.items()}


def _optimizer_device(optimizer: torch.optim.Optimizer, parameter: torch.Tensor,
                      key: str) -> torch.device:
    capturable = optimizer.param_groups[0].get("capturable", False)
    return torch.device("cpu") if key == "step" and not capturable else parameter.device


def save_state(folder: Path, trainer: Any, step: int, keep: int = KEEP) -> Path:
    """Writes ``PHASE-STEP.safetensors`` and drops all but the newest ``keep`` of that phase."""
    from safetensors.torch import save_file

    path = state_path(folder, trainer.phase, step)
    tensors = {k: v.detach().cpu().contiguous() for k, v in gather_state(trainer).items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"state": json.dumps({"step": step})})
    for old in _states(folder, trainer.phase)[:-keep]:
        old.unlink()
    return path


def load_newest_state(folder: Path, trainer: Any) -> int:
    """Restores the newest state of the trainer's phase and returns its step; 0 if there is none."""
    steps = saved_steps(folder, trainer.phase)
    if not steps:
        return 0
    load_state(folder, trainer, steps[-1])
    return steps[-1]


def load_state(folder: Path, trainer: Any, step: int) -> None:
    """Restores the state of that step of the trainer's phase. `UsageError` where the file is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = state_path(folder, trainer.phase, step)
    try:
        restore_state(trainer, load_file(path), str(path))
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path}: damaged ({error}); delete it to resume from the one before") from error


def state_path(folder: Path, phase: str, step: int) -> Path:
    """Where a phase's state of that step is."""
    return folder / f"{phase}-{step:08d}.safetensors"


def saved_steps(folder: Path, phase: str) -> list[int]:
    """The steps whose states are on disk, in order."""
    return [_step(path) for path in _states(folder, phase)]


def _states(folder: Path, phase: str) -> list[Path]:
    """A phase's states, the oldest first."""
    named = re.compile(rf"{phase}-\d+\.safetensors")
    return sorted((path for path in folder.glob(f"{phase}-*.safetensors")
                   if named.fullmatch(path.name) and path.is_file()), key=_step)


def _step(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])
