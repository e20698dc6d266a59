"""Compares two runs of the suite; each time is in units of the same run's `test_products`.

    python -m benchmarks.compare BASELINE.json NEW.json

Prints each benchmark's time divided by the baseline's; above 1 is slower.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from swg_fast.cli.ending import run
from swg_fast.common.errors import UsageError
from swg_fast.common.read_files import read_json

YARDSTICK = "test_products"


@dataclass(frozen=True)
class Stats:
    """The statistics that are read of a benchmark."""

    median: float


@dataclass(frozen=True)
class Measured:
    """One benchmark."""

    name: str
    stats: Stats


@dataclass(frozen=True)
class Suite:
    """A file of pytest-benchmark."""

    benchmarks: tuple[Measured, ...]


def in_yardsticks(suite: Suite) -> dict[str, float]:
    """Each benchmark's median divided by the yardstick's. Raises `UsageError` if the run has no yardstick."""
    medians = {entry.name: entry.stats.median for entry in suite.benchmarks}
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

    before, after = (in_yardsticks(read_json(path, Suite)) for path in (baseline, new))
    table = Table("benchmark", "baseline, in products", "now, in products", "ratio")
    for name, value in after.items():
        known = before.get(name)
        table.add_row(escape(name), f"{known:.3g}" if known else "-", f"{value:.3g}",
                      f"{value / known:.2f}" if known else "new")
    Console().print(table)


if __name__ == "__main__":
    run(main)
