"""From the name of a teacher and the settings that a user chose to a distillation that is ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swg_fast.common.atomic_files import user_path
from swg_fast.common.errors import UsageError
from swg_fast.common.hardware import resolve_device, set_threads
from swg_fast.common.inputs import state_rows
from swg_fast.common.output_paths import check_folder
from swg_fast.common.provenance import versions
from swg_fast.common.read_files import exists
from swg_fast.common.settings_fields import check_named
from swg_fast.data import Transitions
from swg_fast.data.load import load_for
from swg_fast.policy.policy import Policy, load_policy
from swg_fast.training.distillation import run
from swg_fast.training.distillation.run import Teaching
from swg_fast.training.distillation.settings import DistillOptions, DistillSettings
from swg_fast.training.logger import check_logger
from swg_fast.training.loop import LoopOptions
from swg_fast.training.run_config import read_config
from swg_fast.training.source import Source, find_source


@dataclass(frozen=True)
class PreparedDistillation:
    """A distillation whose settings are complete and whose teacher and data are loaded. The device and the
    paths in ``options`` are resolved, so that its config.toml gives the same student from any folder."""

    teaching: Teaching
    data: Transitions
    options: DistillOptions
    out: Path

    def loop_options(self) -> LoopOptions:
        """How often the run logs and saves."""
        return LoopOptions(self.out / "states", log_every=self.options.log_every,
                           save_every=self.options.save_every, keep_states=self.options.keep_states)

    def run(self, *, resume: bool = False, loop: LoopOptions | None = None, command: str | None = None
            ) -> Path:
        """Distils, and returns the policy's folder. ``command`` is what the card says to make it again.
        Raises as `distill` does."""
        card: dict[str, Any] = {"versions": versions()} | ({"make_it_again": command} if command else {})
        return run.distill(self.teaching, self.data, self.out, resume=resume, card=card,
                       config=asdict(self.options), logger=self.options.logger,
                       keep_pairs=self.options.keep_pairs, with_teacher=self.options.with_teacher,
                       options=loop or self.loop_options())


def prepare_distillation(teacher: str | None = None, *, out: str | Path | None = None,
                         config: str | Path | None = None, states: Any = None, **chosen: Any
                         ) -> PreparedDistillation:
    """The distillation of ``teacher`` (a policy's folder, a run's, or a bundled policy's name) in the folder
    ``out`` (default: runs/TEACHER-student), with ``chosen`` fields of `DistillSettings` and `DistillOptions`,
    where None is not chosen. ``states`` [N, S] stand in the place of a dataset's.

    A chosen value wins over the TOML file ``config``, the file over the default. Sets torch's CPU threads,
    and downloads data that are missing.

    Raises `UsageError` for an unknown teacher, bad settings, a folder that cannot be written to, and data
    that are missing or are another task's.
    """
    file = read_config(config, DistillOptions, DistillSettings) if config else {}
    options, settings = _resolve(chosen | {"teacher": teacher}, file)
    if options.teacher is None:
        raise UsageError("no teacher; name a policy or a run, such as antmaze-umaze-v2, or give a --config "
                         "that does")
    check_logger(options.logger)
    if options.threads:
        set_threads(options.threads)
    source = find_source(options.teacher)
    if source.folder is None:
        raise UsageError(f"{source.name}: this run has no policy yet; wait until it has ended")
    out = user_path(_default_folder(options.teacher) if out is None else out)
    check_folder(out)
    device = str(resolve_device(options.device))
    teaching = Teaching.of(load_policy(source.folder, device=device), settings)
    if states is None:
        data, dataset = _load(source, options)
    else:
        data, dataset = _only_states(states, teaching.teacher), None
    name = str(user_path(options.teacher).resolve()) if exists(options.teacher) else options.teacher
    options = replace(options, teacher=name, dataset=dataset, device=device, threads=torch.get_num_threads())
    return PreparedDistillation(teaching, data, options, out)


def distill(teacher: str | Path, *, states: Any = None, out: str | Path | None = None, resume: bool = False,
            quiet: bool = False, **settings: Any) -> Policy:
    """Distils a student of ``teacher`` and returns the policy that draws by it; it is in the folder
    OUT/policy too (default: runs/TEACHER-student).

    teacher: a policy's folder, a run's, or a bundled policy's name. states [N, S]: where the walks begin;
    left out, those of the ``dataset`` among the settings, of the run, or of the policy's task. ``settings``
    are fields of `DistillSettings` and `DistillOptions`, such as guidance_range=(0.5, 5.0), pairs=100_000,
    with_teacher=True or seed=1.

    Raises `UsageError` for a teacher, states, settings or folders that cannot be used, before any work;
    otherwise as `swg_fast.training.distillation.run.distill` does.
    """
    prepared = prepare_distillation(str(teacher), out=out, states=states, **settings)
    folder = prepared.run(resume=resume, loop=replace(prepared.loop_options(), progress=not quiet))
    return load_policy(folder, prepared.options.device)


def _resolve(chosen: Mapping[str, Any], file: Mapping[str, Any]) -> tuple[DistillOptions, DistillSettings]:
    values = dict(file) | check_named((DistillSettings, DistillOptions), chosen, "distillation setting")
    names = {entry.name for entry in fields(DistillSettings)}
    return (DistillOptions(**{k: v for k, v in values.items() if k not in names}),
            DistillSettings(**{k: v for k, v in values.items() if k in names}))


def _default_folder(teacher: str) -> Path:
    return Path("runs") / f"{user_path(teacher).name or 'policy'}-student"


def _only_states(states: Any, teacher: Policy) -> Transitions:
    """``states`` [N, S] as data, each an episode of its own. `UsageError` for another shape, or NaN."""
    rows = state_rows(states, teacher.state_dim, torch.device("cpu")).numpy()
    n = len(rows)
    return Transitions(rows, np.zeros((n, teacher.action_dim), np.float32), rows, np.zeros(n, np.float32),
                       np.zeros(n, bool), np.arange(n, dtype=np.int32))


def _load(source: Source, options: DistillOptions) -> tuple[Transitions, str]:
    """The data that the states come from, and what they are called from any folder."""
    dataset = options.dataset or source.dataset or source.task
    if not dataset:
        raise UsageError(f"{source.name}: its card names no task, so there are no states to begin from; give "
                         "a --dataset")
    data = load_for(source.task, dataset, observation_keys=source.observation_keys, mirror=options.mirror,
                    trust=options.trust, bounds=source.bounds)
    return data, str(user_path(dataset).resolve()) if exists(dataset) else dataset
