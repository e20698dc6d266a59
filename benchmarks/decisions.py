"""Quality of the kept action against the time of a decision: solver, tree and ranking, each alone and all.

    python benchmarks/decisions.py antmaze-umaze-v2 --json benchmarks/results/decisions-umaze.json \\
        --judge runs/umaze-seed1/policy --data antmaze-umaze-v2.hdf5

Parts (--parts), each written cell by cell and taken up again after an interrupt:
- time: milliseconds of one decision, contenders in turn, the median of --repeats after one to warm up;
- states: the kept action's advantage on held-out states by the critic of --judge, a checkpoint trained with
  another seed; the share of states where it is positive; and the rank correlation within a state between
  what the candidates are ranked by and that advantage. Diagnostics: among candidates off the data a critic's
  favourite is often its own error;
- episodes: scores, with 95 % intervals;
- toy: distance of guided samples from a known target, and the time of 1,024 of them.
--quick makes all of them small, to see that they run. Eager draws our candidates, so its quality is ours.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from decisions_report import draw, tables

from swg_fast.common.atomic_files import read_json, write_json
from swg_fast.common.console import versions
from swg_fast.common.errors import UsageError
from swg_fast.common.intervals import mean_interval
from swg_fast.data import load_dataset
from swg_fast.evaluation.episodes import evaluate
from swg_fast.policy.backends.job import Samples
from swg_fast.policy.backends.search import asked
from swg_fast.policy.checkpoint import load_checkpoint
from swg_fast.policy.policy import Policy, load_policy

DDPM = {"sampler": "ddpm", "leaves": 1, "select": "max_weight", "keep_share": 1.0}
TREE, RANKING = {"leaves": 16}, {"select": "expected_weight"}
PARTS = ("time", "states", "episodes", "toy")
TOY_STEPS = (4, 5, 6, 8, 15)


def contenders(policy: Policy, solver: str, steps: int, walks: tuple[str, ...] = ()
               ) -> dict[str, dict[str, Any]]:
    """Settings of `Policy.sample` by name; `default` walks as the policy's defaults say, where that is not
    as `ours` does. Where there is a tree, N is 64 or more."""
    settings = policy.settings()
    walk = {key: settings[key] for key in ("sampler", "sampler_steps")}
    others = {"default": DDPM | walk} if walk["sampler"] != DDPM["sampler"] else {}
    for text in walks:
        sampler, _, count = text.partition(":")
        if not count.isdecimal():
            raise UsageError(f"--walk {text}: give SAMPLER:STEPS, such as dpmpp_2m:8")
        others[f"{sampler} {count}"] = DDPM | {"sampler": sampler, "sampler_steps": int(count)}
    fewer, asked = {"sampler": solver, "sampler_steps": steps}, {"ranking": "ranker"}
    return ({"ranker": DDPM | RANKING | asked, "ranker's filter": DDPM | asked | {"keep_share": 0.25},
             "solver, ranker": DDPM | fewer | RANKING | asked} if policy.model.ranker is not None else {}) | {
        "eager": DDPM | {"backend": "reference", "dtype": "fp32"}, "ours": DDPM, **others,
        "solver": DDPM | fewer, "tree": DDPM | TREE, "ranking": DDPM | RANKING,
        "filter": DDPM | {"keep_share": 0.25}, "all": DDPM | fewer | TREE | RANKING,
        "all, no guidance": DDPM | fewer | TREE | RANKING | {"guidance_scale": 0.0},
        "all, no ranking": DDPM | fewer | TREE | {"select": "none"}}


class Results:
    """The JSON, by part and cell; a cell that is there is not made again."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.data = read_json(path) if path.exists() else {"settings": settings, "parts": {}}
        changed = [k for k, v in settings.items() if self.data["settings"].get(k) != v]
        if changed:
            raise UsageError(f"{path} was made with another {changed[0]}; give that, or another file")

    def missing(self, part: str, keys: list[str]) -> list[str]:
        return [key for key in keys if key not in self.data["parts"].get(part, {})]

    def add(self, part: str, key: str, value: dict[str, Any]) -> None:
        self.data["parts"].setdefault(part, {})[key] = value
        write_json(self.path, self.data | {"versions": versions()})
        click.echo(f"{part:9s} {key:24s} " + ", ".join(
            f"{k} {v:.4g}" for k, v in value.items() if isinstance(v, float)))


def cells(chosen: dict[str, dict[str, Any]], counts: list[int]) -> dict[str, dict[str, Any]]:
    """"contender N" -> its settings, N among them, cheap ones first. One candidate is not ranked."""
    return {f"{name} {n}": settings | {"n_candidates": n} for n in counts
            for name, settings in chosen.items()
            if n >= 64 or settings["leaves"] == 1 and (n > 1 or settings["select"] == DDPM["select"]
                                                       and settings["keep_share"] == 1)}


def in_turn(runs: dict[str, Callable[[int], Any]], repeats: int) -> Iterator[tuple[str, float]]:
    """Median milliseconds of each, taking turns after one call that warms up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run(turn)
            if turn:
                times[name].append(1e3 * (time.perf_counter() - started))
    yield from ((name, statistics.median(found)) for name, found in times.items())


def measure_time(policy: Policy, every: dict[str, dict[str, Any]], results: Results, repeats: int) -> None:
    states = torch.randn(64, policy.state_dim, generator=torch.Generator().manual_seed(0))
    for n in sorted({settings["n_candidates"] for settings in every.values()}):
        here = {key: settings for key, settings in every.items() if settings["n_candidates"] == n}
        if results.missing("time", list(here)):  # a size whole: its contenders take turns
            runs = {key: (lambda turn, s=settings: policy.sample(states[turn % 64], seed=turn, **s))
                    for key, settings in here.items()}
            for key, milliseconds in in_turn(runs, repeats):
                results.add("time", key, {"milliseconds": milliseconds, "threads": torch.get_num_threads()})


def ranked_by(policy: Policy, states: torch.Tensor, drawn: Samples, settings: dict[str, Any]) -> torch.Tensor:
    """What the candidates [B, N] were ranked by, or filtered where a share was kept."""
    if drawn.expected_weights is not None:
        return drawn.expected_weights
    if settings["select"] == "max_q":
        return asked(policy.model.critic, states, drawn.candidates)
    return drawn.candidate_weights


def rank_correlation(scores: torch.Tensor, values: torch.Tensor) -> float | None:
    """Spearman's, of each row of [B, N], averaged over the rows; None of fewer than 3 candidates."""
    if scores.shape[1] < 3:
        return None
    ranks = [x.argsort(1).argsort(1).double() for x in (scores, values)]
    a, b = (rank - rank.mean(1, keepdim=True) for rank in ranks)
    return float(((a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()).mean())


def judge_states(policy: Policy, every: dict[str, dict[str, Any]], results: Results, judge: str, data: str,
                 count: int) -> None:
    critic = load_checkpoint(judge)
    if critic.critic is None or critic.value is None:
        raise UsageError(f"--judge {judge}: it has no critic and value; give one that 'swg-fast train' wrote")
    own = policy.card.get("training", {}).get("settings", {})
    held_out = load_dataset(data).split(own.get("held_out", 0.05), own.get("seed", 0))[1]
    rows = np.random.default_rng(0).choice(len(held_out), min(count, len(held_out)), replace=False)
    states = torch.from_numpy(held_out.observations[rows])
    for key in results.missing("states", [key for key in every if not key.startswith("eager")]):
        drawn = policy.sample(states, seed=1, return_candidates=True, **every[key])
        with torch.no_grad():
            values = asked(critic.critic, states, drawn.candidates)
            values -= critic.value(states)[:, None]
        advantage = values[torch.arange(len(rows)), drawn.indices].numpy()
        interval = mean_interval(advantage)
        results.add("states", key, {"quality": float(advantage.mean()), "states": len(rows),
                                    "positive": float((advantage > 0).mean()),
                                    "rank_correlation": rank_correlation(
                                        ranked_by(policy, states, drawn, every[key]), values),
                                    "interval": asdict(interval) if interval else None})


def play(policy: Policy, task: str, every: dict[str, dict[str, Any]], results: Results, episodes: int
         ) -> None:
    for key in results.missing("episodes", [key for key in every if not key.startswith("eager")]):
        result = evaluate(policy, task, episodes=episodes, **every[key])
        found = result.pooled
        results.add("episodes", key, {"quality": found.mean, "episodes": episodes,
                                      "simulator": result.simulator,
                                      "interval": asdict(found.interval) if found.interval else None})


def measure_toy(results: Results, name: str, steps: int, samples: int, repeats: int) -> None:
    from swg_fast.evaluation.toy import draw_toy, sliced_wasserstein, train_toy

    walks = {"eager 15": {"backend": "reference"}, "ours 15": {}} | {
        f"{sampler} {n}": {"sampler": sampler, "sampler_steps": n}
        for sampler in ("ddim", "dpmpp_2m", "dpmpp_2m_sde") for n in TOY_STEPS}
    if not results.missing("toy", list(walks)):
        return
    policy, data, weights, rng = train_toy(name, steps=steps)
    target, other = (data[rng.choice(len(data), samples, p=weights / weights.sum())] for _ in range(2))
    runs = {key: (lambda turn, walk=walk: draw_toy(policy, 1024, 1.0, seed=turn, **walk))
            for key, walk in walks.items()}
    for key, milliseconds in in_turn(runs, repeats):
        drawn = draw_toy(policy, samples, 1.0, seed=0, **walks[key])
        results.add("toy", key, {"milliseconds": milliseconds, "quality": sliced_wasserstein(drawn, target),
                                 "floor": sliced_wasserstein(target, other)})


@click.command()
@click.argument("task")
@click.option("--policy", "policy_name", help="Checkpoint folder or bundled name.  [default: TASK]")
@click.option("--judge", help="Checkpoint of another seed, whose critic judges (part states).")
@click.option("--data", help="D4RL file or name, for held-out states.  [default: TASK]")
@click.option("--parts", default=",".join(PARTS))
@click.option("--only", help="Contenders, such as ours,all.  [default: all of them]")
@click.option("--candidates", default="1,16,64,256,1024,4096")
@click.option("--episode-candidates", default="16,64", help="N of the part episodes.")
@click.option("--solver", default="dpmpp_2m_sde")
@click.option("--sampler-steps", default=6)
@click.option("--walk", "walks", multiple=True, help="A further SAMPLER:STEPS, such as dpmpp_2m:8.")
@click.option("-g", "--guidance-scale", default=1.0)
@click.option("--dtype", default="auto", help="Of all but eager.")
@click.option("--states", "state_count", default=200)
@click.option("--episodes", default=100)
@click.option("--repeats", default=5)
@click.option("--toy", "toy_name", default="gaussians8")
@click.option("--quick", is_flag=True)
@click.option("--json", "json_path", type=Path, required=True)
@click.option("--plot", "plot_path", type=Path, help="[default: beside the JSON]")
def main(task: str, policy_name: str | None, judge: str | None, data: str | None, parts: str,
         only: str | None, candidates: str, episode_candidates: str, solver: str, sampler_steps: int,
         walks: tuple[str, ...], guidance_scale: float, dtype: str, state_count: int, episodes: int,
         repeats: int, toy_name: str, quick: bool, json_path: Path, plot_path: Path | None) -> None:
    policy, asked = load_policy(policy_name or task), parts.split(",")
    if set(asked) - set(PARTS):
        raise UsageError(f"--parts {parts}: use some of {', '.join(PARTS)}")
    counts, playing = ([int(n) for n in text.split(",")] for text in (candidates, episode_candidates))
    if quick:
        counts, playing, state_count, episodes, repeats = [1, 64], [16], 4, 2, 1
    every = contenders(policy, solver, sampler_steps, walks)
    every = {name: every[name] for name in (only.split(",") if only else every)}
    every = {name: {"guidance_scale": guidance_scale, "temperature": 1.0, "dtype": dtype} | settings
             for name, settings in every.items()}
    results = Results(json_path, {
        "task": task, "policy": policy_name or task, "solver": solver, "sampler_steps": sampler_steps,
        "guidance_scale": guidance_scale, "dtype": dtype, "judge": judge, "states": state_count,
        "episodes": episodes, "quick": quick})
    if "time" in asked:
        measure_time(policy, cells(every, counts), results, repeats)
    if "states" in asked:
        if judge is None:
            raise UsageError("part states needs --judge, a checkpoint of another seed; or leave it out of "
                             "--parts")
        judge_states(policy, cells(every, counts), results, judge, data or task, state_count)
    if "episodes" in asked:
        play(policy, task, cells(every, playing), results, episodes)
    if "toy" in asked:
        measure_toy(results, toy_name, 50 if quick else 4000, 500 if quick else 10_000, repeats)
    tables(results.data)
    draw(results.data, plot_path or json_path.with_suffix(".png"))


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        raise SystemExit(f"error: {error}") from None
