"""Shared parts of the measuring scripts: options, and JSON results that grow cell by cell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from swg_fast.common.atomic_files import write_json
from swg_fast.common.hardware import set_threads
from swg_fast.common.output_paths import check_output
from swg_fast.common.provenance import provenance
from swg_fast.common.read_files import is_file, read_json, validated

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


def read_result(path: Path, kind: Any) -> Any:
    """The JSON of an earlier run at ``path``, as it stands: it may have more than ``kind`` says. `UsageError`
    where it does not have that."""
    found = read_json(path)
    validated(found, kind, str(path), "another script wrote it, so give another file")
    return found


def recorded(path: Path, start: dict[str, Any], kind: Any) -> dict[str, Any]:
    """`read_result`, or ``start`` if there is no file. `UsageError` where none can be written, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    check_output(path)
    return read_result(path, kind) if is_file(path) else start


def save(path: Path, found: dict[str, Any], device: torch.device | str = "cpu", data_hash: str | None = None
         ) -> None:
    """Writes ``found`` as JSON, with its provenance. A file that grows keeps the hash of data that an earlier
    part read."""
    data_hash = data_hash or found.get("provenance", {}).get("data_hash")
    found["provenance"] = provenance(device, data_hash)
    write_json(path, found)
