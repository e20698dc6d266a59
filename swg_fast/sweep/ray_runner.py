"""A sweep on Ray, which decides where and when cells run and retries those whose worker was killed."""

from __future__ import annotations

import os
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from swg_fast.common import interrupts
from swg_fast.common.atomic_files import write_json
from swg_fast.common.errors import UsageError
from swg_fast.common.provenance import command_line
from swg_fast.sweep import worker
from swg_fast.sweep.cells import Cell, Training
from swg_fast.sweep.ray_start import check_alive
from swg_fast.sweep.settings import RunSettings
from swg_fast.sweep.store import Store


@dataclass(frozen=True)
class Outcome:
    """The result of a training or cell, or its error in one line."""

    item: Training | Cell
    result: dict[str, Any] | None = None
    error: str | None = None


def slots(ray: Any, run: RunSettings) -> int:
    """How many cells run at once. Raises `UsageError` where none fits: Ray would wait for ever."""
    have = ray.cluster_resources()
    found = []
    for name, label in (("cpus", "CPU"), ("gpus", "GPU")):
        if (each := getattr(run, name)) > 0:
            per_node = max((n["Resources"].get(label, 0) for n in ray.nodes() if n["Alive"]), default=0)
            check_fit(name, each, per_node)
            found.append(_fitting(have.get(label, 0), each, shared=name == "gpus"))
    return max(1, min(found))


def slots_here(run: RunSettings, cpus: int) -> int:
    """How many cells ``cpus`` of this machine, and its GPUs where they compute there, run at once."""
    found = [_fitting(cpus, run.cpus, shared=False)]
    if run.gpus > 0:
        import torch

        found.append(_fitting(torch.cuda.device_count(), run.gpus, shared=True))
    return max(1, min(found))


def check_fit(name: str, each: float, most: float) -> None:
    """`UsageError` where a cell asks for ``each`` CPUs or GPUs and the largest machine has ``most``."""
    if each > most:
        raise UsageError(f"a cell asks for {each} {name[:-1].upper()}(s) and no machine has more than "
                         f"{most:g}; set run.{name}")


def _fitting(have: float, each: float, shared: bool) -> int:
    """How many shares of ``each`` fit on ``have`` devices; a share of ``shared`` devices lies on one."""
    if shared and each < 1:
        return int(have) * int(1 / each + 1e-9)  # not 1 // 0.2, which is 4
    return int(have / each + 1e-9)


def run_all(ray: Any, store: Store, trainings: list[Training], cells: list[Cell], run: RunSettings,
            tell: Callable[[Outcome | None], None]) -> list[Outcome]:
    """Runs ``trainings`` and ``cells`` and returns their outcomes. A cell waits for its training, whose
    outcome is one of its arguments. ``tell`` is called with every outcome, and with None about once a second.

    Raises `interrupts.Stopped` after a signal.
    """
    options = {"num_cpus": run.cpus, "num_gpus": run.gpus, "max_retries": run.retries}
    train = ray.remote(**options)(_train)
    find = ray.remote(**options)(_find)
    folder, command = str(store.folder), command_line()
    needed: dict[str, Any] = {}
    # A student waits for its teacher, so it comes after it.
    for training in sorted(spread(trainings), key=lambda each: bool(each.distill)):
        teacher = needed.get(training.teacher.key) if training.distill else None
        needed[training.key] = train.remote(training, folder, run, teacher)
    waiting: dict[Any, Training | Cell] = {needed[training.key]: training for training in trainings}
    for cell in cells:
        training = needed.get(cell.training.key) if cell.training else None
        waiting[find.remote(cell, folder, run, command, training)] = cell
    outcomes = []
    with interrupts.deferred() as asked:  # inside Ray's calls every signal would look like Ctrl-C
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=1.0)
            if number := asked():
                raise interrupts.Stopped(number)
            check_alive(ray)
            for reference in ready:
                item = waiting.pop(reference)
                outcome = _outcome(ray, reference, item, run)
                if outcome.error:
                    kind = "training" if isinstance(item, Training) else "cell"
                    write_json(store.failure(item.key), {"kind": kind, "error": outcome.error})
                outcomes.append(outcome)
                tell(outcome)
            tell(None)
    return outcomes


def spread(trainings: list[Training]) -> list[Training]:
    """The trainings in an order in which those that share a critic, and wait for it, are far apart."""
    before: Counter[str] = Counter()
    turns = []
    for training in trainings:
        turns.append(before[training.critic_key])
        before[training.critic_key] += 1
    return [training for _, training in sorted(zip(turns, trainings, strict=True), key=lambda pair: pair[0])]


def _outcome(ray: Any, reference: Any, item: Training | Cell, run: RunSettings) -> Outcome:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        return Outcome(item, error=f"its worker died and so did {run.retries} after it "
                                   f"({lines[0] if lines else type(error).__name__})")


def _train(training: Training, folder: str, run: RunSettings, teacher: Outcome | None) -> Outcome:
    """Ray's task for a training, a student's after its teacher's."""
    if teacher and teacher.error:
        return Outcome(training, error=f"its teacher's training failed: {teacher.error}")
    return _guarded(training, lambda: worker.run_training(training, Store(folder), run))


def _find(cell: Cell, folder: str, run: RunSettings, command: str, training: Outcome | None) -> Outcome:
    """Ray's task for a cell, after its training."""
    if training and training.error:
        return Outcome(cell, error=f"its training failed: {training.error}")
    return _guarded(cell, lambda: worker.run_cell(cell, Store(folder), run, command))


def _guarded(item: Training | Cell, job: Callable[[], dict[str, Any] | None]) -> Outcome:
    """Runs ``job``. Ray retries a task that raises, so an error is returned: a retry would not mend it."""
    try:
        return Outcome(item, job())
    except UsageError as error:
        return Outcome(item, error=str(error))
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        line = (str(error).strip().splitlines() or [""])[0]
        return Outcome(item, error=f"{type(error).__name__}: {line} "
                                   f"({os.path.basename(at.filename)}:{at.lineno})")
