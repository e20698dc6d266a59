"""The command ``swg-fast train``. Its options are made from the settings' fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swg_fast.cli.options import PATH, own_default, with_options

if TYPE_CHECKING:
    from swg_fast.training.phase_clock import Clock


def _entries() -> Iterator[tuple[Field, str]]:
    """The keys of a configuration, and what stands in where one is left out."""
    from swg_fast.envs.tasks import set_by_presets
    from swg_fast.training.run_config import config_fields

    for name, entry in config_fields().items():
        yield entry, ("the preset's, or " if name in set_by_presets() else "") + own_default(entry)


def _sections() -> dict[str, set[str]]:
    """The options by what they are for; the others are the run's."""
    from swg_fast.training.settings import CRITIC, TrainSettings

    data = {"dataset", "observation_keys", "action_low", "action_high", "strict", "trust", "mirror",
            "new_task", "held_out"}
    critic = {*CRITIC, "critic", "critics"} - {"seed", "held_out"}
    method = {entry.name for entry in fields(TrainSettings)} - critic - {"seed", "held_out", "precision"}
    return {"Data": data, "Critic": critic, "Weights, network and diffusion": method}


@click.command(cls=with_options(_entries, _sections))
@click.argument("task", required=False)
@click.option("--out", help="Folder of the run.  [default: runs/TASK, with - for /]")
@click.option("--resume", is_flag=True, help="Continue the run in --out.")
@click.option("--config", "config_path", type=PATH,
              help="TOML file with any of the settings below, as names with _ for -. A run writes its own to "
                   "OUT/config.toml. An option here wins over the file, the file over the task's preset.")
@click.option("--stop-after", type=click.IntRange(min=1),
              help="Stop (resumably) after this many steps of a phase.")
@click.option("--profile", is_flag=True, help="Say where the time went.")
def train(task: str | None, out: str | None, resume: bool, config_path: Path | None, stop_after: int | None,
          profile: bool, **chosen: Any) -> None:
    """Train critic, weights and diffusion for TASK (say, antmaze-umaze-v2, minari:DATASET, or an
    OGBench single task).

    The defaults are the paper's; a task's preset may set others. The policy goes to OUT/policy, the curves
    to OUT/logs, the whole configuration to OUT/config.toml.

    \b
    Your own recording, with actions from -2 to 2 and a first policy in minutes:
      swg-fast train my-robot --new-task --dataset robot.hdf5 \\
          --action-low -2 --action-high 2 --preset small
    """
    from swg_fast.common.progress import say
    from swg_fast.common.provenance import command_line
    from swg_fast.envs.gymnasium_ids import is_known
    from swg_fast.evaluation.train import scoring
    from swg_fast.training.opening import show_opening
    from swg_fast.training.prepare import prepare_run

    run = prepare_run(task, out=out, config=config_path, **chosen)
    if not run.options.quiet:
        show_opening(run)
    loop = replace(run.loop_options(), stop_after=stop_after, profile=profile,
                   scoring=scoring(run, run.task))
    try:
        folder = run.train(resume=resume, loop=loop, command=command_line())
    finally:
        if profile:
            _print_times(loop.clocks)
    command = f"swg-fast evaluate {run.task} --policy {folder}" if is_known(run.task) else \
        f"in Python swg_fast.evaluate(swg_fast.load_policy({str(folder)!r}), YOUR_ENVIRONMENT)"
    say(f"policy: {folder}\ntry it: {command}")


def _print_times(clocks: dict[str, Clock]) -> None:
    from swg_fast.common.console import print_table

    if clocks:
        rows = [row for phase, clock in clocks.items() for row in clock.rows(phase)]
        print_table("where the time went", rows)
