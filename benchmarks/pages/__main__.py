"""Makes every table and sentence of README.md and docs/ that quotes recorded figures.

    python -m benchmarks.pages [--check]

The figures come from benchmarks/results, experiments/results and the bundled policies' cards.
"""

from __future__ import annotations

import difflib

import click

from benchmarks.pages import figures, gpu, mazes, scale, tables  # noqa: F401 (their blocks register)
from benchmarks.pages.blocks import ROOT, filled
from swg_fast.cli.ending import run
from swg_fast.common.atomic_files import replacing

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))


def difference() -> str:
    """A unified diff from the pages to their text with the recorded figures."""
    lines: list[str] = []
    for page in PAGES:
        old, name = page.read_text(), str(page.relative_to(ROOT))
        lines += difflib.unified_diff(old.splitlines(), filled(old).splitlines(), name, name, lineterm="")
    return "\n".join(lines)


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; print what would change and exit with 1.")
def main(check: bool) -> None:
    """Makes the pages' blocks from the recorded figures."""
    found = difference()
    click.echo(found or "every page has the recorded figures")
    if check and found:
        raise SystemExit(1)
    for page in () if check else PAGES:
        with replacing(page) as temporary:
            temporary.write_text(filled(page.read_text()))


if __name__ == "__main__":
    run(main)
