"""Figures of decisions, behaviours and peers, for sentences of README.md and docs/results.md."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.beside_report import JAX, OURS, lines, tasks
from benchmarks.pages.blocks import block, recorded, score
from benchmarks.score_table import behaviour_text


def times_eager(name: str) -> float:
    """Eager's time for a decision among 1,024 on umaze, divided by a contender's."""
    cells = recorded("decisions-umaze.json")["parts"]["time"]
    return cells["eager 1024"]["milliseconds"] / cells[f"{name} 1024"]["milliseconds"]


@block
def readme_decisions() -> dict[str, Any]:
    return {"tree": times_eager("tree")}


@block
def readme_scores() -> dict[str, Any]:
    return {"large": score("antmaze-large-play-v2", 5)}


@block
def goals() -> dict[str, Any]:
    kept = recorded("decisions-umaze.json")["parts"]["states"]
    return {name: times_eager(name) for name in ("tree", "ours", "solver", "all")} | {
        "quality": kept["tree 1024"]["quality"], "eager": kept["ours 1024"]["quality"]}


@block
def behaviour(task: str) -> dict[str, Any]:
    return {"score": behaviour_text(recorded(f"scores/{task}.json")["behaviour"])}


@block
def door() -> dict[str, Any]:
    apart = recorded("door.json")["starts"]["deviations"]
    return {"joints": len(apart), "least": apart[0], "most": apart[-1]}


@block
def hopper_decisions() -> dict[str, Any]:
    cells = recorded("decisions-hopper.json")["parts"]["states"]
    expected = ("ranking", "filter", "all ", "all, no guidance")  # rankings by the expected weight
    ranks = [max(cell["rank_correlation"] or 0.0 for key, cell in cells.items()
                 if key.startswith(expected) == by) for by in (False, True)]
    return {f"{who}_{n}": cells[f"{name} {n}"]["quality"]
            for who, name in (("six", "default"), ("ddpm", "ours")) for n in (1, 256, 1024)} | {
        "positive": 100 * max(cell["positive"] for cell in cells.values()),
        "sampled": ranks[0], "expected": ranks[1]}


@block
def beside_jax() -> dict[str, Any]:
    runs = recorded("beside-swg-jax.json")["runs"]
    cells = {(task, *row[:3]): row[3:] for task in tasks(runs) for row in lines(runs, task)}
    choices = {"weight": (OURS, "max_weight"), "q": (OURS, "max_q"), "jax": (JAX, "max_q")}
    found: dict[str, Any] = {}
    for i, part in enumerate(("critic", "diffusion", "decision"), 1):
        times = [float(row[i].split("(")[1][:-1]) for (_, who, n, _), row in cells.items()
                 if (who, n) == (OURS, "16")]
        found |= {f"{part}_low": min(times), f"{part}_high": max(times)}
    for name, (who, rule) in choices.items():
        for task in tasks(runs):
            found[f"{task.split('-')[0]}_{name}"] = cells[task, who, "16", rule][0]
        found[f"each_{name}"] = " and ".join(
            f"{np.mean(row['scores']):.0f}" for run in runs if run["what"]["task"] == "antmaze-umaze-v2"
            for row in run["rows"] if (row["who"], row["select"], row["n_candidates"]) == (who, rule, 16))
    return found
