"""The numbers of an evaluation beside its sampling: how many episodes, from which seeds, how many at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swg_fast.common.checks import MAX_SEED, shown, whole
from swg_fast.common.errors import UsageError
from swg_fast.common.hardware import max_threads
from swg_fast.common.settings_fields import check_fields, setting
from swg_fast.envs.settings import STATE_STRIDE
from swg_fast.policy.sampling import SamplingConfig

MAX_ENVS = 4096  # each is a simulation in memory
MAX_SEEDS = 1000  # of one evaluation
MOST_DRAWN = 2**24  # candidates of a state: seconds a step on the fastest GPU


def _seeds(name: str, value: Any) -> tuple[int, ...]:
    """One seed, or several, as a tuple."""
    several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not 1 <= len(several) <= MAX_SEEDS:
        raise UsageError(f"{name} must be one seed or up to {MAX_SEEDS:,}, got {len(several):,}")
    seeds = tuple(whole(name, one, 0, MAX_SEED) for one in several)
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"{name} must be one or more different seeds, got {shown(list(seeds))}")
    return seeds


@dataclass(frozen=True)
class EpisodeCounts:
    """The numbers of an evaluation beside its sampling. ``seed`` becomes a tuple."""

    episodes: int = setting(10, "Episodes a seed.", min=1, top=STATE_STRIDE - 1)
    seed: Any = setting(0, "Seed of everything random, or several.", check=_seeds)
    envs: int | None = setting(None, "Environments at once. Left out: up to 64.", min=1, top=MAX_ENVS)
    workers: int | None = setting(None, "Worker processes. Left out: one a core.", min=1, top=max_threads())

    def __post_init__(self) -> None:
        check_fields(self)


def check_drawn(config: SamplingConfig) -> None:
    """`UsageError` for more candidates of a state than an evaluation, which draws at every step, can wait
    for."""
    whole("n_candidates of an evaluation", config.n_candidates, 1, MOST_DRAWN)
