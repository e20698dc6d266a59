"""A run's folder: taken by one process at a time, and never from another run."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from swg_fast.common.atomic_files import read_json, sweep, write_json
from swg_fast.common.errors import UsageError
from swg_fast.common.locks import file_lock
from swg_fast.common.output_paths import check_folder
from swg_fast.training.run_config import CONFIG, HEADER
from swg_fast.training.settings import TrainSettings

RUN, LOCK = "run.json", ".lock"
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)  # what a file system without locks answers


@contextmanager
def claimed(out: Path, settings: TrainSettings, rows: int, resume: bool) -> Iterator[None]:
    """Makes ``out`` this run's folder, or checks that it already is, and keeps it from other processes
    while the block runs. What killed processes left half-written there is swept.

    Raises `UsageError` where ``out`` holds another run or anything that this one would overwrite, or is
    in use. A refused start leaves nothing behind that would block the next.
    """
    mine = {"settings": settings.to_dict(), "transitions": rows}
    _check(out, mine, resume)
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        _check(out, mine, resume)  # again: another process may have come first
        for folder in (out, out / "states", out / "policy"):
            sweep(folder)
        if not resume:
            write_json(out / RUN, mine)
        yield


def _check(out: Path, mine: dict[str, Any], resume: bool) -> None:
    path = out / RUN
    if resume:
        if not path.is_file():
            raise UsageError(f"{out}: nothing to resume; leave out --resume to begin")
        settings, rows = recorded_settings(path)
        if {"settings": settings, "transitions": rows} != mine:
            changed = [k for k, v in mine["settings"].items() if settings.get(k) != v]
            raise UsageError(f"{out}: holds a run with other settings "
                             f"({', '.join(changed) or 'another dataset'}); "
                             "resume with the same ones, or choose another --out")
        return
    held = [name for name in ("states", "policy") if any((out / name).glob("*"))]
    if path.exists() and held:
        raise UsageError(f"{out}: already holds a run; add --resume to go on with it, or choose "
                         "another --out")
    if held:
        raise UsageError(f"{out}: already has a folder {held[0]!r}, of no run that is known here; choose "
                         "another --out")
    config = out / CONFIG
    if config.is_file() and not path.exists() and not config.read_bytes().startswith(HEADER.encode()):
        raise UsageError(f"{config}: would be overwritten with the run's own configuration; choose another "
                         "--out")


def recorded_settings(path: Path) -> tuple[dict[str, Any], Any]:
    """The settings of a run's ``run.json``, and how many transitions it has. `UsageError` where the file is
    another."""
    record = read_json(path)
    settings = record.get("settings") if isinstance(record, dict) else None
    if not isinstance(settings, dict):
        raise UsageError(f"{path}: not the record of a run; choose another folder")
    # What it did not know, it left at its default.
    return TrainSettings().to_dict() | settings, record.get("transitions")


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keeps other processes from training in ``out`` while the block runs, if its file system has locks."""
    busy = f"{out}: another process is training there; wait for it, or choose another --out"
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(out / LOCK, busy))
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
