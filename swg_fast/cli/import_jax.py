"""The command ``swg-fast import-jax``."""

from __future__ import annotations

from pathlib import Path

import click

from swg_fast.cli.options import PATH
from swg_fast.common.optional_packages import check


@click.command("import-jax")
@click.argument("directory", type=PATH)
@click.option("--out", type=PATH, required=True, help="Folder of the checkpoint to write.")
@click.option("--schedule", type=click.Choice(["vp", "cosine", "linear"]), default="vp",
              help="Noise schedule.")
@click.option("--num-steps", type=click.IntRange(min=1), default=15, help="Denoising steps T.")
@click.option("--task", help="D4RL task, for the model card.")
@click.option("--tree", metavar="NAME", help="Which tree of parameters to take, such as target, where a file "
                                             "has several of one kind.")
def import_jax(directory: Path, out: Path, schedule: str, num_steps: int, task: str | None,
               tree: str | None) -> None:
    """Turn SWG-JAX's actor_params_*.msgpack (and critic, value) below DIRECTORY into a checkpoint."""
    check("msgpack", "'swg-fast import-jax'")
    from swg_fast.common.output_paths import check_folder
    from swg_fast.method.schedule import NoiseSchedule
    from swg_fast.policy.checkpoint import save_checkpoint
    from swg_fast.policy.model import Model
    from swg_fast.policy.swg_jax_import import import_directory

    check_folder(out)
    betas = NoiseSchedule.by_name(schedule, num_steps)
    network, critic, value, files = import_directory(directory, tree)
    card = {"task": task, "imported_from": files}
    save_checkpoint(out, Model(network, betas, critic, value, card))
    shape = ", ".join(f"{k} {v}" for k, v in network.config().items())
    click.echo(f"{out}: {' and '.join(files)} imported ({shape})")
