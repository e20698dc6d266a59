"""The command ``swg-fast compare``."""

from __future__ import annotations

from pathlib import Path

import click

from swg_fast.cli.options import PATH


@click.command()
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.option("--json", "json_path", type=PATH, help="Write scores, differences and settings as JSON.")
def compare(a: Path, b: Path, json_path: Path | None) -> None:
    """Set two results side by side: scores, their difference, and the settings that differ.

    A and B are two files of 'swg-fast evaluate --json', or two results.json of 'swg-fast report', whose cells
    are compared where task and axes agree. The difference is B less A, with a 95 % interval: Newcombe's of
    two success rates, else by bootstrap.
    """
    from rich.table import Table

    from swg_fast.common.atomic_files import write_json
    from swg_fast.common.console import show
    from swg_fast.common.output_paths import check_outputs
    from swg_fast.common.provenance import provenance
    from swg_fast.sweep import compare as comparison

    check_outputs(json=json_path)
    found = comparison.compare(a, b)
    if json_path is not None:
        write_json(json_path, {"a": str(a), "b": str(b), **found.to_json(), "provenance": provenance()})
    click.echo(f"A: {a}\nB: {b}")
    scores = Table("cell", "A", "B", "B less A", title=found.pairs[0].a.score_name,
                   title_justify="left")
    for pair in found.pairs:
        scores.add_row(pair.cell, pair.a.text(), pair.b.text(), pair.text())
    show(scores)
    settings = Table("setting", "A", "B", title="what differs", title_justify="left")
    for each in found.differences():
        settings.add_row(each.name, str(each.a), str(each.b))
    show(settings) if settings.rows else click.echo("no setting differs")
    if found.alone:
        click.echo(f"compared with nothing: {'; '.join(found.alone)}")
