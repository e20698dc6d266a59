"""The table of `beside_swg_jax.py`: printed, and as Markdown for docs/results.md."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

JAX, OURS, CROSSED = "SWG-JAX", "swg-fast", "SWG-JAX's networks in swg-fast"
COLUMNS = ("who", "N", "keeps", "score", "critic, s (x)", "diffusion, s (x)", "sampling, ms a step (x)")


def tasks(runs: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(run["what"]["task"] for run in runs))


def title(runs: list[dict[str, Any]], task: str) -> str:
    """The task's title: what was trained and played."""
    mine = [run for run in runs if run["what"]["task"] == task]
    what = mine[0]["what"]
    settings = what["settings"]
    return (f"{task}: {settings['critic_steps']:,} critic steps at batch {settings['critic_batch']} and "
            f"{settings['actor_steps']:,} diffusion steps at batch {settings['actor_batch']:,}, "
            f"{len(mine)} training seed{'s' if len(mine) > 1 else ''}, {what['episodes']} episodes each, "
            f"guidance scale {what['guidance_scale']:g}")


def lines(runs: list[dict[str, Any]], task: str) -> list[tuple[str, ...]]:
    """A row of `COLUMNS` for each of who, N and rule. Times are medians over the seeds whose training was
    timed (``training_seconds`` is None if it was paused); (x) is SWG-JAX's time divided by the row's. With
    one training seed a score's interval is over these policies' episodes; with more it is over seeds
    (stratified bootstrap)."""
    every = [row for run in runs if run["what"]["task"] == task for row in run["rows"]]
    found = []
    for place in dict.fromkeys(map(_place, every)):
        rows = [row for row in every if _place(row) == place]
        base = [row for row in every if row["who"] == JAX and row["n_candidates"] == place[1]]
        training = [_ratio(*([row["training_seconds"][phase] for row in some if row["training_seconds"]]
                             for some in (rows, base)), "{:.0f}") for phase in ("critic", "actor")]
        sampling = _ratio([row["milliseconds"] for row in rows], [row["milliseconds"] for row in base],
                          "{:.2f}")
        found.append((place[0], str(place[1]), place[2], _score(task, rows),
                      *(("-", "-") if place[0] == CROSSED else training), sampling))
    return found


def markdown(runs: list[dict[str, Any]]) -> str:
    """The tables of all tasks, each under its title."""
    parts = []
    for task in tasks(runs):
        parts += [f"{title(runs, task)}:\n", "| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|",
                  *("| " + " | ".join(row) + " |" for row in lines(runs, task)), ""]
    return "\n".join(parts).strip()


def show(runs: list[dict[str, Any]]) -> None:
    """Prints a table for each task."""
    from rich.console import Console
    from rich.table import Table

    for task in tasks(runs):
        table = Table(*COLUMNS, title=title(runs, task), title_justify="left")
        for row in lines(runs, task):
            table.add_row(*row)
        Console(width=150).print(table)


def _score(task: str, rows: list[dict[str, Any]]) -> str:
    from swg_fast.common.intervals import score_interval
    from swg_fast.envs.tasks import find_preset
    from swg_fast.sweep.metrics import interquartile_mean, stratified

    means = [float(np.mean(row["scores"])) for row in rows]
    if len(rows) > 1:
        interval = stratified([means], interquartile_mean)
    else:
        of_episodes = score_interval(rows[0]["scores"], find_preset(task).family == "antmaze")
        interval = of_episodes and (of_episodes.low, of_episodes.high)
    return f"{np.mean(means):.0f}" + (f" [{interval[0]:.0f}, {interval[1]:.0f}]" if interval else "")


def _ratio(ours: list[float], base: list[float], number: str) -> str:
    mine, theirs = statistics.median(ours), statistics.median(base)
    return f"{number.format(mine)} ({theirs / mine:.2f})"


def _place(row: dict[str, Any]) -> tuple[str, int, str]:
    return row["who"], row["n_candidates"], row["select"]
