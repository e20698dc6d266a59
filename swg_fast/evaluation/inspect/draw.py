"""The pictures of `inspect_run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swg_fast.common.errors import UsageError
from swg_fast.common.figures import log_scale, new_figure, save_figure
from swg_fast.envs.base import Maze
from swg_fast.evaluation.inspect.measure import Sampled
from swg_fast.evaluation.inspect.places import BIN, Grid, Way
from swg_fast.evaluation.report import draw_walls
from swg_fast.training.settings import TrainSettings

BLUE, ORANGE = "#0072b2", "#d55e00"  # Okabe-Ito


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, np.ndarray]:
    figure = new_figure(width, height)
    return figure, figure.subplots(rows, columns, squeeze=False).ravel()


def values(value: np.ndarray, returns: np.ndarray, path: Path) -> None:
    """V [N] against the discounted return to go [N], and the spread of both."""
    figure, (left, right) = _figure(11, 4.4, 1, 2)
    known = np.isfinite(returns)
    if known.any():
        dots = left.hexbin(returns[known], value[known], gridsize=70, bins="log", cmap="viridis", mincnt=1)
        figure.colorbar(dots, ax=left, label="states")
        ends = [returns[known].min(), returns[known].max()]
        left.plot(ends, ends, color=ORANGE, linewidth=1.2, label="V = return")
        left.legend(loc="best", fontsize=8)
    left.set(xlabel="discounted return to go of the recording", ylabel="V(s)",
             title="value against return, where the return is known")
    right.hist(value, bins=80, color=BLUE, alpha=0.7, label="V(s)", density=True)
    if known.any():
        right.hist(returns[known], bins=80, color=ORANGE, histtype="step", linewidth=1.5, density=True,
                   label="return to go")
    right.set(xlabel="value", ylabel="density", title="spread")
    right.legend(fontsize=8)
    save_figure(figure, path, dpi=120)


def advantages(advantage: np.ndarray, positive: float, path: Path) -> None:
    """Histogram of the recorded actions' advantages [N]."""
    figure, (axes,) = _figure(7, 4.2)
    for part, colour, label in ((advantage[advantage <= 0], ORANGE, f"{1 - positive:.1%} at or below 0"),
                                (advantage[advantage > 0], BLUE, f"{positive:.1%} above 0")):
        axes.hist(part, bins=_edges(advantage), color=colour, label=label)
    axes.set(xlabel="u = min target Q(s, a) - V(s) of recorded actions", ylabel="transitions",
             title="advantages")
    log_scale(axes, "y", (0.8, len(advantage)))
    axes.legend()
    save_figure(figure, path, dpi=120)


def _edges(x: np.ndarray) -> np.ndarray:
    """Bins of which one begins at 0."""
    width = max(float(np.ptp(x)) / 100, 1e-12)
    return width * np.arange(np.floor(x.min() / width), np.ceil(x.max() / width) + 2)


def maze(task: str, grid: Grid, way: Way | None, value: np.ndarray, walking: np.ndarray,
         positive: np.ndarray, settings: TrainSettings, path: Path, trust: Sequence[str]) -> None:
    """Over the maze: mean V of all states; mean V of states that lead to another bin, as steps to the goal
    where rewards are -1 a step; the share of positive advantages; the distance to the goal along recorded
    steps. ``value``, ``walking`` and ``positive`` are [bins]."""
    panels: list[tuple[str, np.ndarray, str]] = [("mean V(s)", value, "viridis")]
    if settings.reward_transform == "minus_one":
        with np.errstate(invalid="ignore"):
            left = np.clip(1 + (1 - settings.discount) * walking, 1e-4, None)
        panels.append(("steps to the goal by V, of ants on the move",
                       np.log(left) / np.log(settings.discount), "viridis_r"))
    else:
        panels.append(("mean V(s) of ants on the move", walking, "viridis"))
    panels.append(("share of positive advantages", positive, "cividis"))
    if way is not None:
        panels.append(("metres to the goal along recorded steps",
                       np.where(np.isfinite(way.metres), way.metres, np.nan), "viridis_r"))
    else:
        panels.append(("states", np.where(grid.count > 0, grid.count, np.nan).astype(float), "viridis"))
    left, right, bottom, top = np.array(grid.extent) + np.array([-1, 1, -1, 1])
    columns = 2
    rows = -(-len(panels) // columns)
    height = 5.2 * (top - bottom) / (right - left) + 1.1
    figure, axes = _figure(13, rows * height, rows, columns)
    walls = _walls(task, trust)
    for ax, (title, bins, colours) in zip(axes, panels, strict=False):
        image = ax.imshow(bins.reshape(grid.shape), origin="lower", extent=grid.extent, cmap=colours,
                          interpolation="nearest")
        figure.colorbar(image, ax=ax, shrink=0.8)
        if walls is not None:
            draw_walls(ax, walls, alpha=0.35, zorder=0)
        if way is not None:
            ax.plot(*way.goal, "*", color="#f0e442", markeredgecolor="black", markersize=15)
        ax.set(title=title, xlabel="x (m)", ylabel="y (m)", xlim=(left, right), ylim=(bottom, top))
    for ax in axes[len(panels):]:
        ax.set_axis_off()
    figure.suptitle(f"{task} in bins of {BIN:g} m; white: too few recorded states")
    save_figure(figure, path, dpi=120)


def _walls(task: str, trust: Sequence[str]) -> Maze | None:
    """The maze of ``task``; None where this machine cannot make its environment."""
    from swg_fast.envs import make_env

    try:
        return make_env(task, trust=trust).maze()
    except UsageError:
        return None


def weights(drawn: Mapping[float, Sampled], path: Path) -> None:
    """For each guidance scale: sampled weights against advantages, and their correlation within each
    state."""
    figure, axes = _figure(11, 4.2 * len(drawn), len(drawn), 2)
    for row, (rho, (weight, advantage, correlation)) in enumerate(drawn.items()):
        left, right = axes[2 * row:2 * row + 2]
        shown, outside = _without_outliers(weight.ravel())
        dots = left.hexbin(advantage.ravel()[shown], weight.ravel()[shown], gridsize=60, bins="log",
                           cmap="viridis", mincnt=1)
        figure.colorbar(dots, ax=left, label="candidates")
        left.axvline(0, color=ORANGE, linewidth=1)
        left.set(xlabel="advantage by the critic", ylabel="predicted weight",
                 title=f"candidates, guidance {rho:g}{outside}")
        right.hist(correlation, bins=np.linspace(-1, 1, 41), color=BLUE)
        right.axvline(0, color="black", linewidth=0.8)
        if len(correlation):
            mean = correlation.mean()
            right.axvline(mean, color=ORANGE, linewidth=1.8, label=f"mean {mean:.3f}")
            right.legend(fontsize=9)
        right.set(xlabel="rank correlation of weight and advantage within a state", ylabel="states",
                  title=f"within {len(correlation)} states, guidance {rho:g}")
    save_figure(figure, path, dpi=120)


def _without_outliers(values: np.ndarray) -> tuple[np.ndarray, str]:
    """Which of ``values`` [N] lie within three times the spread of the middle 98 % around it, and words that
    count the others: a strongly guided walk's weight is now and then far off, and would flatten the rest."""
    low, high = np.percentile(values, (1, 99))
    reach = 3 * (high - low)
    shown = (values >= low - reach) & (values <= high + reach)
    left = int((~shown).sum())
    return shown, f" ({left:,} of {len(values):,} weights lie outside)" if left else ""


def scorer(figures: Mapping[str, Any], path: Path) -> None:
    """What a judge thinks of the kept candidate, against the number of candidates that it was kept of."""
    figure, (axes,) = _figure(7, 4.2)
    counts = [int(n) for n in figures["kept"]]
    axes.plot(counts, [each["mean"] for each in figures["kept"].values()], "o-", color=BLUE)
    for n, each in zip(counts, figures["kept"].values(), strict=True):
        if each["interval"]:
            axes.plot([n, n], [each["interval"]["low"], each["interval"]["high"]], color=BLUE, linewidth=1)
    axes.axvline(figures["enough"], color=ORANGE, linewidth=1.2, label=f"enough: N = {figures['enough']:,}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [f"{n:,}" for n in counts])
    axes.set_title(f"kept by {figures['settings']['select']}, judged by another critic")
    axes.set(xlabel="candidates N",
             ylabel="judge's value of the kept one,\nin deviations of a state's candidates")
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path, dpi=120)


def losses(history: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Every loss of a run's history against the step, in training and held out."""
    names = {phase: sorted({key.split("/")[1].removeprefix("held_out_") for line in lines for key in line
                            if key.endswith("_loss")}) for phase, lines in history.items()}
    panels = [(phase, name) for phase, found in names.items() for name in found]
    figure, axes = _figure(11, 3.4 * -(-len(panels) // 2), -(-len(panels) // 2), 2)
    for ax, (phase, name) in zip(axes, panels, strict=False):
        drawn: list[float] = []
        for key, style, label in ((f"{phase}/{name}", "-", "training"),
                                  (f"{phase}/held_out_{name}", "--", "held out")):
            points = [(line["step"], line[key]) for line in history[phase] if line.get(key) is not None]
            if points:
                ax.plot(*zip(*points, strict=True), style, marker="." if len(points) < 30 else None,
                        color=BLUE if style == "-" else ORANGE, label=label, linewidth=1.2)
                drawn += [loss for _, loss in points]
        ax.set(xlabel=f"{phase} step", title=f"{phase}: {name.replace('_', ' ')}")
        ax.set_xlim(0, 1.04 * max(line["step"] for line in history[phase]))
        ax.xaxis.set_major_formatter("{x:,.0f}")
        log_scale(ax, "y", drawn)
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    for ax in axes[len(panels):]:
        ax.set_axis_off()
    save_figure(figure, path, dpi=120)
