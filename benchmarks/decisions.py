"""Quality of the kept action against the time of a decision, by solver, tree, ranking and distilled student.

    python -m benchmarks.decisions antmaze-umaze-v2 --json benchmarks/results/decisions-umaze.json \\
        --judge runs/umaze-seed1/policy --data antmaze-umaze-v2.hdf5

Each cell of a part (--parts) is written when it is done; run again to continue after an interrupt:
- time: milliseconds of one decision. Contenders take turns; the median is over --repeats turns after a
  warm-up.
- states: the kept action's advantage on held-out states by the critic of --judge, a checkpoint trained with
  another seed; the share of states where it is positive; and, within a state, the rank correlation of the
  ranking score and that advantage. Diagnostics only: a critic errs most on its favourite candidates.
- episodes: scores, with 95 % intervals.
- toy: distance of guided samples from a known target, and the time of 1,024 samples.
--quick makes all parts small, to check that they run. Eager PyTorch draws the same candidates as swg-fast, so
its quality is not measured again.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.decisions_report import draw, tables
from benchmarks.measuring import Several, policy_option, recorded, save
from swg_fast.cli.ending import run
from swg_fast.common.errors import UsageError
from swg_fast.common.intervals import mean_interval
from swg_fast.data import load_dataset
from swg_fast.evaluation.episodes import evaluate
from swg_fast.evaluation.inspect.scorer import scores_of
from swg_fast.method.sampler_names import STUDENT
from swg_fast.policy.backends.search import asked
from swg_fast.policy.checkpoint import load_checkpoint
from swg_fast.policy.policy import Policy, load_policy

DDPM = {"sampler": "ddpm", "leaves": 1, "select": "max_weight", "keep_share": 1.0, "average_share": 0.0}
TREE, RANKING = {"leaves": 16}, {"select": "expected_weight"}
FINISHED = 16  # candidates of the student that the teacher finishes
RANKINGS: dict[str, dict[str, Any]] = {  # of a student's candidates, each beside the highest weight alone
    "mean": {"average_share": 1 / 32}, "expected weight": {"select": "expected_weight"},
    "supported": {"keep_share": 0.25, "keep_by": "support"}}
PARTS = ("time", "states", "episodes", "toy")
TOY_STEPS = (4, 5, 6, 8, 15)


@dataclass(frozen=True)
class Chosen:
    """The contenders (``only``; None: all) and their sampling settings. ``walks`` are further SAMPLER:STEPS.
    """

    only: str | None
    solver: str
    sampler_steps: int
    walks: tuple[str, ...]
    guidance_scale: float
    dtype: str


@dataclass(frozen=True)
class Sizes:
    """The extent of the measurements: candidates, N of the part episodes, states, episodes and turns."""

    candidates: list[int]
    episode_candidates: list[int]
    states: int
    episodes: int
    repeats: int


QUICK = Sizes([1, 64], [16], states=4, episodes=2, repeats=1)


def contenders(policy: Policy, chosen: Chosen) -> dict[str, dict[str, Any]]:
    """The chosen contenders' keywords of `Policy.sample`, by name. ``default`` has the policy's own walk, if
    that differs from the one of ``ours``. Raises `UsageError` for a name that is no contender here."""
    if not policy.model.has_diffusion:
        raise UsageError("this policy is a student alone, with nothing to compare it with; give one that "
                         "holds its teacher too (swg-fast distill --with-teacher)")
    settings = policy.settings()
    walk = {"sampler": settings.sampler, "sampler_steps": settings.sampler_steps}
    others = {"default": DDPM | walk} if walk["sampler"] not in (DDPM["sampler"], STUDENT) else {}
    for text in chosen.walks:
        sampler, _, count = text.partition(":")
        if not count.isdecimal():
            raise UsageError(f"--walk {text}: give SAMPLER:STEPS, such as dpmpp_2m:8")
        others[f"{sampler} {count}"] = DDPM | {"sampler": sampler, "sampler_steps": int(count)}
    fewer, asked = {"sampler": chosen.solver, "sampler_steps": chosen.sampler_steps}, {"ranking": "ranker"}
    every = ({"ranker": DDPM | RANKING | asked, "ranker's filter": DDPM | asked | {"keep_share": 0.25},
             "solver, ranker": DDPM | fewer | RANKING | asked} if policy.model.ranker is not None else {}) | {
        "eager": DDPM | {"backend": "reference", "dtype": "fp32"}, "ours": DDPM, **others,
        "solver": DDPM | fewer, "tree": DDPM | TREE, "ranking": DDPM | RANKING,
        "filter": DDPM | {"keep_share": 0.25}, "all": DDPM | fewer | TREE | RANKING,
        "all, no guidance": DDPM | fewer | TREE | RANKING | {"guidance_scale": 0.0},
        "all, no ranking": DDPM | fewer | TREE | {"select": "none"}} | students(policy, chosen.dtype)
    shared = {"guidance_scale": chosen.guidance_scale, "temperature": 1.0, "dtype": chosen.dtype}
    names = chosen.only.split(",") if chosen.only else list(every)
    unknown = [name for name in names if name not in every]
    if unknown:
        raise UsageError(f"--only {unknown[0]}: no contender of this policy; use some of {', '.join(every)}")
    return {name: shared | every[name] for name in names}


def students(policy: Policy, dtype: str) -> dict[str, dict[str, Any]]:
    """The contenders of a policy with a student. Where ``dtype`` comes to another type than fp32, the student
    is measured in fp32 too."""
    if policy.model.walk is None:
        return {}
    student = DDPM | {"sampler": STUDENT}
    fp32 = policy.backend("auto", dtype, student=True).dtype == "fp32"
    finished = {} if policy.model.walk.of_best else {"draft and finish": student | {"finish": FINISHED}}
    asked = {name: {"select": name} for name, part in (
        ("lcb_weight", policy.model.ranker), ("lcb_q", policy.model.critics)) if part is not None}
    ranked = {f"student {name}": student | change for name, change in (RANKINGS | asked).items()}
    return ({"student": student} | ({} if fp32 else {"student fp32": student | {"dtype": "fp32"}})
            | finished | ranked)


@dataclass(frozen=True)
class Recorded:
    """The JSON: its settings, and figures by part and cell."""

    settings: dict[str, Any]
    parts: dict[str, dict[str, dict[str, Any]]]


class Results:
    """The JSON by part and cell. Raises `UsageError` if it was made with other settings."""

    def __init__(self, path: Path, settings: dict[str, Any], device: torch.device) -> None:
        self.path, self.device, self.data_hash = path, device, None
        self.data = recorded(path, {"settings": settings, "parts": {}}, Recorded)
        changed = [k for k, v in settings.items() if self.data["settings"].get(k) != v]
        if changed:
            raise UsageError(f"{path} was made with another {changed[0]}; give that, or another file")

    def missing(self, part: str, keys: list[str]) -> list[str]:
        """The ``keys`` whose cells ``part`` lacks."""
        return [key for key in keys if key not in self.data["parts"].get(part, {})]

    def add(self, part: str, key: str, value: dict[str, Any]) -> None:
        self.data["parts"].setdefault(part, {})[key] = value
        save(self.path, self.data, self.device, self.data_hash)
        click.echo(f"{part:9s} {key:24s} " + ", ".join(
            f"{k} {v:.4g}" for k, v in value.items() if isinstance(v, float)))


def cells(chosen: dict[str, dict[str, Any]], counts: list[int]) -> dict[str, dict[str, Any]]:
    """"contender N" -> its settings, including N, cheap ones first. One candidate is not ranked, and no draft
    is made of as few as the teacher finishes."""
    return {f"{name} {n}": settings | {"n_candidates": n} for n in counts
            for name, settings in chosen.items() if n > settings.get("finish", 0)
            if n >= 64 or settings["leaves"] == 1 and (n > 1 or settings["select"] == DDPM["select"]
                                                       and settings["keep_share"] == 1)}


def in_turn(calls: dict[str, Callable[[int], Any]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each call. The calls take turns, after a first turn that warms up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call(turn)
            if turn:
                times[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(found) for name, found in times.items()}


def measure_time(policy: Policy, every: dict[str, dict[str, Any]], results: Results, repeats: int) -> None:
    states = torch.randn(64, policy.state_dim, generator=torch.Generator().manual_seed(0))
    for n in sorted({settings["n_candidates"] for settings in every.values()}):
        here = {key: settings for key, settings in every.items() if settings["n_candidates"] == n}
        if results.missing("time", list(here)):  # all contenders of a size, since they take turns
            runs = {key: (lambda turn, s=settings: policy.sample(states[turn % 64], seed=turn, **s))
                    for key, settings in here.items()}
            for key, milliseconds in in_turn(runs, repeats).items():
                results.add("time", key, {"milliseconds": milliseconds, "threads": torch.get_num_threads()})


def rank_correlation(scores: torch.Tensor, values: torch.Tensor) -> float | None:
    """The mean over rows [B, N] of Spearman's correlation; None for fewer than 3 candidates."""
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
    loaded = load_dataset(data)
    results.data_hash = loaded.fingerprint()
    held_out = loaded.split(own.get("held_out", 0.05), own.get("seed", 0))[1]
    rows = np.random.default_rng(0).choice(len(held_out), min(count, len(held_out)), replace=False)
    states = torch.from_numpy(held_out.observations[rows])
    for key in results.missing("states", [key for key in every if not key.startswith("eager")]):
        drawn = policy.sample(states, seed=1, return_candidates=True, **every[key])
        with torch.no_grad():
            value = critic.value(states)[:, None]
            values = asked(critic.critic, states, drawn.candidates) - value
            kept = asked(critic.critic, states, drawn.actions[:, None]) - value
        advantage = kept[:, 0].numpy()
        interval = mean_interval(advantage)
        results.add("states", key, {"quality": float(advantage.mean()), "states": len(rows),
                                    "positive": float((advantage > 0).mean()),
                                    "rank_correlation": rank_correlation(
                                        scores_of(policy.model, states, drawn,
                                                  policy.settings(**every[key])), values),
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
    for key, milliseconds in in_turn(runs, repeats).items():
        drawn = draw_toy(policy, samples, 1.0, seed=0, **walks[key])
        results.add("toy", key, {"milliseconds": milliseconds, "quality": sliced_wasserstein(drawn, target),
                                 "floor": sliced_wasserstein(target, other)})


@click.command()
@click.argument("task")
@policy_option
@click.option("--judge", help="Checkpoint of another seed, whose critic judges (part states).")
@click.option("--data", help="D4RL file or name, for held-out states.  [default: TASK]")
@click.option("--parts", default=",".join(PARTS))
@click.option("--only", help="Contenders, such as ours,all.  [default: all of them]")
@click.option("--candidates", type=Several(), default="1,16,64,256,1024,4096")
@click.option("--episode-candidates", type=Several(), default="16,64", help="N of the part episodes.")
@click.option("--solver", default="dpmpp_2m_sde")
@click.option("--sampler-steps", default=6)
@click.option("--walk", "walks", multiple=True, help="A further SAMPLER:STEPS, such as dpmpp_2m:8.")
@click.option("-g", "--guidance-scale", default=1.0)
@click.option("--dtype", default="auto", help="Compute type, except for eager.")
@click.option("--states", default=200)
@click.option("--episodes", default=100)
@click.option("--repeats", default=5)
@click.option("--toy", "toy_name", default="gaussians8")
@click.option("--quick", is_flag=True)
@click.option("--json", "json_path", type=Path, required=True)
@click.option("--plot", "plot_path", type=Path, help="[default: beside the JSON]")
def main(task: str, policy_name: str | None, judge: str | None, data: str | None, parts: str, toy_name: str,
         quick: bool, json_path: Path, plot_path: Path | None, **options: Any) -> None:
    policy, asked = load_policy(policy_name or task), parts.split(",")
    if set(asked) - set(PARTS):
        raise UsageError(f"--parts {parts}: use some of {', '.join(PARTS)}")
    chosen = Chosen(**{field.name: options.pop(field.name) for field in fields(Chosen)})
    sizes = QUICK if quick else Sizes(**options)
    every = contenders(policy, chosen)
    for settings in cells(every, sizes.candidates + sizes.episode_candidates).values():
        policy.bind(**settings)  # refuses here what it would refuse after an hour
    results = Results(json_path, {
        "task": task, "policy": policy_name or task, "solver": chosen.solver,
        "sampler_steps": chosen.sampler_steps, "guidance_scale": chosen.guidance_scale,
        "dtype": chosen.dtype, "judge": judge, "states": sizes.states, "episodes": sizes.episodes,
        "quick": quick}, policy.device)
    if "time" in asked:
        measure_time(policy, cells(every, sizes.candidates), results, sizes.repeats)
    if "states" in asked:
        if judge is None:
            raise UsageError("part states needs --judge, a checkpoint of another seed; or leave it out of "
                             "--parts")
        judge_states(policy, cells(every, sizes.candidates), results, judge, data or task, sizes.states)
    if "episodes" in asked:
        play(policy, task, cells(every, sizes.episode_candidates), results, sizes.episodes)
    if "toy" in asked:
        measure_toy(results, toy_name, 50 if quick else 4000, 500 if quick else 10_000, sizes.repeats)
    tables(results.data)
    draw(results.data, plot_path or json_path.with_suffix(".png"))


if __name__ == "__main__":
    run(main)
