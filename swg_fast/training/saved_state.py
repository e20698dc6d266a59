"""Resumable training state: every buffer of a trainer, in one safetensors file by step."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from swg_fast.common.atomic_files import replacing
from swg_fast.common.errors import UsageError
from swg_fast.common.identity import key_of
from swg_fast.common.read_files import validated
from swg_fast.training.settings import CRITIC, TrainSettings

KEEP = 2  # how many of a phase's newest states stay on disk by default

MEND = "delete it to resume from the one before"


@dataclass(frozen=True)
class Origin:
    """What a run's states belong to: they go on in nothing else. ``settings`` and ``critic`` stand for all
    settings and for those that decide the critic, ``data`` for the transitions. Empty: not known, as in a run
    that an older version began."""

    run: str = ""
    settings: str = ""
    critic: str = ""
    data: str = ""

    @classmethod
    def of(cls, settings: TrainSettings, data_hash: str, run: str = "") -> Origin:
        """The origin of the states of ``run`` (empty: a critic that runs share)."""
        default = TrainSettings().to_dict()  # left out, so that a setting that comes later changes nothing
        chosen = {name: value for name, value in settings.to_dict().items() if value != default[name]}
        # With a falling learning rate the planned length decides each step, not only how many were taken.
        mine = set(CRITIC) - (set() if settings.critic_cosine_decay else {"critic_steps"})
        return cls(run, key_of(chosen), key_of({k: v for k, v in chosen.items() if k in mine}), data_hash)


NOWHERE = Origin()


@dataclass(frozen=True)
class Tag:
    """What a state's file says of itself. An older version's says the step alone."""

    step: int
    phase: str = ""
    run: str = ""
    settings: str = ""
    data: str = ""

    @classmethod
    def of(cls, origin: Origin, phase: str, step: int) -> Tag:
        settings = origin.critic if phase == "critic" else origin.settings
        return cls(step, phase, origin.run, settings, origin.data)


def check_tag(path: Path, metadata: dict[str, str] | None, mine: Tag, any_run: bool = False) -> None:
    """`UsageError` where ``metadata``, of the state in ``path``, is not ``mine``. What an older version did
    not write is not compared, in a run that it began or where ``any_run`` may have made the state."""
    try:
        theirs = validated(json.loads((metadata or {})["state"]), Tag, str(path), MEND)
    except (KeyError, ValueError) as error:
        raise UsageError(f"{path}: damaged (it does not say what it is of); {MEND}") from error
    if theirs.step != mine.step:
        raise UsageError(f"{path}: holds the state of step {theirs.step}, not of its name's; {MEND}")
    for name, what in (("phase", "another phase"), ("settings", "other settings"), ("data", "other data"),
                       ("run", "another run")):
        found, wanted = getattr(theirs, name), getattr(mine, name)
        older = not found and (any_run or not mine.run)
        if found != wanted and wanted and not older and not (any_run and name == "run"):
            raise UsageError(f"{path}: is a state of {what}; {MEND}")


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
            raise UsageError(f"{source}: lacks what the optimizer needs; {MEND}")
        optimizer.state[parameter] = {
            key: value.to(_optimizer_device(optimizer, parameter, key)).clone()
            for key, value in moments.items()}


def _optimizer_device(optimizer: torch.optim.Optimizer, parameter: torch.Tensor,
                      key: str) -> torch.device:
    capturable = optimizer.param_groups[0].get("capturable", False)
    return torch.device("cpu") if key == "step" and not capturable else parameter.device


def save_state(folder: Path, trainer: Any, step: int, keep: int = KEEP, origin: Origin = NOWHERE) -> Path:
    """Writes ``PHASE-STEP.safetensors``, which says that it is of ``origin``, and drops all but the newest
    ``keep`` of that phase."""
    from safetensors.torch import save_file

    path = state_path(folder, trainer.phase, step)
    tensors = {k: v.detach().cpu().contiguous() for k, v in gather_state(trainer).items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=_metadata(origin, trainer.phase, step))
    for old in _states(folder, trainer.phase)[:-keep]:
        old.unlink()
    return path


def _metadata(origin: Origin, phase: str, step: int) -> dict[str, str]:
    return {"state": json.dumps(asdict(Tag.of(origin, phase, step)))}


def load_newest_state(folder: Path, trainer: Any, origin: Origin = NOWHERE) -> int:
    """Restores the newest state of the trainer's phase and returns its step; 0 if there is none. Raises as
    `load_state` does."""
    steps = saved_steps(folder, trainer.phase)
    if not steps:
        return 0
    load_state(folder, trainer, steps[-1], origin)
    return steps[-1]


def load_state(folder: Path, trainer: Any, step: int, origin: Origin = NOWHERE) -> None:
    """Restores the state of that step of the trainer's phase. `UsageError` where the file is damaged, or not
    of ``origin``."""
    path = state_path(folder, trainer.phase, step)
    restore_state(trainer, _read_state(path, Tag.of(origin, trainer.phase, step)), str(path))


def _read_state(path: Path, mine: Tag, any_run: bool = False) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            check_tag(path, file.metadata(), mine, any_run)
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path}: damaged ({error}); {MEND}") from error


def check_state(folder: Path, phase: str, step: int, origin: Origin) -> None:
    """`UsageError` where the state of another run in ``folder`` could not go on in one of ``origin``."""
    _read_state(state_path(folder, phase, step), Tag.of(origin, phase, step), any_run=True)


def copy_state(source: Path, target: Path, phase: str, step: int, origin: Origin) -> None:
    """Copies a state from the folder ``source`` to ``target``, as one of ``origin``. Raises as `check_state`
    does."""
    from safetensors.torch import save_file

    tensors = _read_state(state_path(source, phase, step), Tag.of(origin, phase, step), any_run=True)
    with replacing(state_path(target, phase, step)) as temporary:
        save_file(tensors, temporary, metadata=_metadata(origin, phase, step))


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
