"""Tables and plot of `decisions.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from swg_fast.common.figures import log_scale, new_figure, save_figure

QUALITY = {"states": "advantage by another seed's critic", "episodes": "score",
           "toy": "distance to the target"}
COLORS = ("#000000", "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7")  # Okabe-Ito
MARKERS = "os^DvP"
FAST = "dpmpp_2m 8"  # the walk of the preset `fast`; where it was not measured, the contender `solver`


def points(data: dict[str, Any], part: str) -> dict[str, list[dict[str, Any]]]:
    """Contender -> its points by N: milliseconds, quality, its interval. Eager has ours' quality, since it
    draws the same candidates."""
    found: dict[str, list[dict[str, Any]]] = {}
    cells, times = data["parts"].get(part, {}), data["parts"].get("time", {})
    for key in (cells if part == "toy" else times):
        name, n = key.rsplit(" ", 1)
        cell = cells.get(f"ours {n}" if name == "eager" and part != "toy" else key)
        if cell is not None:
            clock = cell if part == "toy" else times[key]
            found.setdefault(name, []).append(cell | {"n": int(n), "milliseconds": clock["milliseconds"]})
    return {name: sorted(rows, key=lambda row: row["n"]) for name, rows in found.items()}


def times(data: dict[str, Any], contenders: Sequence[str]) -> str:
    """Milliseconds of a decision: a line for each of the ``contenders``, a column for each N; beside them how
    many times as long eager takes."""
    found: dict[str, dict[int, float]] = {name: {} for name in contenders}
    for key, value in data["parts"]["time"].items():
        name, n = key.rsplit(" ", 1)
        if name in found:
            found[name][int(n)] = value["milliseconds"]
    counts = sorted(found["eager"])
    lines = ["| decision, ms (x eager) | " + " | ".join(f"N = {n:,}" for n in counts) + " |",
             "|---" * (len(counts) + 1) + "|"]
    for name, row in found.items():
        cells = (f"{row[n]:.4g} ({found['eager'][n] / row[n]:.3g})" if n in row else "-" for n in counts)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def as_good_as_eager(data: dict[str, Any], part: str, n: int = 1024) -> list[tuple[str, int, float]]:
    """For each contender, the least N whose quality reaches eager's at N = n (or its interval's lower end),
    and eager's time divided by its own."""
    found = points(data, part)
    goal = next((row for row in found.get("eager", []) if row["n"] == n), None)
    if goal is None:
        return []
    least = goal["interval"]["low"] if goal.get("interval") else goal["quality"]
    reached = ((name, next((row for row in rows if row["quality"] >= least), None))
               for name, rows in found.items() if name != "eager")
    return [(name, row["n"], goal["milliseconds"] / row["milliseconds"]) for name, row in reached if row]


def tables(data: dict[str, Any]) -> None:
    """Prints a table for each part that has quality, and the contenders that reach eager's."""
    console = Console(width=120)
    for part, quality in QUALITY.items():
        table = Table("contender", "N" if part != "toy" else "steps", "milliseconds", quality,
                      "95 % interval", title=part, title_justify="left")
        for name, rows in points(data, part).items():
            for row in rows:
                interval = row.get("interval")
                table.add_row(name, str(row["n"]), f"{row['milliseconds']:.2f}", f"{row['quality']:.4g}",
                              f"{interval['low']:.4g} to {interval['high']:.4g}" if interval else "-")
        if table.row_count:
            console.print(table)
    for part in ("states", "episodes"):
        for name, n, ratio in as_good_as_eager(data, part):
            console.print(f"{part}: {name} with N = {n} is as good as eager with 1024, "
                          f"in 1/{ratio:.1f} of its time")


def markdown(data: dict[str, Any], part: str = "episodes") -> str:
    """A line for each contender and N: milliseconds, eager's time divided by them, quality and its interval.
    """
    found = points(data, part)
    lines = [f"| decision | N | milliseconds | eager's time over it | {QUALITY[part]} |", "|---" * 5 + "|"]
    eager = {row["n"]: row["milliseconds"] for row in found.get("eager", [])}
    for name, rows in found.items():
        for row in rows:
            low, high = (row["interval"][end] for end in ("low", "high"))
            ratio = f"{eager[row['n']] / row['milliseconds']:.1f}" if row["n"] in eager else "-"
            lines.append(f"| {name} | {row['n']:,} | {row['milliseconds']:.1f} | {ratio} | "
                         f"{row['quality']:.0f} [{low:.0f}, {high:.0f}] ({row['episodes']} episodes) |")
    return "\n".join(lines)


class Line(NamedTuple):
    """A line of the plot; ``look`` numbers its colour and marker."""

    contender: str
    label: str
    look: int


def lines(data: dict[str, Any], part: str) -> list[Line]:
    """What the plot shows of a part: few contenders, so that they can be told apart; the tables have all. A
    contender has the same look whatever else was measured."""
    found = points(data, part)
    if part == "toy":
        return [Line(name, name, look) for look, name in enumerate(found)]
    settings = data["settings"]
    solver = f"ours, {settings['solver']}, {settings['sampler_steps']} steps"
    fast = {FAST: "ours, dpmpp_2m, 8 steps"} if FAST in found else {"solver": solver}
    shown = {"eager": "eager PyTorch, DDPM", "ours": "ours, DDPM", **fast, "tree": "ours, DDPM in a tree",
             "student": "student", "draft and finish": "draft and finish"}
    return [Line(name, label, look) for look, (name, label) in enumerate(shown.items()) if name in found]


def draw(data: dict[str, Any], path: Path) -> None:
    """Plots quality against milliseconds a decision, one panel for each measured part."""
    parts = [part for part in QUALITY if points(data, part)]
    if not parts:
        return
    figure = new_figure(6.2 * len(parts), 5.4)
    for ax, part in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        found = points(data, part)
        for line in lines(data, part):
            _draw_line(ax, found[line.contender], line)
        if part == "toy":
            floor = next(iter(data["parts"]["toy"].values()))["floor"]
            ax.axhline(floor, color="black", linewidth=1, linestyle=":", label="two draws of the target")
            ax.set_ylim(bottom=0)
        log_scale(ax, "x", [row["milliseconds"] for rows in found.values() for row in rows])
        ax.set(xlabel="milliseconds for 1,024 samples" if part == "toy" else "milliseconds a decision",
               ylabel=QUALITY[part], title=f"{part} ({'steps' if part == 'toy' else 'N'} at the points)")
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    save_figure(figure, path)


def _draw_line(ax: Any, rows: list[dict[str, Any]], line: Line) -> None:
    """A contender's points, with N and a pale interval at each."""
    color = COLORS[line.look]
    x, y = [row["milliseconds"] for row in rows], [row["quality"] for row in rows]
    for row in rows:
        if row.get("interval"):
            ax.vlines(row["milliseconds"], row["interval"]["low"], row["interval"]["high"], color=color,
                      linewidth=1.2, alpha=0.3)
        ax.annotate(f"{row['n']:,}", (row["milliseconds"], row["quality"]), xytext=(4, 4),
                    textcoords="offset points", fontsize=7, color=color)
    ax.plot(x, y, color=color, marker=MARKERS[line.look], label=line.label, linewidth=1.5)
