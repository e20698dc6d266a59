"""What commands print: tables."""

from __future__ import annotations

from typing import Any

LOG_WIDTH = 140  # characters
NARROW = 100  # of what is pasted into a report


def print_table(title: str, rows: list[tuple[str, str]], width: int = LOG_WIDTH, file: Any = None) -> None:
    """A table of names and values, as `show`. Long values are folded, never cut."""
    from rich.table import Table

    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, text)
    show(table, width, file)


def show(table: Any, width: int = LOG_WIDTH, file: Any = None) -> None:
    """A rich table in ``file`` (None: standard output), ``width`` characters wide where that is no terminal.
    Brackets in names are shown as they are, not taken for rich's markup."""
    import sys

    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else width, markup=False, file=file).print(table)
