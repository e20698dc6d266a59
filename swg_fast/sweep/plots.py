"""A report's pictures: estimates with their intervals, and the trainings' curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swg_fast.common.figures import new_figure, plain, save_figure
from swg_fast.sweep.views import Block, short, shown

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe-Ito
MARKERS = "os^Dv*PX"  # one more than colours, so the first 56 lines all look different
DASHES = ("-", "--", ":")  # another each time the colours begin again
WIDTH = 2  # panels side by side
NAN = float("nan")


def draw(blocks: list[Block], path: Path) -> None:
    """The panels of one view and metric: a line for each row of the table, over its columns, with intervals.
    Columns that are numbers are placed by value, names at equal distances."""
    across = min(WIDTH, len(blocks))
    down = -(-len(blocks) // across)
    figure = new_figure(1.2 + 5.2 * across, 0.8 + 3.6 * down)
    axes = figure.subplots(down, across, squeeze=False)
    for block, panel in zip(blocks, axes.flat, strict=False):
        _panel(panel, block)
    for panel in axes.flat[len(blocks):]:
        panel.set_axis_off()
    handles, labels = axes.flat[0].get_legend_handles_labels()
    if len(labels) > 1:
        legend_below(figure, handles, labels, most=4, fontsize=9, title=short(blocks[0].view.rows),
                     title_fontsize=9)
    figure.suptitle(f"{blocks[0].view.title}\n{blocks[0].metric.title}", fontsize=11)
    save_figure(figure, path)


def legend_below(figure: Any, handles: list[Any], labels: list[str], most: int, **settings: Any) -> Any:
    """A legend below the panels, in at most ``most`` columns and as many as its longest label allows. The
    figure grows by its lines after the first, so that the panels keep their height."""
    inches = 0.75 + 0.009 * settings["fontsize"] * max(map(len, labels))
    columns = max(1, min(most, len(labels), int(figure.get_figwidth() / inches)))
    more = -(-len(labels) // columns) - 1
    figure.set_figheight(figure.get_figheight() + 0.022 * settings["fontsize"] * more)
    return figure.legend(handles, labels, loc="outside lower center", frameon=False, ncols=columns,
                         **settings)


def _panel(axes: Any, block: Block) -> None:
    lines = block.rows if block.view.columns else [None]
    points = block.columns if block.view.columns else block.rows
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in points)
    numbers = numbers and len(points) > 2
    for i, line in enumerate(lines):
        found = [(j, block.values.get((line, x) if block.view.columns else (x, None)))
                 for j, x in enumerate(points)]
        found = [(j, one) for j, one in found if one is not None]
        # Side by side, so that intervals at one place do not hide each other.
        offset = 0.0 if numbers else min(0.1, 0.5 / max(1, len(lines) - 1)) * (i - (len(lines) - 1) / 2)
        xs = [points[j] if numbers else j + offset for j, _ in found]
        # NaN draws nothing; a bar without length would look like an interval.
        errors = [[NAN if end is None else max(0.0, sign * (end - one.value)) for _, one in found
                   for end in (one.low if sign < 0 else one.high,)] for sign in (-1, 1)]
        color = COLORS[i % len(COLORS)]
        axes.errorbar(xs, [one.value for _, one in found], yerr=errors, color=color, capsize=3, markersize=5,
                      marker=MARKERS[i % len(MARKERS)], linestyle=dash(i) if numbers else "",
                      label=shown(line), alpha=0.9)
    _scale(axes, points, numbers)
    axes.set_xlabel(short(block.view.columns or block.view.rows))
    axes.set_title(block.panel, fontsize=10)
    axes.grid(alpha=0.3)
    if block.name in ("score", "success", "iqm"):
        bottom, top = axes.get_ylim()
        axes.set_ylim(min(0, bottom), max(top, 1.05 * axes.dataLim.y1))  # no marker cut at the top


def dash(line: int) -> str:
    """How a line is drawn, by its number."""
    return DASHES[line // len(COLORS) % len(DASHES)]


def _scale(axes: Any, points: list[Any], numbers: bool) -> None:
    """A logarithmic axis for numbers that span more than a factor 16; a tick for each name."""
    if not numbers:
        names = [plain(shown(x)) for x in points]
        # A turned name ends at its tick; centred, it would reach below the next tick.
        turned = {"rotation": 20, "ha": "right", "rotation_mode": "anchor"} if len(points) > 4 else {}
        axes.set_xticks(range(len(points)), names, **turned)
        axes.set_xlim(-0.5, len(points) - 0.5)
        return
    if min(points) > 0 and max(points) / min(points) > 16:
        axes.set_xscale("log", base=2)
        axes.minorticks_off()
    axes.set_xticks(points, [shown(x) for x in points])


def draw_curves(histories: dict[str, dict[str, list[dict[str, float]]]], path: Path) -> bool:
    """Draws the trainings' held-out losses over their steps, by label; False where there are none."""
    names = list(dict.fromkeys(name for history in histories.values() for lines in history.values()
                               for line in lines for name in line if "held_out" in name))
    if not names:
        return False
    figure = new_figure(1.2 + 4.4 * min(3, len(names)), 3.6 * -(-len(names) // 3))
    axes = figure.subplots(-(-len(names) // 3), min(3, len(names)), squeeze=False)
    for name, panel in zip(names, axes.flat, strict=False):
        for i, (label, history) in enumerate(histories.items()):
            lines = [line for line in history.get(name.split("/")[0], []) if name in line]
            panel.plot([line["step"] for line in lines], [line[name] for line in lines], label=label,
                       color=COLORS[i % len(COLORS)], linewidth=1.1,
                       linestyle=dash(i))
        panel.set_title(name.replace("held_out_", "held-out "), fontsize=10)
        panel.set(xlabel="step")
        panel.grid(alpha=0.3)
    for panel in axes.flat[len(names):]:
        panel.set_axis_off()
    if 1 < len(histories) <= 12:
        legend_below(figure, *axes.flat[0].get_legend_handles_labels(), most=3, fontsize=8)
    save_figure(figure, path)
    return True
