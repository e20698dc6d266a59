"""Checks of what a caller hands over: a value of the right type and range, or one clear line."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterable
from typing import Any

from swg_fast.common.errors import UsageError

MAX_CANDIDATES = 2**32  # the noise's candidate and state words have 32 bits
MAX_SEED = 2**64 - 1
MAX_SCALE = 1e6  # of guidance and temperature: far beyond any use, far below float32's end
WORD = 2**32
MAX_FLOAT32 = 3.4e38  # nearly; what is computed with a setting is float32


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


def of_kind(name: str, value: Any, kind: type, mend: str) -> None:
    """`UsageError`, which ends in ``mend``, where ``value`` is no ``kind``."""
    if not isinstance(value, kind):
        raise UsageError(f"{name} is {shown(value)}, expected {kind.__name__}; {mend}")


def pair(name: str, value: Any, of_whole: bool = False) -> tuple[Any, Any]:
    """``value`` as two finite numbers, or as two ``of_whole`` numbers from 0 on."""
    try:
        parts = list(value) if not isinstance(value, str | bytes) else []
    except TypeError:
        parts = []
    if len(parts) != 2:
        kind = "whole numbers" if of_whole else "numbers"
        raise UsageError(f"{name} must be two {kind} (low, high), got {shown(value)}")
    low, high = (whole(name, part, 0, WORD) if of_whole else number(name, part, -MAX_FLOAT32, MAX_FLOAT32)
                 for part in parts)
    return low, high


def names(name: str, value: Any) -> tuple[str, ...]:
    """``value``, a list or tuple of texts, as a tuple."""
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        raise UsageError(f"{name} must be a list of names, got {shown(value)}")
    return tuple(value)


def shown(value: Any) -> str:
    """``value`` in one short line."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**20:
        return f"{'-' if value < 0 else ''}2**{abs(value).bit_length() - 1} or more"
    try:
        shown = " ".join(repr(value).split())
    except Exception:  # a repr of someone else's
        shown = type(value).__name__
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
