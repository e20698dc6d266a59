"""The command that fetches data: download."""

from __future__ import annotations

import click


@click.command()
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...")
@click.option("--mirror", help="Address that has D4RL's folders, such as gym_mujoco_v2, below it.  "
                               "[default: D4RL's own server]")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def download(tasks: tuple[str, ...], mirror: str | None, quiet: bool) -> None:
    """Download D4RL's datasets of TASKs to D4RL's own folder, where 'swg-fast train' finds them.

    An interrupted download continues where it stopped.
    """
    from swg_fast.data.download import download as fetch
    from swg_fast.data.download import remote_path

    for task in tasks:
        remote_path(task)  # every name is known before the first byte
    for task in tasks:
        path = fetch(task, mirror=mirror, progress=not quiet)
        click.echo(f"{task}: {path} ({path.stat().st_size / 1e6:,.1f} MB)")
