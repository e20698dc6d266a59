"""Whether a critic knows the cost of a fall: V of upright and of overturned ants by metres to the goal.

    python -m benchmarks.maze_falls RUN [RUN ...] --data FILE.hdf5 --json F [--plot P]

An overturned ant never gets up and never reaches the goal, so its V should be the lowest return anywhere. RUN
is a folder of `swg-fast train`, finished or not. V is measured at recorded states. It is also given as steps
to the goal: the number of steps of -1 whose return is V.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.maze_ends import upright
from benchmarks.measuring import save
from swg_fast.cli.ending import run
from swg_fast.common.console import print_table
from swg_fast.common.figures import new_figure, save_figure
from swg_fast.data.load import load_for
from swg_fast.data.transitions import Transitions
from swg_fast.evaluation.inspect.learnt import load_learnt
from swg_fast.evaluation.inspect.places import way_in
from swg_fast.training.source import find_source

BANDS = (0, 5, 10, 20, 30, 40, 60)  # metres to the goal
STATES = 60_000


def places(data: Transitions, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Up to `STATES` states [N, S] from which recorded steps lead to the goal, and their metres [N] to it."""
    way, grid = way_in(data)
    if way is None:
        raise click.UsageError("no recorded step is rewarded; give the data of the task")
    chosen = np.random.default_rng(seed).choice(len(data), min(STATES, len(data)), replace=False)
    metres = way.metres[grid.at[chosen]]
    return data.observations[chosen][np.isfinite(metres)], metres[np.isfinite(metres)]


def values(run: str, data: Transitions, states: np.ndarray, metres: np.ndarray) -> dict[str, Any]:
    """Mean V of upright and of overturned ants by band of metres to the goal, and the lowest return."""
    source = find_source(run)
    settings = source.settings
    if settings is None or settings.reward_transform != "minus_one":
        raise click.UsageError(f"{run}: give a run that was trained with --reward-transform minus_one")
    learnt = load_learnt(source, lambda: data)
    if learnt.judge is None:
        raise click.UsageError(f"{run}: has no critic and value; give a run of 'swg-fast train'")
    with torch.no_grad():
        v = learnt.judge.value(torch.from_numpy(states)).numpy()
    up = upright(states)
    rows = []
    for low, high in zip(BANDS[:-1], BANDS[1:], strict=True):
        here = (metres >= low) & (metres < high)
        row: dict[str, Any] = {"metres": [low, high]}
        for name, which in (("upright", here & (up > 0.5)), ("overturned", here & (up < -0.3))):
            mean = float(v[which].mean()) if which.any() else None
            row[name] = {"states": int(which.sum()), "v": mean, "steps": steps(mean, settings.discount)}
        rows.append(row)
    return {"run": Path(run).name, "progress": learnt.progress, "bands": rows,
            "lowest_return": -1.0 / (1.0 - settings.discount), "settings": settings.to_dict()}


def steps(v: float | None, discount: float) -> float | None:
    """The number of steps of -1 whose discounted sum is ``v``; None if every such sum is higher."""
    left = None if v is None else 1.0 + v * (1.0 - discount)
    return None if left is None or left <= 0 else float(np.log(left) / np.log(discount))


@click.command()
@click.argument("runs", nargs=-1, required=True)
@click.option("--task", default="antmaze-large-play-v2", show_default=True)
@click.option("--data", type=Path, required=True, help="Recorded steps of the task.")
@click.option("--seed", default=0)
@click.option("--json", "path", type=Path, required=True)
@click.option("--plot", type=Path)
def main(runs: tuple[str, ...], task: str, data: Path, seed: int, path: Path, plot: Path | None) -> None:
    """Measures V in every RUN."""
    recorded = load_for(task, str(data))
    states, metres = places(recorded, seed)
    found = [values(run, recorded, states, metres) for run in runs]
    save(path, {"task": task, "seed": seed, "runs": found}, data_hash=recorded.fingerprint())
    for each in found:
        print_table(f"{each['run']} ({each['progress']}); lowest return {each['lowest_return']:.0f}", [
            ("{}-{} m left".format(*row["metres"]), f"upright {_text(row['upright'])}, "
             f"overturned {_text(row['overturned'])}") for row in each["bands"]])
    if plot:
        draw(found, plot)


def _text(part: dict[str, Any]) -> str:
    if part["v"] is None:
        return "-"
    after = "never" if part["steps"] is None else f"{part['steps']:.0f} steps"
    return f"{part['v']:.0f} ({after}; {part['states']:,} states)"


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Draws a panel for each run: V as steps to the goal, which compares runs of different discounts."""
    figure = new_figure(4.2 * len(found), 3.4)
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)
    for axes, each in zip(panels[0], found, strict=True):
        middle = [sum(row["metres"]) / 2 for row in each["bands"]]
        for name, colour, marker in (("upright", "#0072B2", "o"), ("overturned", "#D55E00", "s")):
            left = [np.nan if row[name]["steps"] is None else row[name]["steps"] for row in each["bands"]]
            axes.plot(middle, left, color=colour, marker=marker, label=name)
        axes.set(title=each["run"], xlabel="metres left")
        axes.grid(alpha=0.3)
    panels[0][0].set_ylim(bottom=0)
    panels[0][0].set_ylabel("steps to the goal by V")
    panels[0][0].legend(fontsize=8)
    save_figure(figure, path, dpi=150)


if __name__ == "__main__":
    run(main)
