"""SWG-JAX and swg-fast beside each other: the same file, budget, seeds, environments and N.

    python benchmarks/beside_swg_jax.py PATH --task antmaze-umaze-v2 --dataset FILE.hdf5

PATH is a checkout of SWG-JAX (github.com/atagle123/SWG-JAX). Both train, then both are evaluated on the same
episodes: SWG-JAX by its own sampler, which keeps the highest Q; swg-fast by that rule and by the highest
weight; and SWG-JAX's networks by swg-fast's sampler. What is done is kept: run again to go on.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import click
from beside_report import CROSSED, JAX, OURS, show

ROOT = Path(__file__).parent.parent


@click.command()
@click.argument("checkout", type=Path)
@click.option("--task", "tasks", multiple=True, required=True, help="May be repeated.")
@click.option("--dataset", "datasets", multiple=True, help="A file for each --task.  [default: D4RL's]")
@click.option("--critic-steps", default=100_000)
@click.option("--actor-steps", default=50_000)
@click.option("--actor-batch", default=1024)
@click.option("--hidden-dim", default=256)
@click.option("--seeds", default="0,1,2")
@click.option("--candidates", default="1,16")
@click.option("--guidance-scale", default=1.0)
@click.option("--episodes", default=50)
@click.option("--threads", type=int, help="Of torch; JAX takes all.")
@click.option("--work", type=Path, default=Path("runs/beside-swg-jax"), help="Folder of the trainings.")
@click.option("--json", "json_path", type=Path, default=ROOT / "benchmarks/results/beside-swg-jax.json")
@click.option("--quiet", is_flag=True)
def main(checkout: Path, tasks: tuple[str, ...], datasets: tuple[str, ...], critic_steps: int,
         actor_steps: int, actor_batch: int, hidden_dim: int, seeds: str, candidates: str,
         guidance_scale: float, episodes: int, threads: int | None, work: Path, json_path: Path, quiet: bool
         ) -> None:
    import torch

    from swg_fast.common.atomic_files import read_json, write_json
    from swg_fast.common.console import versions
    from swg_fast.sweep.cells import training_settings
    from swg_fast.sweep.store import load, transitions_hash

    if threads:
        torch.set_num_threads(threads)
    if datasets and len(datasets) != len(tasks):
        raise click.UsageError("give one --dataset for each --task, or none")
    kept = read_json(json_path)["runs"] if json_path.exists() else []
    for task, source in zip(tasks, datasets or tasks, strict=True):
        data = load(task, source)
        for seed in map(int, seeds.split(",")):
            settings = training_settings(task, {"critic_steps": critic_steps, "actor_steps": actor_steps,
                                                "actor_batch": actor_batch, "hidden_dim": hidden_dim,
                                                "seed": seed})
            same = {"task": task, "data": transitions_hash(data), "settings": settings.to_dict(),
                    "candidates": candidates, "guidance_scale": guidance_scale, "episodes": episodes}
            if any(run["what"] == same for run in kept):
                continue
            budget = f"{critic_steps}-{actor_steps}x{actor_batch}"
            folder = work / f"{task}-{seed}-{budget}-{hidden_dim}-{same['data'][:6]}"
            rows = compare(checkout, task, data, settings, folder, [int(n) for n in candidates.split(",")],
                           guidance_scale, episodes, not quiet)
            kept.append({"what": same, "rows": rows, "threads": torch.get_num_threads()})
            write_json(json_path, {"runs": kept, "versions": versions()})
    show(kept)


def compare(checkout: Path, task: str, data: Any, settings: Any, folder: Path, counts: list[int],
            guidance_scale: float, episodes: int, progress: bool) -> list[dict[str, Any]]:
    """Trains both and evaluates them: a row each of who, N, rule, scores and seconds."""
    from swg_jax_training import JaxPolicy, import_checkout, save, train

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
    half = -(-min(episodes, 64) // 2)
    for n in counts:
        sampling = {"n_candidates": n, "guidance_scale": guidance_scale}
        rules = ("max_q", "max_weight") if n > 1 else ("max_weight",)
        contenders = [(JAX, JaxPolicy(agent, task, n, guidance_scale, half), {}, "max_q", theirs),
                      *((OURS, load_policy(ours), sampling | {"select": r}, r, spent) for r in rules),
                      (CROSSED, crossed, sampling | {"select": "max_q"}, "max_q", theirs)]
        for who, policy, chosen, rule, seconds in contenders:
            found = evaluate(policy, task, episodes=episodes, seed=settings.seed, progress=progress, **chosen)
            rows.append({"who": who, "n_candidates": n, "select": rule if n > 1 else "none",
                         "scores": found.pooled.scores, "simulator": found.simulator,
                         "training_seconds": seconds,
                         "milliseconds": 1000 * found.seconds["sampling"] / found.env_steps})
    return rows


def train_ours(data: Any, settings: Any, folder: Path, progress: bool) -> tuple[Path, dict[str, float]]:
    """The folder of our policy and the seconds of its phases, from steps a second: a resumed phase counts
    in full."""
    from swg_fast.common.atomic_files import read_json
    from swg_fast.training.history import HISTORY, read_history
    from swg_fast.training.loop import LoopOptions
    from swg_fast.training.run import train

    policy = folder / "policy"
    if not (policy / "model_card.json").is_file():
        train(data, settings, folder, resume=(folder / "run.json").is_file(),
              options=LoopOptions(folder / "states", progress=progress))
    rates = {phase: statistics.median(line[f"{phase}/steps_per_second"] for line in lines)
             for phase, lines in read_history(folder / "logs" / HISTORY).items()}
    full = read_json(policy / "model_card.json")["training"]["settings"]
    return policy, {phase: full[f"{phase}_steps"] / rates[phase] for phase in ("critic", "actor")}


if __name__ == "__main__":
    main()
