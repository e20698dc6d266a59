"""Checks of what a caller hands over: a value of the right type and range, or one clear line.

A new keyword of `Policy.sample` gets its line in `SAMPLING`; `check_sampling` then checks it wherever
it may come from: a call, the command line, a checkpoint's card.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from swg_fast.common.errors import UsageError

MAX_CANDIDATES = 2**32  # the noise's candidate and state words have 32 bits
MAX_SEED = 2**64 - 1
MAX_SCALE = 1e6  # of guidance and temperature: far beyond any use, far below float32's end
WORD = 2**32


def whole(name: str, value: Any, low: int, high: int) -> int:
    """``value`` as an int in low..high."""
    try:
        if isinstance(value, bool):
            raise TypeError
        found = operator.index(value)
    except TypeError:
        raise UsageError(f"{name} must be a whole number, got {shown(value)}") from None
    if found < low:
        raise UsageError(f"{name} must be at least {low}, got {shown(found)}")
    if found > high:
        raise UsageError(f"{name} must be at most {high}, got {shown(found)}")
    return found


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf, *,
           above: float | None = None, below: float | None = None) -> float:
    """``value`` as a finite float in [low, high], or strictly ``above`` and ``below`` where given."""
    scalar = getattr(value, "ndim", None) == 0 and getattr(value, "dtype", None) is not None
    try:
        if isinstance(value, bool) or not (isinstance(value, numbers.Real) or scalar):
            raise TypeError
        found = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(f"{name} must be a number, got {shown(value)}") from None
    except OverflowError:
        found = math.inf
    inside = low <= found <= high and (above is None or found > above) and (below is None or found < below)
    if not (math.isfinite(found) and inside):
        parts = ["finite"]
        if above is not None or low > -math.inf:
            parts.append(f"above {above:g}" if above is not None else f"at least {low:g}")
        if below is not None or high < math.inf:
            parts.append(f"below {below:g}" if below is not None else f"at most {high:g}")
        raise UsageError(f"{name} must be {' and '.join(parts)}, got {shown(value)}")
    return found


def choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """``value`` if it is one of ``choices``; ``name`` is a noun, such as 'selection'."""
    choices = list(choices)
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"unknown {name} {shown(value)}; use one of {', '.join(choices)}")
    return value


def flag(name: str, value: Any) -> bool:
    """``value`` if it is True or False (Python's or numpy's)."""
    if type(value).__name__ not in ("bool", "bool_"):
        raise UsageError(f"{name} must be true or false, got {shown(value)}")
    return bool(value)


def text(name: str, value: Any) -> str:
    """``value`` if it is a string."""
    if not isinstance(value, str):
        raise UsageError(f"{name} must be a string, got {shown(value)}")
    return value


def pair(name: str, value: Any) -> tuple[float, float]:
    """``value`` as two finite numbers."""
    try:
        parts = list(value) if not isinstance(value, str | bytes) else []
    except TypeError:
        parts = []
    if len(parts) != 2:
        raise UsageError(f"{name} must be two numbers (low, high), got {shown(value)}")
    low, high = (number(name, part) for part in parts)
    return low, high


def optional(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    """``check``, with None passed through."""
    return lambda name, value: None if value is None else check(name, value)


def _select(_: str, value: Any) -> str:
    from swg_fast.policy.backends.job import SELECTIONS

    return choice("selection", value, SELECTIONS)


def _leaves(name: str, value: Any) -> int | str:
    return "auto" if isinstance(value, str) and value == "auto" else whole(name, value, 1, MAX_CANDIDATES)


def _ranking(_: str, value: Any) -> str:
    from swg_fast.policy.backends.job import RANKINGS

    return choice("ranking", value, RANKINGS)


def _sampler(_: str, value: Any) -> str:
    from swg_fast.method.samplers import SAMPLERS

    return choice("sampler", value, SAMPLERS)


def _readout(_: str, value: Any) -> str:
    from swg_fast.method.samplers import READOUTS

    return choice("weight read-out", value, READOUTS)


def _backend(_: str, value: Any) -> str:
    from swg_fast.policy.backends.registry import BACKENDS

    return choice("backend", value, ("auto", *BACKENDS))


def _guidance(name: str, value: Any) -> str:
    from swg_fast.method.weight_family import guidance_text

    return guidance_text(name, value)


# Every keyword of `Policy.sample` but the states and their indices: its name -> its check.
SAMPLING: dict[str, Callable[[str, Any], Any]] = {
    "n_candidates": optional(lambda name, value: whole(name, value, 1, MAX_CANDIDATES)),
    "guidance_scale": optional(lambda name, value: number(name, value, -MAX_SCALE, MAX_SCALE)),
    "temperature": optional(lambda name, value: number(name, value, 0.0, MAX_SCALE)),
    "select": optional(_select),
    "seed": lambda name, value: whole(name, value, 0, MAX_SEED),
    "backend": _backend,
    "chunk": optional(lambda name, value: whole(name, value, 1, MAX_CANDIDATES)),
    "dtype": optional(text),
    "sampler": optional(_sampler),
    "sampler_steps": optional(lambda name, value: whole(name, value, 1, MAX_CANDIDATES)),
    "leaves": optional(_leaves),
    "branch_after": optional(lambda name, value: whole(name, value, 1, MAX_CANDIDATES)),
    "keep_share": optional(lambda name, value: number(name, value, high=1.0, above=0.0)),
    "ranking": optional(_ranking),
    "ranking_draws": optional(lambda name, value: whole(name, value, 1, 2**16)),
    "ranking_step": optional(lambda name, value: whole(name, value, 0, MAX_CANDIDATES)),
    "ranking_mean": optional(lambda name, value: number(name, value, -MAX_SCALE, MAX_SCALE)),
    "guidance": optional(_guidance),
    "weight_clip": pair,
    "weight_readout": _readout,
    "clip_denoised": flag,
    "selection_temperature": lambda name, value: number(name, value, above=0.0),
    "return_candidates": flag,
}


def check_sampling(settings: Mapping[str, Any], source: str = "") -> dict[str, Any]:
    """``settings`` of `Policy.sample`, each checked and in its plain Python type.

    None stands for "not given" where `Policy.sample` has it so. ``source`` (a file, say) opens the
    message. Raises `UsageError` for the first of a wrong type or out of range.
    """
    unknown = [str(name) for name in settings if name not in SAMPLING]
    if unknown:
        raise UsageError(f"{source and source + ': '}unknown sampling setting {unknown[0]!r}; "
                         f"use {', '.join(SAMPLING)}")
    try:
        return {name: SAMPLING[name](name, value) for name, value in settings.items()}
    except UsageError as error:
        raise UsageError(f"{source}: {error}" if source else str(error)) from None


def shown(value: Any) -> str:
    """``value`` in one short line."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**20:
        return f"{'-' if value < 0 else ''}2**{abs(value).bit_length() - 1} or more"
    try:
        shown = " ".join(repr(value).split())
    except Exception:  # a repr of someone else's
        shown = type(value).__name__
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
