"""The command ``swg-fast train``. Its options are made from the settings' fields."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import Field, asdict, replace
from pathlib import Path
from typing import Any

import click

from swg_fast.cli.options import own_default, with_options
from swg_fast.common.errors import UsageError


def _entries() -> Iterator[tuple[Field, str]]:
    """The keys of a configuration, and what stands in where one is left out."""
    from swg_fast.envs.tasks import set_by_presets
    from swg_fast.training.run_config import config_fields

    for name, entry in config_fields().items():
        yield entry, ("the preset's, or " if name in set_by_presets() else "") + own_default(entry)


@click.command(cls=with_options(_entries))
@click.argument("task", required=False)
@click.option("--out", type=Path, help="Folder of the run.  [default: runs/TASK]")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--config", "config_path", type=Path,
              help="TOML file with any of the settings below, as names with _ for -. A run writes its own to "
                   "OUT/config.toml. An option here wins over the file, the file over the task's preset.")
@click.option("--stop-after", type=click.IntRange(min=1),
              help="Stop (resumably) after this many steps of a phase.")
@click.option("--profile", is_flag=True, help="Say where the time went.")
def train(task: str | None, out: Path | None, resume: bool, config_path: Path | None, stop_after: int | None,
          profile: bool, **chosen: Any) -> None:
    """Train critic, weights and diffusion for TASK (say, antmaze-umaze-v2, minari:DATASET, or an
    OGBench single task).

    The defaults are the paper's; a task's preset may set others. The policy goes to OUT/policy, the curves
    to OUT/logs, the whole configuration to OUT/config.toml.
    """
    import torch

    from swg_fast.common.atomic_files import user_path
    from swg_fast.common.console import print_table, versions
    from swg_fast.common.hardware import resolve_device, set_threads
    from swg_fast.common.output_paths import check_folder
    from swg_fast.data import load_dataset
    from swg_fast.envs.tasks import settings_for
    from swg_fast.training.logger import check_logger
    from swg_fast.training.loop import LoopOptions
    from swg_fast.training.run import train as run
    from swg_fast.training.run_config import read_config, resolve

    file = read_config(config_path) if config_path else {}
    task = task or file.get("task")
    if task is None:
        raise UsageError("no TASK; name one, such as antmaze-umaze-v2, or give a --config that does")
    preset = settings_for(task)
    options, settings = resolve(chosen | {"task": task}, file, preset)
    check_logger(options.logger)
    if options.threads:
        set_threads(options.threads)
    device = str(resolve_device(options.device))
    out = user_path(out or Path("runs") / task)
    check_folder(out)
    source = options.dataset
    if source == "":
        raise UsageError("--dataset '' names nothing; give a file, a D4RL dataset or minari:DATASET")
    keys = options.observation_keys.split(",") if options.observation_keys is not None else None
    data = load_dataset(source or task, max_episode_steps=preset.max_episode_steps, task=task,
                        continues_after_terminal=preset.family == "antmaze", observation_keys=keys,
                        mirror=options.mirror)
    preset.check_sizes(data.observations.shape[1], data.actions.shape[1], str(source or task))
    click.echo(f"{len(data):,} transitions; {data.dropped}")
    found = Path(source) if source is not None and Path(source).exists() else None
    card = {"task": task, "dataset": found.name if found else source or task, "transitions": len(data),
            "versions": versions(), "make_it_again": shlex.join(["swg-fast", *sys.argv[1:]])}
    if preset.sampling:
        card["sampling"] = dict(preset.sampling)
    if data.observation_keys is not None:
        card["observation_keys"] = list(data.observation_keys)
        click.echo(f"observations: {', '.join(data.observation_keys)}")
    critic = user_path(options.critic).resolve() if options.critic is not None else None
    # With these the file gives the same run from any folder.
    if found:
        source = str(found.resolve())
    options = replace(options, device=device, threads=torch.get_num_threads(), dataset=source,
                      critic=None if critic is None else str(critic))
    loop = LoopOptions(out / "states", log_every=options.log_every, save_every=options.save_every,
                       keep_states=options.keep_states, stop_after=stop_after, profile=profile)
    try:
        folder = run(data, settings, out, device=device, resume=resume, card=card, config=asdict(options),
                     logger=options.logger, options=loop, critic=critic)
    finally:
        if profile and loop.clocks:
            print_table("where the time went", [row for phase, clock in loop.clocks.items()
                                                for row in clock.rows(phase)])
    click.echo(f"policy: {folder}\ntry it: swg-fast evaluate {task} --policy {folder}")
