"""D4RL scores of a policy over N and guidance scale: a JSON, a plot, the model card's table.

    python -m benchmarks.score_table antmaze-umaze-v2 --json benchmarks/results/scores/antmaze-umaze-v2.json

Each cell is written when it is done; run again to continue after an interrupt. Intervals are of 95 %
(`swg_fast.common.intervals`). --data adds the behaviour's own score, for whole recorded episodes and for
their steps within the task's limit. The JSONs of a folder results/scores/walks/NAME, one for each sampler,
number of steps and temperature, make one table of the pages.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.measuring import (
    ROOT,
    Several,
    policy_option,
    read_result,
    recorded,
    save,
    threads_option,
)
from swg_fast.cli.ending import run
from swg_fast.common.atomic_files import sha256
from swg_fast.common.errors import UsageError
from swg_fast.common.figures import new_figure, save_figure
from swg_fast.common.intervals import interval_text, score_interval
from swg_fast.data.hdf5 import read_hdf5
from swg_fast.envs import make_env
from swg_fast.evaluation.episodes import evaluate
from swg_fast.policy.checkpoint import add_to_card
from swg_fast.policy.policy import Policy, load_policy

SCORES = ROOT / "benchmarks" / "results" / "scores"
WALKS = SCORES / "walks"
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#000000")  # Okabe-Ito
MARKERS = "os^Dv"


def cells(counts: list[int], scales: list[float], selections: list[str]) -> list[tuple[int, float, str]]:
    """The table's (N, guidance scale, selection), small N first; one candidate has nothing to select."""
    return [(n, rho, "none" if n == 1 else select) for n in sorted(counts) for rho in scales
            for select in (selections[:1] if n == 1 else selections)]


def parts(selection: str) -> dict[str, Any]:
    """``max_weight/ranker/0.25`` as keywords of `Policy.sample`."""
    found: dict[str, Any] = dict(zip(("select", "ranking", "keep_share"), selection.split("/"), strict=False))
    return found | {"keep_share": float(found.get("keep_share", 1)), "average_share": 0.0}


@dataclass(frozen=True)
class Row:
    """What is read of a cell. ``interval`` has low and high; None for one episode."""

    n_candidates: int
    guidance_scale: float
    select: str
    temperature: float
    normalized_score: float
    interval: dict[str, Any] | None


@dataclass(frozen=True)
class Scores:
    """The JSON."""

    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Walk(Scores):
    """The JSON of a sampler that walks fewer steps, or all (None)."""

    sampler: str
    sampler_steps: int | None


@dataclass(frozen=True)
class Asked:
    """The cells to play and their settings. None means the policy's own setting; for ``temperature``, 0 for
    one candidate and 1 for more."""

    candidates: list[int]
    guidance_scales: list[float]
    selections: list[str]
    temperature: float | None
    sampler: str | None
    sampler_steps: int | None
    episodes: int
    large_episodes: int
    dtype: str
    workers: int | None


@click.command()
@click.argument("task")
@policy_option
@click.option("--candidates", type=Several(), default="1,4,16,64,256")
@click.option("--guidance-scales", type=Several(float), default="0,1,5,10,20")
@click.option("--select", "selections", type=Several(str), default="max_weight",
              help="Each SELECT, SELECT/RANKING or SELECT/RANKING/SHARE, such as max_weight/ranker/0.25.")
@click.option("--temperature", type=float, help="[default: 0 for one candidate, 1 for more]")
@click.option("--sampler", help="One for the whole table.  [default: the policy's]")
@click.option("--sampler-steps", type=int, help="[default: the policy's]")
@click.option("--episodes", default=100)
@click.option("--large-episodes", default=25, help="Episodes for N of 64 and above.")
@click.option("--device", default="cpu", help="cpu, cuda or cuda:N.  [default: cpu]")
@click.option("--dtype", default="auto")
@click.option("--workers", type=int)
@threads_option
@click.option("--seed", default=0)
@click.option("--seeds", type=Several(),
              help="Several evaluation seeds, such as 0,1,2; --episodes are for each.")
@click.option("--data", "data_path", type=Path, help="D4RL HDF5 file that the policy was trained on.")
@click.option("--json", "json_path", type=Path, required=True)
@click.option("--plot", "plot_path", type=Path)
@click.option("--card", is_flag=True, help="Write the table into the policy's model card.")
def main(task: str, policy_name: str | None, device: str, seed: int, seeds: list[int] | None,
         data_path: Path | None, json_path: Path, plot_path: Path | None, card: bool, **options: Any) -> None:
    asked, name = Asked(**options), policy_name or task
    policy = load_policy(name, device)
    own = policy.settings(sampler=asked.sampler, sampler_steps=asked.sampler_steps)
    same = {"seeds": seeds or [seed], "sampler": own.sampler, "sampler_steps": own.sampler_steps}
    kept = recorded(json_path, same | {"rows": []}, Scores)
    for setting, value in same.items():
        if kept.get(setting) != value:
            raise UsageError(f"{json_path} has scores with {setting} = {kept.get(setting)}; give that, "
                                   "or another file")
    if data_path:
        kept["behaviour"] = behaviour(task, data_path)
        save(json_path, kept, policy.device, sha256(data_path))
    play(policy, task, asked, same, kept, json_path)
    if plot_path:
        draw(task, kept["rows"], plot_path)
    if card:
        used = policy.backend("auto", asked.dtype)
        add_to_card(name, scores=kept["rows"], scores_backend=f"{used.name} {used.dtype}")


def play(policy: Policy, task: str, asked: Asked, same: dict[str, Any], kept: dict[str, Any], path: Path
         ) -> None:
    """Plays the cells that ``kept`` lacks; writes it to ``path`` after each. All share ``same``: seeds,
    sampler."""
    rows, used = kept["rows"], policy.backend("auto", asked.dtype)
    known = {(row["n_candidates"], row["guidance_scale"], row["select"], row["temperature"])
             for row in rows}
    for row in rows:  # older files name the backend once for all rows
        row.setdefault("backend", kept.get("backend"))
    walk = {key: value for key, value in same.items() if key != "seeds"}
    for n, rho, select in cells(asked.candidates, asked.guidance_scales, asked.selections):
        heat = float(n > 1) if asked.temperature is None else asked.temperature
        if (n, rho, select, heat) in known:
            continue
        result = evaluate(policy, task, episodes=asked.large_episodes if n >= 64 else asked.episodes,
                          seed=same["seeds"], workers=asked.workers, n_candidates=n, guidance_scale=rho,
                          temperature=heat, dtype=asked.dtype, **parts(select), **walk)
        rows.append({
            "n_candidates": n, "guidance_scale": rho, "select": select, "temperature": heat,
            "backend": f"{used.name} {used.dtype}",
            "episodes": len(result.episodes), "normalized_score": result.normalized_score,
            "interval": None if result.pooled.interval is None else asdict(result.pooled.interval),
            "per_seed": [round(score.mean, 3) for score in result.per_seed],
            "mean_length": sum(e.length for e in result.episodes) / len(result.episodes)})
        kept.pop("backend", None)
        kept |= {"task": task, "simulator": result.simulator}
        save(path, kept, policy.device)
        click.echo(f"N={n} rho={rho:g} {select}: " + interval_text(
            result.pooled.mean, result.pooled.interval, len(result.episodes)))


def behaviour(task: str, data: Path) -> dict[str, Any]:
    """Scores of the recorded episodes: ``whole``, and ``within`` the first ``limit`` steps of each."""
    env, raw = make_env(task), read_hdf5(data)
    limit = env.max_episode_steps
    ends = np.flatnonzero(raw["timeouts"].astype(bool) | (raw["terminals"] > 0))
    begins = np.concatenate([[0], ends[:-1] + 1])
    found: dict[str, Any] = {"episodes": len(ends), "limit": limit,
                             "mean_length": float(np.mean(ends - begins + 1))}
    for name, most in (("whole", None), ("within", limit)):
        scores = [env.score(float(raw["rewards"][a:b + 1][:most].sum()), None)
                  for a, b in zip(begins, ends, strict=True)]
        interval = score_interval(scores, False)
        found[name] = {"normalized_score": float(np.mean(scores)), "episodes": len(ends),
                       "interval": asdict(interval) if interval else None}
    return found


def behaviour_text(found: dict[str, Any]) -> str:
    """``29 [24, 35] (25)``; if episodes are longer than the task's limit, also the score within it."""
    text = cell(found["whole"])
    if found["within"] != found["whole"]:
        text += f", and {cell(found['within'])} within the task's {found['limit']} steps"
    return text


def walked(folder: Path) -> list[dict[str, Any]]:
    """The JSONs of one policy by several samplers."""
    return [read_result(path, Walk) for path in sorted(folder.glob("*.json"))]


def walks(folder: Path) -> str:
    """One policy by several samplers, fewest steps first: a line for each cell of the folder's JSONs, with
    its temperature if that does not depend on N."""
    every = [{"sampler": found["sampler"], "steps": found["sampler_steps"], **row}
             for found in walked(folder) for row in found["rows"]]
    every.sort(key=lambda row: (row["steps"] or np.inf, row["sampler"], row["n_candidates"],
                                row["guidance_scale"], row["temperature"]))
    heats = {(row["n_candidates"], row["temperature"]) for row in every}
    several = len(heats) > len({n for n, _ in heats})
    columns = ["sampler", "steps", "N", "select", "guidance", *["temperature"] * several, "score"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in every:
        places = [row["sampler"], row["steps"] or "all", f"{row['n_candidates']:,}", row["select"],
                  f"{row['guidance_scale']:g}", *[f"{row['temperature']:g}"] * several, cell(row)]
        lines.append("| " + " | ".join(map(str, places)) + " |")
    return "\n".join(lines)


def cell(row: dict[str, Any]) -> str:
    """``98 [93, 99]``, with the number of episodes in round brackets if it is not 100."""
    interval = row["interval"]
    text = f"{row['normalized_score']:.0f}"
    text += f" [{interval['low']:.0f}, {interval['high']:.0f}]" if interval else " [no interval]"
    return text + (f" ({row['episodes']})" if row["episodes"] != 100 else "")


def markdown(rows: list[dict[str, Any]]) -> str:
    """The scores with their intervals: a line for each N and selection, a column for each guidance scale."""
    scales = sorted({row["guidance_scale"] for row in rows})
    found = {(row["n_candidates"], row["select"], row["guidance_scale"]): row for row in rows}
    lines = ["| N | select | " + " | ".join(f"guidance {rho:g}" for rho in scales) + " |",
             "|---" * (len(scales) + 2) + "|"]
    for n, select in sorted({key[:2] for key in found}):
        texts = (cell(found[n, select, rho]) if (n, select, rho) in found else "-" for rho in scales)
        lines.append(f"| {n:,} | {select} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def draw(task: str, rows: list[dict], path: Path) -> None:
    """Plots the score against N, a line for each guidance scale and selection, with 95 % intervals."""
    figure = new_figure(7, 4.4)
    axes = figure.add_subplot()
    lines: dict[tuple[float, str], list[dict]] = {}
    selections = sorted({row["select"] for row in rows} - {"none"})
    for row in rows:
        for select in ([row["select"]] if row["select"] != "none" else selections):
            lines.setdefault((row["guidance_scale"], select), []).append(row)
    scales = sorted({rho for rho, _ in lines})
    for (rho, select), line in sorted(lines.items()):
        line.sort(key=lambda row: row["n_candidates"])
        i = scales.index(rho) % len(COLORS)
        beside = 2.0 ** (0.12 * (i - (len(scales) - 1) / 2))  # separates the bars of one N
        axes.errorbar([beside * r["n_candidates"] for r in line], [r["normalized_score"] for r in line],
                      yerr=list(zip(*map(_arms, line), strict=True)), color=COLORS[i], marker=MARKERS[i],
                      linestyle="-" if select == selections[0] else "--", capsize=3, alpha=0.9,
                      label=f"guidance {rho:g}" + (f", {select}" if len(selections) > 1 else ""))
    axes.set_xscale("log", base=2)
    ticks = sorted({row["n_candidates"] for row in rows})
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.set(xlabel="candidates per step N", ylabel="D4RL normalized score", ylim=(-3, 103), title=task)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2)
    save_figure(figure, path)


def _arms(row: dict[str, Any]) -> tuple[float, float]:
    """The distances from the score to the interval's lower and upper end."""
    score, interval = row["normalized_score"], row["interval"]
    return (score - interval["low"], interval["high"] - score) if interval else (0.0, 0.0)


if __name__ == "__main__":
    run(main)
