"""The command ``swg-fast rank``. Its options are made from the settings' fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field
from typing import Any

import click

from swg_fast.cli.options import own_default, with_options


def _entries() -> Iterator[tuple[Field, str]]:
    """The settings that may be chosen; of the critic's steps and the seed the default is the policy's."""
    from swg_fast.training.rank import rank_fields

    for name, entry in rank_fields().items():
        yield entry, "the policy's" if name in ("critic_steps", "seed") else own_default(entry)


@click.command(cls=with_options(_entries))
@click.argument("policy", metavar="POLICY_OR_RUN")
@click.option("--out", help="Folder of the run.  [default: runs/NAME-ranked]")
@click.option("--resume", is_flag=True, help="Continue the run in --out.")
@click.option("--stop-after", type=click.IntRange(min=1),
              help="Stop (resumably) after this many steps of a phase.")
def rank(policy: str, out: str | None, resume: bool, stop_after: int | None, **chosen: Any) -> None:
    """Add rankers, critics or a fitted temperature to POLICY_OR_RUN, to rank candidates by.

    They learn from the policy's data with the settings of its training; its diffusion is not trained again.
    The new policy goes to OUT/policy. It ranks as before until it is told otherwise, by --select lcb_weight,
    --select lcb_q, or --select softmax --selection-temperature auto.

    \b
      swg-fast rank hopper-medium-v2 --dataset FILE --rankers 5 --critics 5 --critic-steps 100000
    """
    from swg_fast.common.progress import say
    from swg_fast.training import rank as training

    new = training.rank(policy, out=out, resume=resume, stop_after=stop_after, **chosen)
    folder = training.folder_for(policy, out) / "policy"
    options = "lcb_weight" if new.model.ranker is not None else "lcb_q"
    if new.model.ranker is None and new.model.critics is None:
        options = "softmax --selection-temperature auto"
    say(f"policy: {folder}\ntry it: swg-fast evaluate {new.card.get('task', 'TASK')} --policy {folder} "
        f"--select {options}")
