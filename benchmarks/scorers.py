"""What the scores are worth by which candidates can be ranked, by the critic of another training.

    python -m benchmarks.scorers --judge hopper-medium-v2=runs/hopper-1/policy,hopper.hdf5 ...

For each bundled policy, from the same noise: the student's weight; the teacher's weight at the end of the
walk that the student has learnt; the expected weight of either's candidates; and the policy's own critic. The
figures are those of `swg-fast inspect --judge`. `python -m benchmarks.pages` makes the pages' table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.measuring import save, threads_option
from swg_fast.cli.ending import run
from swg_fast.common.errors import UsageError
from swg_fast.data.load import load_for
from swg_fast.evaluation.inspect import scorer
from swg_fast.evaluation.inspect.measure import Draws, some
from swg_fast.method.sampler_names import STUDENT
from swg_fast.policy.checkpoint import load_checkpoint
from swg_fast.policy.policy import Policy

RESULT = Path(__file__).parent / "results" / "scorers.json"
SCORERS = {"student's weight": (STUDENT, "max_weight"),
           "student, expected weight": (STUDENT, "expected_weight"),
           "student, critic": (STUDENT, "max_q"), "teacher's weight": ("teacher", "max_weight"),
           "teacher, expected weight": ("teacher", "expected_weight")}


def judged(task: str, judge: str, states: np.ndarray, draws: Draws) -> dict[str, dict[str, Any]]:
    """The figures of each of `SCORERS`, for some of the ``states`` [N, S]."""
    model = load_checkpoint(task)
    walk = model.walk
    if walk is None:
        raise UsageError(f"{task}: this policy has no student")
    chosen = some(states, draws)
    found = {}
    for name, (drawn_by, select) in SCORERS.items():
        settings: dict[str, Any] = {"sampler": STUDENT} if drawn_by == STUDENT else {
            "sampler": walk.sampler, "sampler_steps": walk.sampler_steps}
        policy = Policy(**model.parts(), defaults=settings | {
            "select": select, "guidance_scale": walk.default_scale, "temperature": 1.0})
        critic, described = scorer.load_judge(judge, policy)
        found[name] = scorer.judged(policy, critic, described, chosen, draws)
    return found


def markdown(tasks: dict[str, dict[str, dict[str, Any]]]) -> str:
    """A line for each score, a column for each task: rank correlation with the judge and its interval."""
    lines = ["| ranked by | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for name in SCORERS:
        cells = []
        for found in tasks.values():
            each, low_high = found[name], found[name]["interval"]
            cells.append(f"{each['rank_correlation']:.2f} [{low_high['low']:.2f}, {low_high['high']:.2f}]")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@click.command()
@click.option("--judge", "judges", multiple=True, required=True, metavar="TASK=POLICY,DATA",
              help="Another seed's policy, and the data of its task.")
@click.option("--states", "n_states", default=256)
@click.option("--candidates", "n_judged", default=64)
@click.option("--json", "path", type=Path, default=RESULT)
@threads_option
def main(judges: tuple[str, ...], n_states: int, n_judged: int, path: Path) -> None:
    """Measures the scores of the bundled policies."""
    draws, tasks = Draws(n_states=n_states, n_judged=n_judged), {}
    for text in judges:
        task, _, rest = text.partition("=")
        judge, _, data = rest.partition(",")
        loaded = load_for(task, data)
        tasks[task] = judged(task, judge, loaded.observations, draws)
        save(path, {"settings": {"states": n_states, "candidates": n_judged}, "tasks": tasks},
             data_hash=loaded.fingerprint())  # of the newest task
    click.echo(markdown(tasks))


if __name__ == "__main__":
    run(main)
