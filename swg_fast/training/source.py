"""What a name on the command line stands for: a run's folder, a policy's folder, or a bundled policy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swg_fast.common.atomic_files import user_path
from swg_fast.common.errors import UsageError
from swg_fast.common.read_files import is_file
from swg_fast.data import Transitions
from swg_fast.envs.action_bounds import CARD as BOUNDS
from swg_fast.envs.action_bounds import ActionBounds
from swg_fast.policy.checkpoint import CARD, find_checkpoint
from swg_fast.policy.model_card import read_card
from swg_fast.training.distillation.settings import DistillOptions, DistillSettings
from swg_fast.training.history import HISTORY
from swg_fast.training.run_config import CONFIG, read_config
from swg_fast.training.run_folder import RUN, read_record
from swg_fast.training.settings import TrainSettings


@dataclass(frozen=True)
class Source:
    """A checkpoint's ``folder`` (None while the run has none), its ``run`` (None for a policy alone), and
    what their files say of the training."""

    name: str
    folder: Path | None
    run: Path | None
    task: str | None
    dataset: str | None
    settings: TrainSettings | None
    data_hash: str | None  # what stands for them; older versions wrote none
    observation_keys: list[str] | None  # of a dictionary observation
    bounds: ActionBounds | None = None  # of the recorded actions; None where the task's environment has them

    def trained_on(self, data: Transitions) -> bool:
        """Whether this is known to have been trained on ``data``, so that its split holds."""
        if self.settings is None:
            return False
        return self.data_hash == data.fingerprint()

    def check_sizes(self, state_dim: int, action_dim: int, data: Transitions) -> None:
        """`UsageError` where ``data`` has states or actions of other sizes than the policy's."""
        sizes = data.observations.shape[1], data.actions.shape[1]
        if sizes != (state_dim, action_dim):
            raise UsageError(f"{self.name} is for states of {state_dim} and actions of {action_dim}, the "
                             f"dataset has {sizes[0]} and {sizes[1]}; give the dataset that it was trained "
                             "on")

    @property
    def history(self) -> Path | None:
        return None if self.run is None else self.run / "logs" / HISTORY


def find_source(name_or_path: str | Path) -> Source:
    """The source called by a run's folder, a checkpoint's folder or a bundled policy's name.

    Raises `UsageError` where it is none of them.
    """
    path = user_path(name_or_path)
    run: Path | None
    folder: Path | None
    if is_file(path / RUN):
        run, folder = path, path / "policy"
        folder = folder if is_file(folder / CARD) else None
    else:
        folder = find_checkpoint(name_or_path)
        run = folder.parent if is_file(folder.parent / RUN) else None
    card: dict[str, Any] = read_card(folder / CARD) if folder is not None else {}
    record = read_record(run / RUN, None) if run is not None else None
    distilled = record is not None and record.kind == "distill"
    config: dict[str, Any] = {}
    if run is not None and is_file(run / CONFIG):
        config = read_config(run / CONFIG, *((DistillOptions, DistillSettings) if distilled else ()))
    trained = card.get("training") or {}
    # The critic of a student, and of a policy to which rankers were added, was trained in another run.
    own = record if record is not None and record.kind == "train" else None
    settings = own.settings if own is not None else trained.get("settings")
    try:
        chosen = TrainSettings.from_dict(settings) if settings else None
    except UsageError as error:
        raise UsageError(f"{run or folder}: {error}; another version wrote it") from error
    return Source(str(name_or_path), folder, run, card.get("task") or config.get("task"),
                  config.get("dataset"), chosen, (own and own.data_hash) or trained.get("data_hash"),
                  card.get("observation_keys"), _bounds(card, config))


def _bounds(card: dict[str, Any], config: dict[str, Any]) -> ActionBounds | None:
    """The bounds that actions were scaled by: the card's, or those that a run under way was given."""
    own = card.get(BOUNDS)
    low, high = (own["low"], own["high"]) if own else (config.get("action_low"), config.get("action_high"))
    return None if low is None else ActionBounds.of(low, high, BOUNDS)
