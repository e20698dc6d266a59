"""The command ``swg-fast export``. Its options of sampling are made from `policy.sampling`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click

from swg_fast.cli.options import PATH, with_options
from swg_fast.policy.export_names import FORMATS, TAKES
from swg_fast.policy.sampling import PRESETS, SamplingConfig


def _entries() -> Iterator[tuple[Field, str]]:
    for entry in fields(SamplingConfig):
        yield entry, "the policy's"


@click.command(cls=with_options(_entries))
@click.argument("policy_name", metavar="POLICY")
@click.option("--out", type=PATH, required=True, help="The file to write.")
@click.option("--format", "kind", type=click.Choice(FORMATS), default="onnx",
              help="onnx, for any ONNX runtime, or torch, for torch.export.load.")
@click.option("--takes", type=click.Choice(TAKES), default="noise",
              help="What the graph is given beside the state: its noise, or a seed that it draws it from.")
@click.option("--preset", type=click.Choice(list(PRESETS)), help="Sampling settings by one name; those given "
              "below win.")
def export(policy_name: str, out: Path, kind: str, takes: str, preset: str | None, **settings: Any) -> None:
    """Write the decision of POLICY, a folder or a bundled name, as one graph that runs without swg-fast.

    Settings that have no graph are refused by name: a ranking by draws or by a draw, a tree, a kept share,
    a student's candidates that its teacher finishes.
    """
    from swg_fast.common.output_paths import check_outputs
    from swg_fast.policy.policy import load_policy

    check_outputs(out=out)
    load_policy(policy_name).export(out, preset, format=kind, takes=takes, **settings)
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
