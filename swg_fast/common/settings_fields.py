"""Settings as dataclass fields that carry their own help and range.

A record of settings is a frozen dataclass whose fields are made by `setting`. From them follow the checks,
the options of the command line, the keys of configuration files, the axes of sweeps and the docs' tables.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any

from swg_fast.common.checks import MAX_FLOAT32, choice, flag, names, number, pair, shown, text, whole
from swg_fast.common.errors import UsageError

KINDS: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool, "tuple[float, float]": tuple,
                          "tuple[int, int]": tuple,
                          "tuple[str, ...]": list, "Any": object}
MOST = 2**63 - 1


def setting(default: Any, help: str, *, choices: Collection[str] | None = None, noun: str | None = None,
            words: tuple[str, ...] = (), check: Callable[[str, Any], Any] | None = None,
            flags: tuple[str, ...] = (), **bounds: Any) -> Any:
    """A field with its ``help`` and the values that it takes.

    choices: the texts that it may be; a message calls one a ``noun``. words: texts that stand beside numbers.
    check: a function of (name, value) that returns the value to keep, where the rest does not say enough.
    flags: the option's names on the command line, where they are not the field's.
    bounds: of a number: min, max; min_open or max_open where the end is out; bottom and top are ends that no
    use comes near, which the help leaves out.
    """
    return field(default=default, metadata={
        "help": help, "choices": choices, "noun": noun, "words": words, "check": check, "flags": flags,
        "bounds": bounds})


def like(record: type, name: str, default: Any) -> Any:
    """A field with the help and the values of another record's, and a ``default`` of its own."""
    other = next(entry for entry in fields(record) if entry.name == name)
    return field(default=default, metadata=other.metadata)


def kind_of(entry: Field) -> type:
    """The type of a field's values, None and words aside."""
    return KINDS[str(entry.type).removesuffix(" | None").removesuffix(" | str")]


def takes_whole_numbers(entry: Field) -> bool:
    """Whether the field is a pair of whole numbers."""
    return str(entry.type).startswith("tuple[int, int]")


def is_optional(entry: Field) -> bool:
    """Whether the field may be None."""
    return str(entry.type).endswith("| None")


def range_text(entry: Field) -> str:
    """The field's bounds, such as ``0<x<=1``; empty where there are none."""
    bounds = entry.metadata["bounds"]
    low = f"{bounds['min']}{'<' if bounds.get('min_open') else '<='}" if "min" in bounds else ""
    high = f"{'<' if bounds.get('max_open') else '<='}{bounds['max']}" if "max" in bounds else ""
    if low and not high:  # 1<=x reads worse than x>=1
        return f"x{'>' if bounds.get('min_open') else '>='}{bounds['min']}"
    return f"{low}x{high}" if low or high else ""


def checked(entry: Field, value: Any) -> Any:
    """``value`` in the field's plain Python type. `UsageError` for another type, or a value out of range."""
    says = entry.metadata
    if (value is None and is_optional(entry)) or (isinstance(value, str) and value in says["words"]):
        return value
    if says["check"] is not None:
        return says["check"](entry.name, value)
    if says["choices"] is not None:
        return choice(says["noun"] or entry.name, value, says["choices"])
    kind, bounds = kind_of(entry), says["bounds"]
    if says["words"] and isinstance(value, str):
        raise UsageError(f"{entry.name} must be a {'whole ' if kind is int else ''}number or "
                         f"{' or '.join(says['words'])}, got {shown(value)}")
    if kind is int:
        return whole(entry.name, value, bounds.get("min", bounds.get("bottom", -MOST)),
                     bounds.get("max", bounds.get("top", MOST)))
    if kind is float:
        return number(entry.name, value, **_ends(bounds))
    if kind is tuple:
        return pair(entry.name, value, of_whole=takes_whole_numbers(entry))
    check: Callable[[str, Any], Any] = {bool: flag, str: text, list: names}[kind]
    return check(entry.name, value)


def _ends(bounds: dict[str, Any]) -> dict[str, float]:
    """The bounds as keywords of `number`."""
    low = bounds.get("min", bounds.get("bottom", -MAX_FLOAT32))
    high = bounds.get("max", bounds.get("top", MAX_FLOAT32))
    return ({"above": low} if bounds.get("min_open") else {"low": low}) | (
        {"below": high} if bounds.get("max_open") else {"high": high})


def check_fields(record: Any) -> None:
    """`checked` of every field of a record, in place: for its ``__post_init__``."""
    for entry in fields(record):
        object.__setattr__(record, entry.name, checked(entry, getattr(record, entry.name)))


def check_named(records: Iterable[type], values: Mapping[str, Any], what: str) -> dict[str, Any]:
    """``values`` by name, each `checked` by the field of ``records`` that has this name. None means "not
    given" and is left out.

    Raises `UsageError` for a name that none has; ``what`` says what the names are: "sampling setting".
    """
    known = {entry.name: entry for record in records for entry in fields(record)}
    for name in values:
        if name not in known:
            raise UsageError(f"unknown {what} {str(name)!r}; {nearest(str(name), known)}")
    return {name: checked(known[name], value) for name, value in values.items() if value is not None}


def nearest(name: str, known: Collection[str]) -> str:
    """What to write instead of ``name``: the nearest of ``known``, or all of them."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"did you mean {', '.join(near)}?" if near else f"use one of {', '.join(known)}"


def table(record: type) -> str:
    """A record's settings as a Markdown table: name, default, values, what it does."""
    lines = ["| setting | default | values | what it does |", "|---|---|---|---|"]
    for entry in fields(record):
        says = entry.metadata
        kind = kind_of(entry).__name__.replace("tuple", "two numbers").replace("list", "names")
        values = ", ".join(f"`{value}`" for value in says["choices"] or says["words"])
        values = values if says["choices"] else ", ".join(filter(None, (values, range_text(entry) or kind)))
        default = "" if entry.default in (None, MISSING, ()) else f"`{entry.default}`"
        lines.append(f"| `{entry.name}` | {default} | {values} | {says['help']} |")
    return "\n".join(lines)
