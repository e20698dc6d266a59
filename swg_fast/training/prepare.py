"""From a task and the settings that a user chose to a run that is ready to train."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from swg_fast.common.atomic_files import user_path
from swg_fast.common.console import versions
from swg_fast.common.errors import UsageError
from swg_fast.common.hardware import resolve_device, set_threads
from swg_fast.common.output_paths import check_folder
from swg_fast.common.read_files import exists, is_file
from swg_fast.data import Transitions
from swg_fast.data.load import load_for
from swg_fast.envs.gymnasium_ids import check_task
from swg_fast.envs.tasks import Preset, preset_for
from swg_fast.training.logger import check_logger
from swg_fast.training.loop import LoopOptions
from swg_fast.training.run import train
from swg_fast.training.run_config import RunOptions, read_config, resolve
from swg_fast.training.run_folder import RUN
from swg_fast.training.settings import TrainSettings


@dataclass(frozen=True)
class PreparedRun:
    """A run whose settings are complete and whose data are loaded.

    The device and the paths in ``options`` are resolved, so that the run's config.toml gives the same run
    from any folder. ``card`` is the policy's card without what training adds.
    """

    task: str
    data: Transitions
    settings: TrainSettings
    options: RunOptions
    out: Path
    card: dict[str, Any]

    def loop_options(self) -> LoopOptions:
        """How often the run logs and saves."""
        return LoopOptions(self.out / "states", log_every=self.options.log_every,
                           save_every=self.options.save_every, keep_states=self.options.keep_states)

    def train(self, *, resume: bool = False, loop: LoopOptions | None = None, command: str | None = None
              ) -> Path:
        """Trains, and returns the policy's folder. ``command`` is what the card says to make it again.

        Raises as `swg_fast.training.run.train` does.
        """
        card = self.card | ({"make_it_again": command} if command else {})
        critic = Path(self.options.critic) if self.options.critic is not None else None
        return train(self.data, self.settings, self.out, device=self.options.device, resume=resume, card=card,
                     config=asdict(self.options), logger=self.options.logger,
                     options=loop or self.loop_options(), critic=critic)


def prepare_run(task: str | None = None, *, out: str | Path | None = None, config: str | Path | None = None,
                **chosen: Any) -> PreparedRun:
    """The run of ``task`` in the folder ``out`` (default: `default_folder`), with ``chosen`` fields of
    `TrainSettings` and `RunOptions`, where None is not chosen.

    A chosen value wins over the TOML file ``config``, the file over the task's preset, the preset over the
    default. Sets torch's CPU threads, and downloads data that are missing.

    Raises `UsageError` for an unknown task, bad settings, a folder that cannot be written to, and data that
    are missing or are another task's.
    """
    file = read_config(config) if config else {}
    task = task or file.get("task")
    if task is None:
        raise UsageError("no TASK; name one, such as antmaze-umaze-v2, or give a --config that does")
    preset = preset_for(task)
    options, settings = resolve(chosen | {"task": task}, file, preset)
    if not options.new_task:
        check_task(task)
    check_logger(options.logger)
    if options.threads:
        set_threads(options.threads)
    device = str(resolve_device(options.device))
    out = user_path(default_folder(task) if out is None else out)
    check_folder(out)
    if options.critic is not None:
        options = replace(options, critic=str(user_path(options.critic).resolve()))
    data = _load(task, options)
    card = _card(task, preset, data, options.dataset or task)
    options = replace(options, device=device, threads=torch.get_num_threads())
    if options.dataset and exists(options.dataset):
        options = replace(options, dataset=str(user_path(options.dataset).resolve()))
    return PreparedRun(task, data, settings, options, out, card)


def default_folder(task: str) -> Path:
    """runs/TASK, with "-" for what parts folders; or the nested folder that an older version made of it."""
    nested, flat = Path("runs") / task, Path("runs") / re.sub(r"[/\\]+", "-", task)
    return nested if is_file(nested / RUN) and not exists(flat) else flat


def _load(task: str, options: RunOptions) -> Transitions:
    if options.dataset == "":
        raise UsageError("--dataset '' names nothing; give a file, a D4RL dataset or minari:DATASET")
    keys = options.observation_keys.split(",") if options.observation_keys is not None else None
    return load_for(task, options.dataset or task, observation_keys=keys, mirror=options.mirror,
                    trust=options.trust)


def _card(task: str, preset: Preset, data: Transitions, source: str) -> dict[str, Any]:
    card: dict[str, Any] = {"task": task, "dataset": Path(source).name if exists(source) else source,
                            "transitions": len(data), "versions": versions()}
    if preset.sampling:
        card["sampling"] = dict(preset.sampling)
    if data.observation_keys is not None:
        card["observation_keys"] = list(data.observation_keys)
    return card
