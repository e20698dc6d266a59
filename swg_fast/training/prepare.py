"""From a task and the settings that a user chose to a run that is ready to train."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from swg_fast.common.atomic_files import user_path
from swg_fast.common.errors import UsageError
from swg_fast.common.hardware import resolve_device, set_threads
from swg_fast.common.output_paths import check_folder
from swg_fast.common.provenance import versions
from swg_fast.common.read_files import exists, is_file
from swg_fast.common.settings_fields import check_named
from swg_fast.data import Transitions
from swg_fast.data.findings import Finding
from swg_fast.data.load import load_for
from swg_fast.envs.action_bounds import ActionBounds
from swg_fast.envs.gymnasium_ids import check_task
from swg_fast.envs.tasks import Preset, preset_for
from swg_fast.training.logger import check_logger
from swg_fast.training.loop import LoopOptions
from swg_fast.training.rewards import reward_findings
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

    @property
    def findings(self) -> list[Finding]:
        """What in the data contradicts itself, the rewards before their transform included."""
        return [*self.data.findings, *reward_findings(self.data, self.settings.reward_transform)]

    def loop_options(self) -> LoopOptions:
        """How often the run logs and saves, and whether it shows its progress."""
        return LoopOptions(self.out / "states", log_every=self.options.log_every,
                           save_every=self.options.save_every, keep_states=self.options.keep_states,
                           progress=not self.options.quiet)

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
                data: Callable[[RunOptions], Transitions] | None = None, bounds: ActionBounds | None = None,
                **chosen: Any) -> PreparedRun:
    """The run of ``task`` in the folder ``out`` (default: `default_folder`), with ``chosen`` fields of
    `TrainSettings` and `RunOptions`, where None is not chosen. ``data`` makes its transitions, where they
    come from no file; ``bounds`` are those of its actions, where the options do not choose them.

    A chosen value wins over the TOML file ``config``, the file over the preset of that name, this over the
    task's preset, and that over the default. Sets torch's CPU threads, and downloads data that are missing.

    Raises `UsageError` for an unknown task, bad settings, a folder that cannot be written to, data that
    are missing or are another task's, and, if ``strict``, for data that contradict themselves.
    """
    file = read_config(config) if config else {}
    chosen = check_named([RunOptions, TrainSettings], chosen, "training setting")
    task = task or file.get("task")
    if task is None:
        raise UsageError("no TASK; name one, such as antmaze-umaze-v2, or give a --config that does")
    own = bool(chosen.get("new_task") or file.get("new_task"))
    preset = preset_for(task, any_name=own)
    options, settings = resolve(chosen | {"task": task}, file, preset)
    if own and not re.search(r"\w", task):
        raise UsageError(f"{task!r} is no name for a run; give one with letters or digits")
    if not own:
        check_task(task)
    check_logger(options.logger)
    if options.threads:
        set_threads(options.threads)
    device = str(resolve_device(options.device))
    out = user_path(default_folder(task) if out is None else out)
    check_folder(out)
    if options.critic is not None:
        options = replace(options, critic=str(user_path(options.critic).resolve()))
    loaded = data(options) if data is not None else _load(task, options, bounds)
    preset.check_sizes(loaded.observations.shape[1], loaded.actions.shape[1], options.dataset or task)
    card = _card(task, preset, loaded, "arrays" if data is not None else options.dataset or task)
    options = replace(options, device=device, threads=torch.get_num_threads())
    if bounds is not None and loaded.bounds is not None:  # so that the run's config.toml has them
        options = replace(options, action_low=loaded.bounds.low, action_high=loaded.bounds.high)
    if options.dataset and exists(options.dataset):
        options = replace(options, dataset=str(user_path(options.dataset).resolve()))
    run = PreparedRun(task, loaded, settings, options, out, card)
    if options.strict and run.findings:
        raise UsageError(f"the data contradict themselves: {'; '.join(each.what for each in run.findings)}; "
                         "mend them, or leave out --strict")
    return run


def default_folder(task: str) -> Path:
    """runs/TASK, with "-" for what parts folders; or the nested folder that an older version made of it."""
    nested, flat = Path("runs") / task, Path("runs") / re.sub(r"[/\\]+", "-", task)
    return nested if is_file(nested / RUN) and not exists(flat) else flat


def _load(task: str, options: RunOptions, bounds: ActionBounds | None) -> Transitions:
    if options.dataset == "":
        raise UsageError("--dataset '' names nothing; give a file, a D4RL dataset or minari:DATASET")
    keys = options.observation_keys.split(",") if options.observation_keys is not None else None
    return load_for(task, options.dataset or task, observation_keys=keys, mirror=options.mirror,
                    trust=options.trust, bounds=options.bounds or bounds)


def _card(task: str, preset: Preset, data: Transitions, source: str) -> dict[str, Any]:
    card: dict[str, Any] = {"task": task, "dataset": Path(source).name if exists(source) else source,
                            "transitions": len(data), "versions": versions()}
    if preset.sampling:
        card["sampling"] = dict(preset.sampling)
    if data.observation_keys is not None:
        card["observation_keys"] = list(data.observation_keys)
    return card
