"""A run's folder: used by one process at a time, and never overwritten by another run."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swg_fast.common.atomic_files import sweep, write_json
from swg_fast.common.errors import UsageError
from swg_fast.common.locks import file_lock
from swg_fast.common.output_paths import check_folder
from swg_fast.common.read_files import read_json
from swg_fast.training.run_config import CONFIG, HEADER
from swg_fast.training.settings import TrainSettings

RUN, LOCK = "run.json", ".lock"
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)  # what a file system without locks answers


@dataclass(frozen=True)
class RunRecord:
    """What ``run.json`` holds: a run's settings, and how many transitions its data have."""

    settings: dict[str, Any]
    transitions: int


@contextmanager
def claimed(out: Path, settings: TrainSettings, rows: int, resume: bool) -> Iterator[None]:
    """Makes ``out`` this run's folder, or checks that it already is, and keeps other processes out while the
    block runs. Removes the files that killed processes left half-written there.

    Raises `UsageError` where ``out`` holds another run or anything that this one would overwrite, or is
    in use. A refused start leaves nothing behind that would block the next.
    """
    mine = RunRecord(settings.to_dict(), rows)
    _check(out, mine, resume)
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        _check(out, mine, resume)  # again: another process may have come first
        for folder in (out, out / "states", out / "policy"):
            sweep(folder)
        if not resume:
            write_json(out / RUN, asdict(mine))
        yield


def _check(out: Path, mine: RunRecord, resume: bool) -> None:
    path = out / RUN
    if resume:
        if not path.is_file():
            raise UsageError(f"{out}: nothing to resume; leave out --resume to begin")
        theirs = read_record(path)
        if theirs != mine:
            changed = [k for k, v in mine.settings.items() if theirs.settings.get(k) != v]
            raise UsageError(f"{out}: holds a run with other settings "
                             f"({', '.join(changed) or 'another dataset'}); "
                             "resume with the same ones, or choose another --out")
        return
    held = [name for name in ("states", "policy") if any((out / name).glob("*"))]
    if path.exists() and held:
        raise UsageError(f"{out}: already holds a run; add --resume to continue it, or choose "
                         "another --out")
    if held:
        raise UsageError(f"{out}: already has a folder {held[0]!r} that no run here has made; choose "
                         "another --out")
    config = out / CONFIG
    if config.is_file() and not path.exists() and not config.read_bytes().startswith(HEADER.encode()):
        raise UsageError(f"{config}: would be overwritten with the run's own configuration; choose another "
                         "--out")


def read_record(path: Path) -> RunRecord:
    """The record in ``path``, a run's ``run.json``. `UsageError` where it is another kind of file."""
    record = read_json(path)
    settings = record.get("settings") if isinstance(record, dict) else None
    if not isinstance(settings, dict):
        raise UsageError(f"{path}: not the record of a run; choose another folder")
    # A setting that is newer than the run had its default.
    return RunRecord(TrainSettings().to_dict() | settings, record.get("transitions"))


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
