"""Settings as dataclass fields that carry their own help and range.

The command line's options, the configuration file and the checks are all made from them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import Field, field, fields
from typing import Any

from swg_fast.common.checks import shown
from swg_fast.common.errors import UsageError

KINDS: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}
EXPECTED = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def setting(default: Any, help: str, *, choices: Sequence[str] | None = None, **bounds: Any) -> Any:
    """A field, with what a person is told of it: its help, and the values that it takes, either
    ``choices`` or the bounds of a number (min, max, min_open or max_open where an end is out, and top,
    which no machine could bear and no help need mention)."""
    return field(default=default, metadata={"help": help, "choices": choices, "bounds": bounds})


def kind_of(entry: Field) -> type:
    """The type of a field's values, None aside."""
    return KINDS[str(entry.type).removesuffix(" | None")]


def range_text(entry: Field) -> str:
    """The field's bounds, such as ``0<x<=1``; empty where there are none."""
    bounds = entry.metadata["bounds"]
    low = f"{bounds['min']}{'<' if bounds.get('min_open') else '<='}" if "min" in bounds else ""
    high = f"{'<' if bounds.get('max_open') else '<='}{bounds['max']}" if "max" in bounds else ""
    if low and not high:  # 1<=x reads worse than x>=1
        return f"x{'>' if bounds.get('min_open') else '>='}{bounds['min']}"
    return f"{low}x{high}" if low or high else ""


def check_value(entry: Field, value: Any) -> None:
    """`UsageError` where ``value`` is not of the field's kind, or outside its range."""
    if value is None and str(entry.type).endswith("| None"):
        return
    kind, choices = kind_of(entry), entry.metadata["choices"]
    if isinstance(value, bool) is not (kind is bool) or not isinstance(
            value, (int, float) if kind is float else kind):
        raise UsageError(f"{entry.name} must be {EXPECTED[kind]}, got {shown(value)}")
    if choices and value not in choices:
        raise UsageError(f"{entry.name} must be one of {', '.join(choices)}, got {shown(value)}")
    bounds = entry.metadata["bounds"]
    if kind not in (int, float):
        return
    if value > bounds.get("top", math.inf):
        raise UsageError(f"{entry.name} must be at most {bounds['top']}, got {shown(value)}")
    low, high = bounds.get("min", -math.inf), bounds.get("max", math.inf)
    inside = low <= value <= high and not (bounds.get("min_open") and value == low) and not (
        bounds.get("max_open") and value == high)
    if not inside or value in (math.inf, -math.inf):
        raise UsageError(f"{entry.name} must be finite{' and in ' if bounds else ''}{range_text(entry)}, "
                         f"got {shown(value)}")


def check_fields(record: Any) -> None:
    """`check_value` of every field of a dataclass made with `setting`."""
    for entry in fields(record):
        check_value(entry, getattr(record, entry.name))
