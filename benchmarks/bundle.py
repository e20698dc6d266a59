"""Adds a trained policy to the bundled ones: half precision, without the value network.

    python -m benchmarks.bundle RUN/policy antmaze-umaze-v2

Only training needs the value network. The whole of `swg_fast/policy/bundled/NAME` is replaced; a bundled
policy has at most 4,000,000 bytes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from swg_fast.cli.ending import run
from swg_fast.envs.tasks import find_preset
from swg_fast.policy.checkpoint import WEIGHTS, load_checkpoint, save_checkpoint

BUNDLED = Path(__file__).parents[1] / "swg_fast" / "policy" / "bundled"
MOST_BYTES = 4_000_000


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("name")
@click.option("--folder", type=click.Path(path_type=Path), default=BUNDLED, show_default=True)
def main(checkpoint: Path, name: str, folder: Path) -> None:
    """Bundles CHECKPOINT, a folder that 'swg-fast train' wrote, as NAME, a D4RL task."""
    find_preset(name)
    policy = replace(load_checkpoint(checkpoint), value=None)
    folder = save_checkpoint(folder / name, policy, dtype="fp16")
    size = (folder / WEIGHTS).stat().st_size
    click.echo(f"{folder}: {size:,} bytes")
    if size > MOST_BYTES:
        raise click.ClickException(f"more than {MOST_BYTES:,} bytes; bundle a smaller network")


if __name__ == "__main__":
    run(main)
