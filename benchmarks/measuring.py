"""Shared parts of the measuring scripts: options, and JSON results that grow cell by cell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from swg_fast.common.atomic_files import write_json
from swg_fast.common.console import versions
from swg_fast.common.hardware import set_threads
from swg_fast.common.read_files import read_json

ROOT = Path(__file__).parents[1]


class Several(click.ParamType):
    """Values separated by commas, as a list: "1,16" is [1, 16]."""

    name = "numbers"

    def __init__(self, kind: Callable[[str], Any] = int) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[Any]:
        try:
            return value if isinstance(value, list) else [self.kind(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r}: give numbers such as 1,16", param, ctx)


def _use_threads(ctx: click.Context, param: click.Parameter, count: int | None) -> None:
    if count:
        set_threads(count)


policy_option = click.option("--policy", "policy_name",
                             help="Checkpoint folder or bundled name.  [default: TASK]")
threads_option = click.option("--threads", type=int, help="CPU threads of torch.  [default: all]",
                              expose_value=False, callback=_use_threads)


def recorded(path: Path, start: dict[str, Any]) -> dict[str, Any]:
    """The JSON of an earlier run at ``path``, or ``start`` if there is none."""
    return read_json(path) if path.exists() else start


def save(path: Path, found: dict[str, Any]) -> None:
    """Writes ``found`` as JSON, with the versions of the software that measured it."""
    write_json(path, found | {"versions": versions()})
