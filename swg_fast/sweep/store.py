"""A sweep's folder: its files, what is done, and what is being worked on.

    sweep.json            the plan's cells and how to report them
    cells/KEY.json        a finished cell
    failed/KEY.json       the error of a cell or training that failed in the last run
    running/KEY.json      written while a worker has the cell or training
    critics/KEY/          the states and the log of a critic, for all trainings that have the same one
    trainings/KEY/        a training's folder, as 'swg-fast train' leaves it
    report/               what 'swg-fast report' makes
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swg_fast.common.atomic_files import user_path, write_json
from swg_fast.common.errors import UsageError
from swg_fast.common.locks import file_lock
from swg_fast.common.read_files import read_json
from swg_fast.sweep.cells import Cell, Training
from swg_fast.sweep.files import AGAIN, FORMAT, SweepJson, read_finished
from swg_fast.sweep.plan_file import Plan


@dataclass(frozen=True)
class Mark:
    """The worker that has a cell or training, by process and host, ``since`` a time in seconds."""

    what: str
    pid: int
    host: str
    since: float


class Store:
    """The files below ``folder``, a path that must be the same for every worker."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = user_path(folder).absolute()

    def cell(self, key: str) -> Path:
        return self.folder / "cells" / f"{key}.json"

    def failure(self, key: str) -> Path:
        return self.folder / "failed" / f"{key}.json"

    def training(self, key: str) -> Path:
        return self.folder / "trainings" / key

    def critic(self, key: str) -> Path:
        return self.folder / "critics" / key

    def history(self, training: Training) -> dict[str, Any]:
        """The log lines of a training and of its critic, by phase."""
        from swg_fast.training.history import HISTORY, read_history

        return (read_history(self.critic(training.critic_key) / "logs" / HISTORY)
                | read_history(self.training(training.key) / "logs" / HISTORY))

    def trained(self, key: str) -> bool:
        """Whether the training is finished; the policy's card is the last file that it writes."""
        from swg_fast.policy.checkpoint import CARD

        return (self.training(key) / "policy" / CARD).is_file()

    def finished(self, cell: Cell) -> dict[str, Any] | None:
        """The file of a finished cell; None where there is none, or one that is damaged or another cell's:
        the cell is then found again."""
        try:
            value = read_finished(self.cell(cell.key))
        except UsageError:
            return None
        return value if value.get("key") == cell.key else None

    def done(self, cell: Cell) -> bool:
        return self.finished(cell) is not None

    def pending(self, cells: list[Cell]) -> tuple[list[Training], list[Cell]]:
        """The trainings that missing cells need, teachers before their students, and the missing cells."""
        missing = [cell for cell in cells if not self.done(cell)]
        trainings = [cell.training for cell in missing
                     if cell.training and not self.trained(cell.training.key)]
        teachers = [training.teacher for training in trainings if not self.trained(training.teacher.key)]
        return list({training.key: training for training in (*teachers, *trainings)}.values()), missing

    def begin(self, plan: Plan, cells: list[Cell]) -> None:
        """Writes ``sweep.json`` and removes the failures and the marks of an earlier run."""
        from swg_fast.common.provenance import provenance

        write_json(self.folder / "sweep.json", {
            "format": FORMAT, "title": plan.title, "question": plan.question, "run": plan.run,
            "report": plan.report, "provenance": provenance(), "cells": [cell.to_json() for cell in cells]})
        for name in ("failed", "running"):
            for path in (self.folder / name).glob("*.json"):
                path.unlink(missing_ok=True)

    def read(self) -> dict[str, Any]:
        """What `begin` wrote. Raises `UsageError` where the folder is no sweep's."""
        return read_json(self.folder / "sweep.json", SweepJson, AGAIN)

    @contextmanager
    def running(self, key: str, what: str) -> Iterator[None]:
        """Marks a cell or training as being worked on; a killed worker leaves the mark behind."""
        path = self.folder / "running" / f"{key}.json"
        write_json(path, asdict(Mark(what, os.getpid(), socket.gethostname(), time.time())))
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def marks(self) -> dict[str, Mark]:
        """The marks of what is being worked on, by key."""
        found = {}
        for path in (self.folder / "running").glob("*.json"):
            try:
                found[path.stem] = read_json(path, Mark)
            except UsageError:  # removed since it was listed, or damaged
                continue
        return found


def locked(path: Path, wait: bool = False) -> AbstractContextManager[None]:
    """`file_lock` on ``path``, whose folder is made where it is missing.

    Raises `UsageError` where another sweep holds it, unless ``wait``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return file_lock(path, f"{path.parent}: another sweep runs there; wait for it, or choose another --out",
                     wait=wait)


def hash_data(task: str, source: str, trust: Sequence[str] = ()) -> str:
    """A hash of the transitions that ``source`` gives for ``task``; the file's layout does not count."""
    from swg_fast.data.load import load_for

    return load_for(task, source, trust=trust).fingerprint()


def hash_policy(name: str) -> str:
    """A hash of what decides a checkpoint's actions: its weights and its defaults of sampling."""
    from swg_fast.policy.checkpoint import CARD, WEIGHTS, find_checkpoint
    from swg_fast.policy.model_card import read_card

    folder = find_checkpoint(name)
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes())
    digest.update(json.dumps(read_card(folder / CARD).get("sampling"), sort_keys=True).encode())
    return digest.hexdigest()[:16]
