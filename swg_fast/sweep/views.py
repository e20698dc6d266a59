"""A report's views: finished cells in rows, columns and panels, with an estimate for each place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from typing_extensions import TypedDict  # pydantic cannot read that of Python 3.11

from swg_fast.common.errors import UsageError
from swg_fast.common.read_files import validated
from swg_fast.sweep.cells import Cell
from swg_fast.sweep.metrics import Estimate, Metric, Result, metric


class Asked(TypedDict, total=False):
    """One [[report]] as it is written."""

    title: str
    rows: str
    columns: str | None
    panels: str | list[str]
    metrics: list[str]
    where: dict[str, Any]
    layout: Literal["paper"]
    best: str


KEYS = frozenset(Asked.__annotations__)


@dataclass(frozen=True)
class View:
    """One [[report]] of a sweep's file: the settings or axes of its rows, columns and panels; ``where`` keeps
    the cells with these values. ``paper``: in the layout of papers, where ``best`` is the setting of which
    each place has the best value."""

    title: str
    rows: str
    columns: str | None
    panels: list[str]
    metrics: list[str]
    where: dict[str, Any]
    paper: bool = False
    best: str | None = None


@dataclass(frozen=True)
class Block:
    """One panel of a view by one metric: ``values`` are estimates by (row, column)."""

    view: View
    metric: Metric
    name: str
    panel: str  # empty for a single panel
    rows: list[Any]
    columns: list[Any]
    values: dict[tuple[Any, Any], Estimate]


def cell_of(result: Result) -> Cell:
    """The cell that a result is of."""
    return Cell.from_json({name: result[name] for name in Cell.__dataclass_fields__ if name in result})


def look_up(result: Result, name: str) -> Any:
    """A finished cell's value for ``name``: an axis, a setting, or the last part of a setting's name."""
    flat = {"kind": result["kind"]} | cell_of(result).flat()
    if name not in flat:
        near = sorted(key for key in flat if key.endswith(f".{name}"))
        return flat[near[0]] if near else None
    return flat[name]


def views_of(sweep: dict[str, Any], results: list[Result]) -> list[View]:
    """The views that ``sweep.json`` asks for; if none, one for each kind of cell, with all axes but seeds."""
    check_report(sweep["report"])
    found = []
    for asked in sweep["report"]:
        where, panels = asked.get("where", {}), asked.get("panels", [])
        mine = [r for r in results if matches(r, where)]
        found.append(View(asked.get("title", sweep["title"]), asked["rows"], asked.get("columns"),
                          [panels] if isinstance(panels, str) else panels,
                          asked.get("metrics") or _default_metrics(mine), where, "layout" in asked,
                          asked.get("best")))
    for kind in dict.fromkeys(r["kind"] for r in results) if not sweep["report"] else ():
        mine = [r for r in results if r["kind"] == kind]
        axes = [name for name in dict.fromkeys(name for r in mine for name in r["axes"])
                if not name.endswith("seed")] or ["task" if kind == "evaluate" else "name"]
        rows, columns, *panels = [*axes, None][:2] + axes[2:]
        found.append(View(sweep["title"], rows, columns, panels, _default_metrics(mine), {"kind": kind}))
    return found


def check_report(report: list[dict[str, Any]]) -> None:
    """Raises `UsageError` for a [[report]] with an unknown part or metric, or without rows."""
    for asked in report:
        if unknown := sorted(set(asked) - KEYS):
            raise UsageError(f"unknown setting {unknown[0]!r} in [[report]]; use one of "
                             f"{', '.join(sorted(KEYS))}")
        validated(asked, Asked, "[[report]]", "mend that value")
        if "rows" not in asked:
            raise UsageError("[[report]] needs rows: the setting or axis that the rows stand for")
        for name in asked.get("metrics", []):
            metric(name)
        _check_layout(asked)


def _check_layout(asked: dict[str, Any]) -> None:
    """`UsageError` where the layout of papers lacks a part or has one that it does not use."""
    if "layout" not in asked:
        if "best" in asked:
            raise UsageError('[[report]] best is for layout = "paper"; add that, or take best out')
        return
    if asked["rows"] != "task" or "columns" not in asked:
        raise UsageError('[[report]] layout = "paper" has rows = "task" and columns; write both')
    for part in ("panels", "metrics"):
        if part in asked:
            raise UsageError(f'[[report]] layout = "paper" has the score, by family; take {part} out')


def _default_metrics(results: list[Result]) -> list[str]:
    if any(r["kind"] == "toy" for r in results):
        return ["distance"]
    several = len({(r["training"] or {}).get("key") for r in results}) > 1
    success = all("successes" in r["result"] for r in results)
    ranked = any(r["rank"] for r in results)
    return ["success" if success else "score", *["iqm"] * several, *["rank"] * ranked]


def blocks_of(view: View, results: list[Result]) -> list[Block]:
    """A block for each panel and metric; rows and columns are in the order of the sweep's cells."""
    groups: dict[str, dict[tuple[Any, Any], list[Result]]] = {}
    for result in results:
        if matches(result, view.where):
            panel = ", ".join(f"{short(name)} {shown(look_up(result, name))}" for name in view.panels)
            place = (_key(look_up(result, view.rows)), _key(look_up(result, view.columns or "")))
            groups.setdefault(panel, {}).setdefault(place, []).append(result)
    blocks = []
    for panel, places in groups.items():
        for name in view.metrics:
            one = metric(name)
            values = {place: found for place, cells in places.items() if (found := one.estimate(cells))}
            rows, columns = (list(dict.fromkeys(place[i] for place in places)) for i in (0, 1))
            if values:
                blocks.append(Block(view, one, name, panel, _sorted(rows), _sorted(columns), values))
    return blocks


def matches(result: Result, where: dict[str, Any]) -> bool:
    return all(look_up(result, name) in (value if isinstance(value, list) else [value])
               for name, value in where.items())


def _key(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value) if isinstance(value, dict) \
        else value


def _sorted(values: list[Any]) -> list[Any]:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return sorted(values) if numbers else values


def short(name: str | None) -> str:
    """A setting's name as a heading."""
    return (name or "").split(".")[-1].replace("_", " ")


def shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)
