"""The records of a sweep's own sections: [run] and [rank]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from swg_fast.common.checks import MAX_SEED, number
from swg_fast.common.errors import UsageError, opened_by
from swg_fast.common.hardware import max_threads
from swg_fast.common.settings_fields import check_fields, check_named, like, setting
from swg_fast.envs.settings import EnvSettings
from swg_fast.evaluation.counts import MOST_DRAWN
from swg_fast.training.settings import MOST_STEPS

LEAST_SHARE, MOST_DEVICES = 1e-3, 4096  # of a CPU or a GPU for a cell
Record = TypeVar("Record")


def _devices(name: str, value: Any) -> float:
    """A number of devices that Ray can give: a share of one, or a whole number."""
    found = number(name, value, 0, MOST_DEVICES)
    if 0 < found < LEAST_SHARE or (found > 1 and found % 1):
        raise UsageError(f"{name} must be a share from {LEAST_SHARE:g} on or a whole number, got {value}")
    return int(found) if found == int(found) else found


def _cpus(name: str, value: Any) -> float:
    number(name, value, above=0)
    return _devices(name, value)


@dataclass(frozen=True)
class RunSettings:
    """A [run] section: the resources of a cell, how often Ray retries after a worker was killed, whose code
    may run, and the steps between a training's saved states and between its log lines. A cell has a thread
    for each of its CPUs unless ``threads`` says otherwise."""

    cpus: Any = setting(1, "CPUs of a cell, or a share of one.", check=_cpus)
    gpus: Any = setting(0, "GPUs of a cell, or a share of one.", check=_devices)
    threads: int | None = setting(None, "torch's threads. Left out: one a CPU.", min=1, top=max_threads())
    retries: int = setting(3, "How often a worker that was killed is tried again.", min=0, top=1000)
    save_every: int = setting(2000, "Training steps between two saved states.", min=1, top=MOST_STEPS)
    trust: tuple[str, ...] = like(EnvSettings, "trust", ())
    log_every: int = setting(500, "Training steps between two log lines.", min=1, top=MOST_STEPS)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.threads is None:
            object.__setattr__(self, "threads", max(1, int(self.cpus)))

    @property
    def device(self) -> str:
        """Where a cell computes: on its GPU, else on the CPU."""
        return "cuda" if self.gpus > 0 else "cpu"


@dataclass(frozen=True)
class RankSettings:
    """A [rank] section: how many held-out states, with how many candidates each."""

    states: int = setting(64, "Held-out states.", min=1, top=2**16)
    candidates: int = setting(128, "Candidates of each.", min=2, top=MOST_DRAWN)
    seed: int = setting(0, "Chooses the states, and seeds their candidates.", min=0, top=MAX_SEED)

    def __post_init__(self) -> None:
        check_fields(self)


def section(name: str, record: type[Record], chosen: Mapping[str, Any]) -> Record:
    """A sweep's section ``name`` as its record. `UsageError`, which names the section, for a setting that it
    does not have or a value out of range."""
    with opened_by(f"[{name}]"):
        return record(**check_named([record], chosen, "setting"))
