"""What commands print: tables, and the versions that a result names."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

LOG_WIDTH = 140  # characters
NARROW = 100  # of what is pasted into a report


def versions() -> dict[str, str]:
    """Versions of what decides a result, by package."""
    found = {"python": platform.python_version()}
    for name in ("swg-fast", "torch", "triton", "numpy", "d4rl", "gym", "gymnasium", "mujoco"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def print_table(title: str, rows: list[tuple[str, str]], width: int = LOG_WIDTH) -> None:
    """A table of names and values on standard output, as `show`. Long values are folded, never cut."""
    from rich.table import Table

    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, text)
    show(table, width)


def show(table: Any, width: int = LOG_WIDTH) -> None:
    """A rich table on standard output, ``width`` characters wide where that is no terminal. Brackets in names
    are shown as they are, not taken for rich's markup."""
    import sys

    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else width, markup=False).print(table)
