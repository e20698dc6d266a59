"""Adds a trained policy to the bundled ones: half precision, without the value network.

    python -m benchmarks.bundle RUN/policy antmaze-umaze-v2

Only training needs the value network. The whole of `swg_fast/policy/bundled/NAME` is replaced; a bundled
policy has at most 4,000,000 bytes, and its student, if it has one, 2,000,000 more.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import click

from swg_fast.cli.ending import run
from swg_fast.envs.tasks import find_preset
from swg_fast.policy.checkpoint import WEIGHTS, load_checkpoint, save_checkpoint

BUNDLED = Path(__file__).parents[1] / "swg_fast" / "policy" / "bundled"
MOST_BYTES, STUDENT_BYTES = 4_000_000, 2_000_000


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("name")
@click.option("--candidates", type=int, help="Candidates that it draws by default.  [default: as before]")
@click.option("--folder", type=click.Path(path_type=Path), default=BUNDLED, show_default=True)
def main(checkpoint: Path, name: str, candidates: int | None, folder: Path) -> None:
    """Bundles CHECKPOINT, which 'swg-fast train' or 'swg-fast distill' wrote, as NAME, a D4RL task."""
    find_preset(name)
    policy = replace(load_checkpoint(checkpoint), value=None)
    again = re.sub(r"(--dataset|--out) \S+", r"\1 FILE", str(policy.card["make_it_again"]))
    policy = policy.with_card(make_it_again=again.replace("--out FILE", "--out FOLDER"))
    if candidates is not None:
        sampling = policy.card["sampling"] | {"n_candidates": candidates}
        policy = policy.with_card(sampling=sampling)
    folder = save_checkpoint(folder / name, policy, dtype="fp16")
    student = sum(2 * p.numel() for p in policy.student.parameters()) if policy.student is not None else 0
    size = (folder / WEIGHTS).stat().st_size - student
    click.echo(f"{folder}: {size:,} bytes, its student {student:,}")
    if size > MOST_BYTES or student > STUDENT_BYTES:
        raise click.ClickException(f"more than {MOST_BYTES:,} bytes, or a student of more than "
                                   f"{STUDENT_BYTES:,}; bundle smaller networks")


if __name__ == "__main__":
    run(main)
