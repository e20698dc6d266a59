"""The command ``swg-fast toy``. Its options are made from `evaluation.toy.ToySettings`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click

from swg_fast.cli.options import PATH, own_default, whole_numbers, with_options


def _entries() -> Iterator[tuple[Field, str]]:
    from swg_fast.evaluation.toy import ToySettings

    for entry in fields(ToySettings):
        yield entry, own_default(entry)


@click.command(cls=with_options(_entries))
@click.argument("name", metavar="spiral|gaussians8|checkerboard|two-moons|rings|swissroll")
@click.option("--sampler-steps", help="Steps that a solver walks, one number or several: 4,6,15.  "
                                      "[default: all]")
@click.option("--json", "json_path", type=PATH, help="Write the distances as JSON.")
@click.option("--plot", "plot_path", type=PATH, help="Draw data, target and samples.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def toy(name: str, sampler_steps: str | None, json_path: Path | None, plot_path: Path | None, quiet: bool,
        **chosen: Any) -> None:
    """Check the guidance on 2D data of known weights: do samples follow p(x) w(x)?"""
    from dataclasses import asdict

    from swg_fast.common.atomic_files import write_json
    from swg_fast.common.console import print_table
    from swg_fast.common.output_paths import check_outputs
    from swg_fast.common.provenance import provenance
    from swg_fast.evaluation.toy import ToySettings, plot_toy, run_toy

    check_outputs(json=json_path, plot=plot_path)
    if sampler_steps is not None:
        chosen["sampler_steps"] = whole_numbers(sampler_steps, "--sampler-steps")
    settings = ToySettings(**{key: value for key, value in chosen.items() if value is not None})
    result = run_toy(name, settings, progress=not quiet)
    if json_path is not None:
        write_json(json_path, {"data": name, "settings": asdict(settings),
                               "distances": result.distances, "distances_by_steps": result.by_steps,
                               "provenance": provenance()})
    for count, d in result.by_steps.items():
        print_table(f"{name}: sliced Wasserstein distances, {settings.sampler} in {count} steps", [
            ("guided samples to the target", f"{d['guided_to_target']:.4f}"),
            ("unguided samples to the target", f"{d['unguided_to_target']:.4f}"),
            ("unguided samples to the data", f"{d['unguided_to_data']:.4f}"),
            ("floor: two draws of the target", f"{d['floor']:.4f}")])
    if plot_path is not None:
        plot_toy(name, result, plot_path)
        click.echo(f"picture: {plot_path}")
