"""Whether n_candidates="auto" is right: the judges' number of candidates beside what the scores say.

    python -m benchmarks.auto_candidates

Both are read from the bundled policies' cards: `swg-fast inspect --judge --record` writes the judgement, and
`python -m benchmarks.students --cards` the scores. One rule serves both: the smallest N whose value is within
a standard error of the highest. `python -m benchmarks.pages` makes the page's table.
"""

from __future__ import annotations

from typing import Any

import click

from benchmarks.score_table import cell
from benchmarks.students import OF_BEST, bundled
from swg_fast.cli.ending import run
from swg_fast.policy.checkpoint import find_checkpoint, load_checkpoint
from swg_fast.policy.model_card import JUDGED
from swg_fast.policy.policy import Policy

TASKS = ("antmaze-umaze-v2", "antmaze-large-play-v2", *OF_BEST)
SAME = ("sampler", "select", "temperature", "average_share")  # what a row of scores names
ERRORS = 2 * 1.96  # standard errors in an interval


def judgements() -> dict[str, dict[str, Any]]:
    """Of each bundled policy: ``judged``, its N by the judge; ``measured``, that of its scores; and the
    ``rows`` of scores with the settings that were judged, by N."""
    return {task: judgement(task) for task in TASKS}


def judgement(task: str) -> dict[str, Any]:
    """That of one policy. `UsageError` where its card has none for its settings."""
    policy = Policy(**load_checkpoint(find_checkpoint(task)).parts())
    judged = policy.card[JUDGED]["settings"]
    rows = {}
    for row in bundled()[task]:
        averages = policy.settings(n_candidates=row["n_candidates"]).averaged > 1
        wanted = judged | {"average_share": judged["average_share"] if averages else 0.0}
        if all(row[name] == wanted[name] for name in SAME):
            rows[row["n_candidates"]] = row
    return {"judged": policy.settings(n_candidates="auto").n_candidates, "measured": measured(rows),
            "rows": rows}


def measured(rows: dict[int, dict[str, Any]]) -> int:
    """The smallest N of ``rows`` whose score is within a standard error of the highest."""
    best = max(rows.values(), key=lambda row: row["normalized_score"])
    error = (best["interval"]["high"] - best["interval"]["low"]) / ERRORS
    return min(n for n, row in rows.items() if row["normalized_score"] >= best["normalized_score"] - error)


def markdown(found: dict[str, dict[str, Any]]) -> str:
    """A line for each policy."""
    lines = ["| policy | `auto` | by the scores | score there | highest score |", "|---|---|---|---|---|"]
    for task, each in found.items():
        rows = each["rows"]
        best = max(rows, key=lambda n: rows[n]["normalized_score"])
        lines.append(f"| {task} | {each['judged']:,} | {each['measured']:,} | {cell(rows[each['judged']])} | "
                     f"{cell(rows[best])} of {best:,} |")
    return "\n".join(lines)


@click.command()
def main() -> None:
    """Prints the table."""
    click.echo(markdown(judgements()))


if __name__ == "__main__":
    run(main)
