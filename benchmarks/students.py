"""Scores of students over N, from the sweeps experiments/student.toml, best_of.toml and candidates.toml.

    swg-fast sweep experiments/student.toml --out runs/student && swg-fast report runs/student
    cp runs/student/report/results.json experiments/results/student.json
    python -m benchmarks.students --cards

The episodes of all evaluation seeds are taken together, with one interval. --cards writes the scores into the
bundled policies' model cards. `python -m benchmarks.pages` makes the pages' table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from benchmarks.experiment_tables import RESULTS
from benchmarks.score_table import cell
from swg_fast.cli.ending import run
from swg_fast.common.intervals import score_interval
from swg_fast.common.read_files import read_json
from swg_fast.policy.checkpoint import add_to_card

STUDENT, BEST, MEANS = (RESULTS / f"{name}.json" for name in ("student", "best_of", "candidates"))
OF_BEST = {"hopper-medium-v2": "hopper-medium-v2, again"}  # bundled, and the experiment's place


def scores(path: Path = STUDENT, only: Callable[[dict[str, Any]], bool] = lambda _: True
           ) -> dict[str, list[dict[str, Any]]]:
    """The experiment's places and their rows by N, temperature and average: score, interval, number of
    episodes. ``only`` those results are taken."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for each in read_json(path)["results"]:
        settings = each["settings"]
        if only(each):
            key = (each["axes"]["place"], settings["n_candidates"], settings.get("temperature"),
                   settings.get("average_share", 0.0))
            found.setdefault(key, []).append(each)
    rows: dict[str, list[dict[str, Any]]] = {}
    for (place, n, temperature, share), cells in sorted(found.items()):
        rows.setdefault(place, []).append(
            {"n_candidates": n, "temperature": temperature, "select": cells[0]["settings"]["select"],
             "average_share": share, "sampler": "student"} | _pooled([each["result"] for each in cells]))
    return rows


def bundled() -> dict[str, list[dict[str, Any]]]:
    """Task -> the rows of the student that its bundled policy holds."""
    best, means = scores(BEST), scores(MEANS, lambda each: (
        each["policy"] == each["task"] and each["settings"].get("temperature") == 1
        and each["settings"].get("average_share", 0) > 0))
    found = scores() | {task: best[place] for task, place in OF_BEST.items()}
    return {task: rows + means.get(task, []) for task, rows in found.items()}


def _pooled(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The episodes of several evaluations as one."""
    each = [score for result in results for score in result["scores"]]
    interval = score_interval(each, set(each) <= {0.0, 100.0})
    return {"normalized_score": sum(each) / len(each), "interval": interval and asdict(interval),
            "episodes": len(each)}


RANKED = {  # contenders of benchmarks.decisions, and their rankings in experiments/candidates.toml
    "student": "weight",
    "student mean": "mean of the best 1/32",
    "student supported": "weight, best quarter by support",
    "student expected weight": "expected weight",
    "student lcb_weight": "lower bound of the weight",
    "student lcb_q": "lower bound of Q"}


def ranking_times(times: dict[str, Any], counts: tuple[int, ...] = (64, 256)) -> str:
    """A line for each ranking on umaze: milliseconds of a decision and score, by N."""
    cells: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for each in read_json(MEANS)["results"]:
        axes = each["axes"]
        if (axes["place"], axes["noise"]) == ("antmaze-umaze-v2", "temperature 1"):
            key = axes["ranking"], each["settings"]["n_candidates"]
            cells.setdefault(key, []).append(each["result"])
    head = " | ".join(f"N = {n:,}: ms | score" for n in counts)
    lines = [f"| kept by | {head} |", "|---" * (1 + 2 * len(counts)) + "|"]
    for contender, ranking in RANKED.items():
        line = [ranking]
        for n in counts:
            found = cells.get((ranking, n))
            line += [f"{times['parts']['time'][f'{contender} {n}']['milliseconds']:.3g}",
                     cell(_pooled(found)) if found else "-"]
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines)


def markdown(rows: dict[str, list[dict[str, Any]]]) -> str:
    """A line for each task, a column for each N."""
    counts = sorted({row["n_candidates"] for line in rows.values() for row in line})
    lines = ["| task | " + " | ".join(f"N = {n:,}" for n in counts) + " |", "|---" * (len(counts) + 1) + "|"]
    for task, line in rows.items():
        by = {row["n_candidates"]: cell(row) for row in line}
        lines.append(f"| {task} | " + " | ".join(by.get(n, "-") for n in counts) + " |")
    return "\n".join(lines)


@click.command()
@click.option("--cards", is_flag=True, help="Write the scores into the bundled policies' cards.")
def main(cards: bool) -> None:
    """Prints the table of the students' scores."""
    click.echo(markdown(scores()))
    for task, rows in bundled().items() if cards else ():
        add_to_card(task, scores=rows)


if __name__ == "__main__":
    run(main)
