"""The command line: ``swg-fast``. Every command is a thin layer over a function of the package."""

from __future__ import annotations

import click

from swg_fast import __version__
from swg_fast.cli import sweep
from swg_fast.cli.compare import compare
from swg_fast.cli.data import download
from swg_fast.cli.distill import distill
from swg_fast.cli.ending import run
from swg_fast.cli.evaluate import evaluate
from swg_fast.cli.export import export
from swg_fast.cli.import_jax import import_jax
from swg_fast.cli.inspect import inspect
from swg_fast.cli.machine import info
from swg_fast.cli.measure import bench, tune
from swg_fast.cli.rank import rank
from swg_fast.cli.toy import toy
from swg_fast.cli.train import train
from swg_fast.common.interrupts import install

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}


# The commands by whom they are for, in the order of the help.
COMMANDS: dict[str, tuple[click.Command, ...]] = {
    "Start here": (train, evaluate, toy, inspect, info),
    "Experiments": (distill, rank, export, download, *sweep.COMMANDS, compare, import_jax),
    "Kernel developers": (bench, tune),
}


class Commands(click.Group):
    """A group whose help has a section for each entry of `COMMANDS`, and every command's first sentence."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(str(each.name), each.get_short_help_str(limit=200))
                                    for each in commands])


@click.group(cls=Commands, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="swg-fast")
def cli() -> None:
    """Self-Weighted Guidance for offline RL: train, sample and evaluate diffusion policies."""


for command in (each for commands in COMMANDS.values() for each in commands):
    cli.add_command(command)


def main() -> None:
    """Runs the command line; bad input ends in one line and exit code 2."""
    install()
    run(cli)


if __name__ == "__main__":
    main()
