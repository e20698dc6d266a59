"""A run's folder: used by one process at a time, and never overwritten by another run."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from swg_fast.common.atomic_files import sweep, write_json
from swg_fast.common.errors import UsageError
from swg_fast.common.locks import file_lock
from swg_fast.common.output_paths import check_folder, check_output
from swg_fast.common.read_files import read_json
from swg_fast.policy.checkpoint import CARD, WEIGHTS
from swg_fast.training.history import HISTORY, set_aside
from swg_fast.training.run_config import CONFIG, HEADER
from swg_fast.training.settings import TrainSettings

RUN, LOCK = "run.json", ".lock"
FOLDERS = ("states", "logs", "pairs", "policy")
# Of runs, by the command that makes them.
KINDS = {"train": "a training", "distill": "a distillation", "rank": "a training of rankers or critics"}
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)  # what a file system without locks answers


@dataclass(frozen=True)
class RunRecord:
    """What ``run.json`` holds: a run's settings, how many transitions its data have and what stands for them,
    the run's own name, and of which of `KINDS` it is. An older version wrote none of the last three."""

    settings: dict[str, Any]
    transitions: int
    data_hash: str = ""
    id: str = ""
    kind: str = "train"


@contextmanager
def claimed(out: Path, mine: RunRecord, resume: bool) -> Iterator[RunRecord]:
    """Makes ``out`` this run's folder, or checks that it already is, and keeps other processes out while the
    block runs. Removes the files that killed processes left half-written there; a new run gets a history of
    its own. Yields the run's record.

    Raises `UsageError` where ``out`` holds another run or anything that this one would overwrite, or is
    in use. A refused start leaves nothing behind that would block the next.
    """
    check_folder(out)
    _check(out, mine, resume)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        record = _check(out, mine, resume)  # again: another process may have come first
        for folder in (out, *(out / name for name in FOLDERS)):
            sweep(folder)
        if not resume:
            set_aside(out / "logs" / HISTORY)
            write_json(out / RUN, asdict(record))
        yield record


def _check(out: Path, mine: RunRecord, resume: bool) -> RunRecord:
    """The record to train with: ``mine`` with a name, or the one in ``out`` that is resumed."""
    _check_kinds(out)
    path = out / RUN
    if resume:
        if not path.is_file():
            raise UsageError(f"{out}: nothing to resume; leave out --resume to begin")
        theirs = read_record(path, mine.kind)
        names = mine.settings.keys() | theirs.settings.keys()
        changed = sorted(k for k in names if theirs.settings.get(k) != mine.settings.get(k))
        if theirs.transitions != mine.transitions or theirs.data_hash not in ("", mine.data_hash):
            changed.append("another dataset")
        if changed:
            raise UsageError(f"{out}: holds a run with other settings ({', '.join(changed)}); "
                             "resume with the same ones, or choose another --out")
        return theirs
    held = [name for name in ("states", "pairs", "policy") if any((out / name).glob("*"))]
    if path.exists() and held:
        raise UsageError(f"{out}: already holds a run; add --resume to continue it, or choose "
                         "another --out")
    if held:
        raise UsageError(f"{out}: already has a folder {held[0]!r} that no run here has made; choose "
                         "another --out")
    config = out / CONFIG
    headers = tuple(HEADER.format(command=command).encode() for command in KINDS)
    if config.is_file() and not path.exists() and not config.read_bytes().startswith(headers):
        raise UsageError(f"{config}: would be overwritten with the run's own configuration; choose another "
                         "--out")
    return replace(mine, id=uuid4().hex)


def _check_kinds(out: Path) -> None:
    """`UsageError` where a part of ``out`` is of the wrong kind or may not be written, which would otherwise
    show when it is first written: the policy, after the whole training."""
    for name in FOLDERS:
        if (out / name).exists() or (out / name).is_symlink():
            check_folder(out / name)
    for path in (out / RUN, out / CONFIG, out / LOCK, out / "logs" / HISTORY, out / "policy" / WEIGHTS,
                 out / "policy" / CARD):
        if path.exists() or path.is_symlink():
            check_output(path)


def read_record(path: Path, kind: str | None = "train") -> RunRecord:
    """The record in ``path``, a run's ``run.json``. `UsageError` where it is another kind of file, or a run
    of another ``kind`` (None: any)."""
    record = read_json(path, RunRecord, "this is not the record of a run; choose another folder")
    if kind is not None and record.kind != kind:
        what = KINDS.get(record.kind, f"a run of kind {record.kind!r}")
        raise UsageError(f"{path.parent}: holds {what}, expected {KINDS[kind]}; give another folder")
    if record.kind == "distill":
        return record
    # A setting that is newer than the run had its default.
    return replace(record, settings=TrainSettings().to_dict() | record.settings)


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
