"""The command ``swg-fast distill``. Its options are made from the settings' fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, replace
from pathlib import Path
from typing import Any

import click

from swg_fast.cli.options import PATH, own_default, with_options


def _entries() -> Iterator[tuple[Field, str]]:
    """The keys of a configuration, each with its default."""
    from swg_fast.training.distillation.settings import DistillOptions, DistillSettings
    from swg_fast.training.run_config import config_fields

    for entry in config_fields(DistillSettings, DistillOptions).values():
        if entry.name != "teacher":
            yield entry, own_default(entry)


@click.command(cls=with_options(_entries))
@click.argument("teacher", metavar="POLICY_OR_RUN", required=False)
@click.option("--out", help="Folder of the run.  [default: runs/NAME-student]")
@click.option("--resume", is_flag=True, help="Continue the distillation in --out.")
@click.option("--config", "config_path", type=PATH,
              help="TOML file with any of the settings below, as names with _ for -. A run writes its own to "
                   "OUT/config.toml. An option here wins over the file.")
@click.option("--stop-after", type=click.IntRange(min=1), help="Stop (resumably) after this many steps.")
def distill(teacher: str | None, out: str | None, resume: bool, config_path: Path | None,
            stop_after: int | None, **chosen: Any) -> None:
    """Distil a student from POLICY_OR_RUN: a network that draws a candidate in one call.

    The student learns where the teacher's guided walk from a noise ends. The policy goes to OUT/policy, and
    every command takes it as it takes its teacher: evaluate, bench, inspect.
    """
    from swg_fast.common.progress import say
    from swg_fast.common.provenance import command_line
    from swg_fast.training.prepare_distillation import prepare_distillation

    run = prepare_distillation(teacher, out=out, config=config_path, **chosen)
    walk = run.teaching.walk
    say(f"teacher: {run.options.teacher}, {walk.sampler} in {walk.sampler_steps} steps; states of "
        f"{len(run.data):,} transitions")
    loop = replace(run.loop_options(), stop_after=stop_after)
    folder = run.run(resume=resume, loop=loop, command=command_line())
    say(f"policy: {folder}\ntry it: swg-fast evaluate {run.teaching.teacher.card.get('task', 'TASK')} "
        f"--policy {folder}")
