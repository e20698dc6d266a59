"""SWG-JAX and swg-fast on the same file, budget, seeds, environments and N.

    python -m benchmarks.beside_swg_jax PATH --task antmaze-umaze-v2 --dataset FILE.hdf5

PATH is a checkout of SWG-JAX (github.com/atagle123/SWG-JAX). Both train, then play the same episodes: SWG-JAX
with its own sampler, which keeps the candidate with the highest Q; swg-fast with that rule and with the
highest weight; and SWG-JAX's networks with swg-fast's sampler. Finished trainings are kept; run again to
continue.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.beside_report import CROSSED, JAX, OURS, show
from benchmarks.measuring import ROOT, Several, recorded, save, threads_option
from swg_fast.cli.ending import run

BUDGET = ("critic_steps", "actor_steps", "actor_batch", "hidden_dim")  # options of both trainings


@dataclass(frozen=True)
class Run:
    """A training of both and what they played: ``what`` was compared, and a row for each policy and rule."""

    what: dict[str, Any]
    rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Compared:
    """The JSON."""

    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Play:
    """The evaluation of both; ``candidates`` are numbers such as 1,16."""

    candidates: str
    guidance_scale: float
    episodes: int


@click.command()
@click.argument("checkout", type=Path)
@click.option("--task", "tasks", multiple=True, required=True, help="May be repeated.")
@click.option("--dataset", "datasets", multiple=True, help="A file for each --task.  [default: D4RL's]")
@click.option("--critic-steps", default=100_000)
@click.option("--actor-steps", default=50_000)
@click.option("--actor-batch", default=1024)
@click.option("--hidden-dim", default=256)
@click.option("--seeds", type=Several(), default="0,1,2")
@click.option("--candidates", default="1,16")
@click.option("--guidance-scale", default=1.0)
@click.option("--episodes", default=50)
@threads_option
@click.option("--work", type=Path, default=Path("runs/beside-swg-jax"), help="Folder of the trainings.")
@click.option("--json", "json_path", type=Path, default=ROOT / "benchmarks/results/beside-swg-jax.json")
@click.option("--quiet", is_flag=True)
def main(checkout: Path, tasks: tuple[str, ...], datasets: tuple[str, ...], seeds: list[int], work: Path,
         json_path: Path, quiet: bool, **options: Any) -> None:
    import torch

    from swg_fast.data.load import load_for
    from swg_fast.sweep.cells import training_settings

    budget = {name: options.pop(name) for name in BUDGET}
    play = Play(**options)
    if datasets and len(datasets) != len(tasks):
        raise click.UsageError("give one --dataset for each --task, or none")
    kept = recorded(json_path, {"runs": []}, Compared)["runs"]
    for task, source in zip(tasks, datasets or tasks, strict=True):
        data = load_for(task, source)
        for seed in seeds:
            settings = training_settings(task, budget | {"seed": seed})
            same = {"task": task, "data": data.fingerprint(), "settings": settings.to_dict(),
                    **asdict(play)}
            if any(run["what"] == same for run in kept):
                continue
            folder = work / ("{}-{}-{critic_steps}-{actor_steps}x{actor_batch}-{hidden_dim}-{}".format(
                task, seed, same["data"][:6], **budget))
            rows = compare(checkout, task, data, settings, folder, play, not quiet)
            kept.append({"what": same, "rows": rows, "threads": torch.get_num_threads()})
            save(json_path, {"runs": kept}, data_hash=same["data"])  # of the newest run; each has its own
    show(kept)


def compare(checkout: Path, task: str, data: Any, settings: Any, folder: Path, play: Play, progress: bool
            ) -> list[dict[str, Any]]:
    """Trains and evaluates both. Returns a row for each policy, N and rule, with scores and seconds."""
    from benchmarks.swg_jax_training import JaxPolicy, import_checkout, save, train
    from swg_fast.evaluation.episodes import evaluate
    from swg_fast.method.schedule import NoiseSchedule
    from swg_fast.policy.policy import Policy, load_policy
    from swg_fast.policy.swg_jax_import import import_directory

    code = import_checkout(checkout, task)
    ours, spent = train_ours(data, settings, folder / "swg-fast", progress)
    agent, theirs = train(code, task, data, settings, folder / "swg-jax-states", progress)
    save(agent, folder / "swg-jax")
    network, critic, _, _ = import_directory(folder / "swg-jax")
    crossed = Policy(network, NoiseSchedule.by_name(settings.schedule, settings.num_steps), critic)
    rows = []
    half = -(-min(play.episodes, 64) // 2)
    for n in map(int, play.candidates.split(",")):
        sampling = {"n_candidates": n, "guidance_scale": play.guidance_scale}
        rules = ("max_q", "max_weight") if n > 1 else ("max_weight",)
        contenders = [(JAX, JaxPolicy(agent, task, n, play.guidance_scale, half), {}, "max_q", theirs),
                      *((OURS, load_policy(ours), sampling | {"select": r}, r, spent) for r in rules),
                      (CROSSED, crossed, sampling | {"select": "max_q"}, "max_q", theirs)]
        for who, policy, chosen, rule, seconds in contenders:
            found = evaluate(policy, task, episodes=play.episodes, seed=settings.seed, progress=progress,
                             **chosen)
            rows.append({"who": who, "n_candidates": n, "select": rule if n > 1 else "none",
                         "scores": found.pooled.scores, "simulator": found.simulator,
                         "training_seconds": seconds,
                         "milliseconds": 1000 * found.seconds["sampling"] / found.env_steps})
    return rows


def train_ours(data: Any, settings: Any, folder: Path, progress: bool) -> tuple[Path, dict[str, float]]:
    """The folder of swg-fast's policy and the seconds of each phase, computed from its steps a second, so
    that a resumed phase counts in full."""
    from swg_fast.training.history import HISTORY, read_history
    from swg_fast.training.loop import LoopOptions
    from swg_fast.training.run import train

    policy = folder / "policy"
    if not (policy / "model_card.json").is_file():
        train(data, settings, folder, resume=(folder / "run.json").is_file(),
              options=LoopOptions(folder / "states", progress=progress))
    rates = {phase: statistics.median(line[f"{phase}/steps_per_second"] for line in lines)
             for phase, lines in read_history(folder / "logs" / HISTORY).items()}
    steps = {"critic": settings.critic_steps, "actor": settings.actor_steps}
    return policy, {phase: count / rates[phase] for phase, count in steps.items()}


if __name__ == "__main__":
    run(main)
