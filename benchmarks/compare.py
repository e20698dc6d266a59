"""Compares two runs of the suite; each time is in units of the same run's `test_products`.

    python -m benchmarks.compare BASELINE.json NEW.json

Prints each benchmark's time divided by the baseline's; above 1 is slower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from swg_fast.cli.ending import run
from swg_fast.common.atomic_files import read_json
from swg_fast.common.errors import UsageError

YARDSTICK = "test_products"


def in_yardsticks(measured: dict[str, Any]) -> dict[str, float]:
    """Each benchmark's median divided by the yardstick's. Raises `UsageError` if the run has no yardstick."""
    medians = {entry["name"]: entry["stats"]["median"] for entry in measured["benchmarks"]}
    if YARDSTICK not in medians:
        raise UsageError(f"the run has no {YARDSTICK}; run the whole of benchmarks/test_suite.py")
    return {name: median / medians[YARDSTICK] for name, median in medians.items()}


@click.command()
@click.argument("baseline", type=Path)
@click.argument("new", type=Path)
def main(baseline: Path, new: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    before, after = in_yardsticks(read_json(baseline)), in_yardsticks(read_json(new))
    table = Table("benchmark", "baseline, in products", "now, in products", "ratio")
    for name, value in after.items():
        known = before.get(name)
        table.add_row(escape(name), f"{known:.3g}" if known else "-", f"{value:.3g}",
                      f"{value / known:.2f}" if known else "new")
    Console().print(table)


if __name__ == "__main__":
    run(main)
