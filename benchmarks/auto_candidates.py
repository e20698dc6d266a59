"""Whether n_candidates="auto" is right: the judges' number of candidates beside what the scores say.

    python -m benchmarks.auto_candidates hopper-medium-replay-v2 runs/hopper-replay/policy \\
        --judge runs/hopper-replay-1/policy --dataset hopper-replay.hdf5 --temperature 0.5

The bundled policies' judgements are in their cards, by `swg-fast inspect --judge --record`; the command adds
that of another policy, with the mean of the best thirty-second. The scores are those of the experiments
student.toml, best_of.toml and candidates.toml. One rule serves both: the smallest N whose value is within a
standard error of the highest. `python -m benchmarks.pages` makes the page's table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from benchmarks.measuring import save, threads_option
from benchmarks.score_table import cell
from benchmarks.students import MEANS, OF_BEST, bundled, scores
from swg_fast.cli.ending import run
from swg_fast.common.read_files import read_json
from swg_fast.data.load import load_for
from swg_fast.evaluation.inspect import scorer
from swg_fast.evaluation.inspect.measure import Draws, some
from swg_fast.policy.checkpoint import load_checkpoint
from swg_fast.policy.model_card import JUDGED
from swg_fast.policy.policy import Policy
from swg_fast.policy.sampling import SamplingConfig

RESULT = Path(__file__).parent / "results" / "auto-candidates.json"
TASKS = ("antmaze-umaze-v2", "antmaze-large-play-v2", *OF_BEST)
SAME = ("sampler", "select", "temperature")  # what a row of scores names, beside its average
SHARE = 1 / 32
ERRORS = 2 * 1.96  # standard errors in an interval


def judgements() -> dict[str, dict[str, Any]]:
    """Of each policy `beside`: of the bundled ones as their cards have it, then of the others."""
    own, others = bundled(), read_json(RESULT)["tasks"]
    return {task: beside(load_checkpoint(task).card[JUDGED], own[task]) for task in TASKS} | {
        task: beside(judged, _scores_at(judged)[task]) for task, judged in others.items()}


def _scores_at(judged: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    temperature = judged["settings"]["temperature"]
    return scores(MEANS, lambda each: each["settings"].get("temperature") == temperature)


def beside(judged: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """``judged``, the N that is enough by the judge; ``measured``, that of the scores; and those ``rows`` of
    scores that have the settings that were judged, by N."""
    settings, found = judged["settings"], {}
    for row in rows:
        n, share = row["n_candidates"], settings["average_share"]
        averages = SamplingConfig(n_candidates=n, average_share=share).averaged > 1
        if row["average_share"] == (share if averages else 0.0) and all(
                row[name] == settings[name] for name in SAME):
            found[n] = row
    return {"judged": judged["enough"], "measured": measured(found), "rows": found}


def measured(rows: Mapping[int, Mapping[str, Any]]) -> int:
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
@click.argument("task")
@click.argument("policy")
@click.option("--judge", required=True, help="A policy of another seed.")
@click.option("--dataset", required=True)
@click.option("--temperature", default=1.0)
@click.option("--states", "n_states", default=256)
@click.option("--candidates", "n_judged", default=1024)
@click.option("--json", "path", type=Path, default=RESULT)
@threads_option
def main(task: str, policy: str, judge: str, dataset: str, temperature: float, n_states: int, n_judged: int,
         path: Path) -> None:
    """Judges a policy that is not bundled, and prints what the judge says."""
    data, draws = load_for(task, dataset), Draws(n_states=n_states, n_judged=n_judged)
    own = Policy(**load_checkpoint(policy).parts(), defaults={
        "sampler": "student", "temperature": temperature, "average_share": SHARE})
    critic, described = scorer.load_judge(judge, own)
    figures = scorer.judged(own, critic, described, some(data.observations, draws), draws)
    save(path, {"tasks": {task: figures}}, data_hash=data.fingerprint())
    click.echo(f"{task}: N = {figures['enough']:,} is enough by the {described}")


if __name__ == "__main__":
    run(main)
