"""How to sample where nobody says: one rule for Python, the command line and model cards.

What a call names wins; then the policy's own default (``card["sampling"]``, or ``Policy(defaults=...)``);
then the value below. To add a setting: its line in `Sampling`, and a keyword of that name, None by
default, in `Policy.sample`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from swg_fast.common.checks import check_sampling
from swg_fast.common.errors import UsageError
from swg_fast.method.samplers import DETERMINISTIC


@dataclass(frozen=True)
class Sampling:
    """The settings that a policy may have defaults for."""

    n_candidates: int = 16  # N, drawn for each state; one is kept
    guidance_scale: float = 1.0  # rho of Algorithm 2; 0 is unguided
    temperature: float = 1.0  # scale of the noise of several candidates; one alone is drawn at 0
    select: str = "max_weight"  # which candidate is kept
    sampler: str = "ddpm"  # Algorithm 2, or a solver
    sampler_steps: int | None = None  # of the trained ones; None walks all
    leaves: int | str = 1  # candidates that share a root's first steps; auto is `auto_leaves`
    branch_after: int | None = None  # how many steps they share; None is four fifths
    keep_share: float = 1.0  # of the candidates, by expected weight, that one is selected from
    ranking: str = "draws"  # where an expected weight comes from: draws, ranker or read
    ranking_draws: int = 8  # forward passes that estimate an expected weight
    ranking_step: int | None = None  # the trained step to which they noise an action; None is T // 5
    ranking_mean: float | None = None  # of the training weights; None is what the card records
    guidance: str | None = None  # of a family of weight functions; None is the middle of its first one
    dtype: str = "auto"  # compute type; auto is the fastest that this machine has


def sampling_defaults(own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All of `Sampling` by name, with a policy's ``own`` values in place.

    Raises `UsageError` for a name that is no default, or a value of the wrong kind.
    """
    own = {} if own is None else own
    if not isinstance(own, Mapping):
        raise UsageError(f"sampling defaults are {type(own).__name__}, expected names and values such as "
                         '{"n_candidates": 64}')
    known = [field.name for field in fields(Sampling)]
    unknown = [str(name) for name in own if name not in known]
    if unknown:
        raise UsageError(f"unknown sampling default {unknown[0]!r}; use one of {', '.join(known)}")
    base = asdict(Sampling())
    empty = [name for name, value in own.items() if value is None and base[name] is not None]
    if empty:
        raise UsageError(f"sampling default {empty[0]!r} has no value; give one, or leave it out")
    given = {name: value for name, value in own.items() if value is not None}
    return base | check_sampling(given, "sampling defaults")


def sampling_settings(defaults: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """``defaults`` with what was ``chosen`` (not None) in place.

    One candidate is drawn at temperature 0, the paper's plain SWG, unless a temperature was chosen.
    A sampler that was chosen walks all steps unless their number was chosen too. A tree that is only a
    default gives way to a choice that it does not fit.
    """
    if chosen.get("sampler") is not None:
        defaults = dict(defaults) | {"sampler_steps": None}
    if chosen.get("leaves") is not None:
        defaults = dict(defaults) | {"branch_after": None}
    settings = dict(defaults) | {name: value for name, value in chosen.items() if value is not None}
    if settings["leaves"] == "auto" and chosen.get("branch_after") is not None:
        raise UsageError(f"branch_after={chosen['branch_after']} needs a number of leaves; leaves='auto' "
                         "picks both")
    if settings["n_candidates"] == 1 and chosen.get("temperature") is None:
        settings["temperature"] = 0.0
    if settings["leaves"] == "auto":
        settings |= {"leaves": auto_leaves(settings), "branch_after": None}
    if chosen.get("leaves") is None and not _tree_fits(settings):
        settings |= {"leaves": 1, "branch_after": chosen.get("branch_after")}
    return settings


def auto_leaves(settings: Mapping[str, Any]) -> int:
    """What ``leaves="auto"`` picks: 16 from 256 candidates on, else 1.

    There a tree took a half (256) and a third (1,024) of the time and kept as good a candidate by the critic
    of another seed (`benchmarks/results/decisions-umaze.json`, contenders ours and tree); with 64 it
    saved less, and what it kept was behind.
    """
    fits = settings["n_candidates"] >= 256 and _tree_fits(dict(settings) | {"leaves": 16})
    steps = settings["sampler_steps"]
    return 16 if fits and (steps is None or steps >= 3) else 1


def _tree_fits(settings: Mapping[str, Any]) -> bool:
    whole_roots = settings["n_candidates"] % settings["leaves"] == 0
    return whole_roots and settings["temperature"] != 0 and settings["sampler"] not in DETERMINISTIC
