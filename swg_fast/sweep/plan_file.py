"""Reads a sweep's TOML file into the settings of its cells."""

from __future__ import annotations

import datetime
import itertools
import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swg_fast.common.atomic_files import user_path
from swg_fast.common.checks import shown, text
from swg_fast.common.errors import UsageError, opened_by
from swg_fast.common.read_files import read_toml

SECTIONS = ("train", "distill", "evaluate", "rank", "toy")
SINGLES = ("task", "dataset", "policy")
MOST_CELLS = 10_000
MOST_BYTES = 2**18  # of a file: reading one takes a moment for each megabyte
TOP = {"title", "question", "grid", "points", "run", "report", *SECTIONS, *SINGLES}


@dataclass(frozen=True)
class Plan:
    """A sweep's file: ``settings`` are the values that all cells share, by dotted name; each of ``grids`` has
    the values of its axes, which `cells` combines."""

    path: Path
    title: str
    question: str
    settings: dict[str, Any]
    grids: list[dict[str, list[Any]]]
    run: dict[str, Any] = field(default_factory=dict)
    report: list[dict[str, Any]] = field(default_factory=list)

    def check_count(self) -> None:
        """`UsageError` for more cells than a sweep has."""
        count = sum(math.prod(map(len, grid.values())) for grid in self.grids)
        if count > MOST_CELLS:
            raise UsageError(f"{count:,} cells, and a sweep has at most {MOST_CELLS:,}; take axes or values "
                             "out, or write several sweeps")

    def cells(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """(settings, axes) of every cell: its settings by dotted name, and its value on each axis."""
        for grid in self.grids:
            for choice in itertools.product(*grid.values()):
                settings, axes = dict(self.settings), {}
                for name, value in zip(grid, choice, strict=True):
                    if isinstance(value, dict):
                        values = {k: v for k, v in value.items() if k != "label"}
                        axes[name] = value.get("label", ", ".join(str(v) for v in values.values()))
                        settings |= values
                    else:
                        settings[name] = value
                        if len(grid[name]) > 1:
                            axes[name] = value
                yield settings, axes


def read_plan(path: str | Path, overrides: tuple[str, ...] = ()) -> Plan:
    """The plan in the TOML file ``path``, changed by ``overrides`` such as ``train.seed=[0, 1]``.

    Raises `UsageError` where the file is not TOML or has an unknown part.
    """
    path = user_path(path)
    if path.is_file() and path.stat().st_size > MOST_BYTES:
        raise UsageError(f"{path}: {path.stat().st_size:,} bytes, and a sweep has at most {MOST_BYTES:,}; "
                         "write fewer values")
    table = read_toml(path, "a sweep")
    with opened_by(f"{path}:"):
        plan = _plan(path, table)
    for override in overrides:
        _override(plan, override)
    return plan


def _plan(path: Path, table: dict[str, Any]) -> Plan:
    _check_values(table)
    unknown = sorted(set(table) - TOP)
    if unknown:
        raise UsageError(f"unknown part {unknown[0]!r}; a sweep has {', '.join(sorted(TOP))}")
    for name in ("grid", "run"):
        if not isinstance(table.get(name, {}), dict):
            raise UsageError(f"{name!r} is a table; write it as [{name}]")
    points, report = table.get("points", []), table.get("report", [])
    for name, tables in (("points", points), ("report", report)):
        if not isinstance(tables, list) or not all(isinstance(entry, dict) for entry in tables):
            raise UsageError(f"{name!r} is a list of tables; write each as [[{name}]]")
    for asked in report:
        _check_view(asked)
    settings = _flat({k: v for k, v in table.items() if k in (*SECTIONS, *SINGLES)})
    # An empty section, such as [evaluate], stands for all of its defaults.
    settings |= {name: {} for name in SECTIONS if table.get(name) == {}}
    grids = [_axes(table["grid"])] if "grid" in table else []
    grids += [_axes(point, single=True) for point in points]
    title, question = (text(name, table.get(name, default)) for name, default in (
        ("title", path.stem), ("question", "")))
    return Plan(path, title, question, settings, grids or [{}], dict(table.get("run", {})), report)


def _flat(table: dict[str, Any]) -> dict[str, Any]:
    """``{"train": {"seed": 0}}`` as ``{"train.seed": 0}``."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if name in SECTIONS:
            if not isinstance(value, dict):
                raise UsageError(f"{name!r} holds settings; write it as [{name}] or {name}.SETTING")
            for key, inner in value.items():
                if isinstance(inner, dict):
                    raise UsageError(f"{name}.{key} is a table; write {name}.{key} = VALUE")
                flat[f"{name}.{key}"] = inner
        else:
            flat[name] = value
    return flat


def _axes(table: dict[str, Any], single: bool = False) -> dict[str, list[Any]]:
    """A grid's axes: a setting with its values, or a free name with tables of settings. In a point
    (``single``) a value stands for a list of one."""
    axes: dict[str, list[Any]] = {}
    for name, values in _flat(table).items():
        if single and not isinstance(values, list):
            values = [values]
        if not isinstance(values, list) or not values:
            raise UsageError(f"axis {name!r} needs a list of values, such as {name} = [0, 1]")
        tables = [isinstance(value, dict) for value in values]
        if all(tables) and name not in SINGLES and "." not in name:
            axes[name] = [_bundle(value, name) for value in values]
        elif any(tables) or (name not in SINGLES and "." not in name):
            raise UsageError(f"axis {name!r} is no setting ({', '.join(SINGLES)} or a name with "
                             f"{'., '.join(SECTIONS)}.); an axis of your own holds tables of settings")
        else:
            axes[name] = values
    return axes


def _bundle(table: dict[str, Any], axis: str) -> dict[str, Any]:
    flat = _flat(table)
    if not isinstance(flat.get("label", ""), str | int | float):
        raise UsageError(f"axis {axis!r} has the label {shown(flat['label'])}; write a text or a number")
    for name in flat:
        if name != "label" and name not in SINGLES and "." not in name:
            raise UsageError(f"axis {axis!r} sets {name!r}, which is no setting; write "
                             f"train.{name}, evaluate.{name} or toy.{name}")
    return flat


def _check_values(value: Any, name: str = "") -> None:
    """`UsageError` for what is a value of TOML and of no setting: dates, times, NaN and infinity."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_values(inner, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            _check_values(inner, name)
    elif isinstance(value, datetime.date | datetime.time):
        raise UsageError(f"{name} is a date or a time ({value}); write a number, or a text in quotes")
    elif isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{name} is {value}; write a finite number")


def _check_view(asked: dict[str, Any]) -> None:
    """`UsageError` for a part of a [[report]] that is of another kind."""
    for part in ("title", "rows", "columns", "layout", "best"):
        text(f"[[report]] {part}", asked.get(part, ""))
    for part in ("panels", "metrics"):
        names = asked.get(part, [])
        names = [names] if part == "panels" and isinstance(names, str) else names
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UsageError(f"[[report]] {part} must be a list of names, got {shown(names)}")
    if not isinstance(asked.get("where", {}), dict):
        raise UsageError(f"[[report]] where must be names with values, got {shown(asked['where'])}; write "
                         'where.task = "hopper-medium-v2"')


def _override(plan: Plan, text: str) -> None:
    """Applies ``NAME=VALUE`` wherever the plan sets NAME; a VALUE that is not TOML is text."""
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not name:
        raise UsageError(f"--set {text}: write it as NAME=VALUE, such as train.critic_steps=1000")
    chosen = parse_value(value.strip())
    with opened_by("--set:"):
        _check_values({name: chosen})
    section, _, rest = name.partition(".")
    if section == "run" and rest:
        plan.run[rest] = chosen
        return
    if section == "dataset" and rest:  # one task's own file
        known = plan.settings.get("dataset", {})
        plan.settings["dataset"] = (known if isinstance(known, dict) else {}) | {rest: chosen}
        return
    if name not in SINGLES and not (section in SECTIONS and rest):
        raise UsageError(f"--set {name}: no such setting; use {', '.join(SINGLES)}, or a name that begins "
                         f"with run., {'., '.join(SECTIONS)}.")
    several, bundled = isinstance(chosen, list), False
    for grid in plan.grids:
        for bundles in grid.values():
            for bundle in bundles:
                if isinstance(bundle, dict) and name in bundle:
                    bundle[name], bundled = chosen, True
        if name in grid or several:
            grid[name] = chosen if several else [chosen]
    if not several and not (bundled and section == "distill"):  # which would give every cell a student
        plan.settings[name] = chosen


def parse_value(text: str) -> Any:
    """``text`` as a TOML value; other text, such as a path or a name, unchanged."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
