"""Reads a sweep's TOML file into the settings of its cells."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swg_fast.common.errors import UsageError
from swg_fast.common.read_files import read_toml

SECTIONS = ("train", "evaluate", "rank", "toy")
SINGLES = ("task", "dataset", "policy")
TOP = {"title", "question", "grid", "points", "run", "report", *SECTIONS, *SINGLES}


@dataclass(frozen=True)
class Plan:
    """A sweep's file: ``settings`` are the values that all cells share, by dotted name; each of ``grids`` has
    the values of its axes, which `cells` combines."""

    title: str
    question: str
    settings: dict[str, Any]
    grids: list[dict[str, list[Any]]]
    run: dict[str, Any] = field(default_factory=dict)
    report: list[dict[str, Any]] = field(default_factory=list)

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
    path = Path(path)
    table = read_toml(path, "a sweep")
    unknown = sorted(set(table) - TOP)
    if unknown:
        raise UsageError(f"{path}: unknown part {unknown[0]!r}; a sweep has {', '.join(sorted(TOP))}")
    for name in ("grid", "run"):
        if not isinstance(table.get(name, {}), dict):
            raise UsageError(f"{path}: {name!r} is a table; write it as [{name}]")
    points, report = table.get("points", []), table.get("report", [])
    for name, tables in (("points", points), ("report", report)):
        if not isinstance(tables, list) or not all(isinstance(entry, dict) for entry in tables):
            raise UsageError(f"{path}: {name!r} is a list of tables; write each as [[{name}]]")
    settings = _flat({k: v for k, v in table.items() if k in (*SECTIONS, *SINGLES)}, path)
    # An empty section, such as [evaluate], stands for all of its defaults.
    settings |= {name: {} for name in SECTIONS if table.get(name) == {}}
    grids = [_axes(table["grid"], path)] if "grid" in table else []
    grids += [_axes(point, path, single=True) for point in points]
    plan = Plan(str(table.get("title", path.stem)), str(table.get("question", "")), settings,
                grids or [{}], dict(table.get("run", {})), report)
    for text in overrides:
        _override(plan, text)
    return plan


def _flat(table: dict[str, Any], path: Path) -> dict[str, Any]:
    """``{"train": {"seed": 0}}`` as ``{"train.seed": 0}``."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if name in SECTIONS:
            if not isinstance(value, dict):
                raise UsageError(f"{path}: {name!r} holds settings; write it as [{name}] or {name}.SETTING")
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat


def _axes(table: dict[str, Any], path: Path, single: bool = False) -> dict[str, list[Any]]:
    """A grid's axes: a setting with its values, or a free name with tables of settings. In a point
    (``single``) a value stands for a list of one."""
    axes: dict[str, list[Any]] = {}
    for name, values in _flat(table, path).items():
        if single and not isinstance(values, list):
            values = [values]
        if not isinstance(values, list) or not values:
            raise UsageError(f"{path}: axis {name!r} needs a list of values, such as {name} = [0, 1]")
        tables = [isinstance(value, dict) for value in values]
        if all(tables) and name not in SINGLES and "." not in name:
            axes[name] = [_bundle(value, path, name) for value in values]
        elif any(tables) or (name not in SINGLES and "." not in name):
            raise UsageError(f"{path}: axis {name!r} is no setting ({', '.join(SINGLES)} or a name with "
                             f"{'., '.join(SECTIONS)}.); an axis of your own holds tables of settings")
        else:
            axes[name] = values
    return axes


def _bundle(table: dict[str, Any], path: Path, axis: str) -> dict[str, Any]:
    flat = _flat(table, path)
    for name in flat:
        if name != "label" and name not in SINGLES and "." not in name:
            raise UsageError(f"{path}: axis {axis!r} sets {name!r}, which is no setting; write "
                             f"train.{name}, evaluate.{name} or toy.{name}")
    return flat


def _override(plan: Plan, text: str) -> None:
    """Applies ``NAME=VALUE`` wherever the plan sets NAME; a VALUE that is not TOML is text."""
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not name:
        raise UsageError(f"--set {text}: write it as NAME=VALUE, such as train.critic_steps=1000")
    chosen = parse_value(value.strip())
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
    several = isinstance(chosen, list)
    for grid in plan.grids:
        for bundles in grid.values():
            for bundle in bundles:
                if isinstance(bundle, dict) and name in bundle:
                    bundle[name] = chosen
        if name in grid or several:
            grid[name] = chosen if several else [chosen]
    if not several:
        plan.settings[name] = chosen


def parse_value(text: str) -> Any:
    """``text`` as a TOML value; other text, such as a path or a name, unchanged."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
