"""How Ant Maze episodes end: at the goal, on the back, or on the way when time is up.

    python benchmarks/maze_ends.py antmaze-large-play-v2 --policy RUN/policy --guidance-scale 5 --json F

The episodes are those of `swg-fast evaluate` with the same seed. An ant whose torso points down for 50 steps
is counted as overturned and left alone. Metres are those left along recorded steps of --data, at the start
and at the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from swg_fast.data import load_dataset
from swg_fast.envs import make_env
from swg_fast.evaluation import STATE_STRIDE
from swg_fast.files import write_json
from swg_fast.inspect.places import way_in
from swg_fast.policy import Policy, load_policy
from swg_fast.presets import find_preset
from swg_fast.seeds import stream_seed

ON_ITS_BACK = 50  # steps in a row


def upright(states: np.ndarray) -> np.ndarray:
    """The height of the torso's own vertical axis, -1 to 1, from states [B, 29]: x, y, z, then a quaternion
    (w, x, y, z)."""
    return 1.0 - 2.0 * (states[:, 4] ** 2 + states[:, 5] ** 2)


def run(policy: Policy, task: str, episodes: int, seed: int, **sampling: Any) -> list[dict[str, Any]]:
    """Every episode's end: reached, overturned or time_up; its steps; where it began and ended, in metres.
    ``sampling`` are arguments of `Policy.sample`."""
    envs = [make_env(task) for _ in range(episodes)]
    states = np.stack([env.reset(stream_seed(seed, "episode", i) & 0xFFFFFFFF) for i, env in enumerate(envs)])
    found = [{"end": "time_up", "steps": 0, "begin": state[:2].tolist()} for state in states]
    down, left = np.zeros(episodes, int), list(range(episodes))
    for step in range(1, find_preset(task).max_episode_steps + 1):
        indices = np.array(left) * STATE_STRIDE + step - 1
        drawn = policy.sample(states[left], seed=seed, state_indices=indices, **sampling)
        for i, action in zip(list(left), drawn.actions.cpu().numpy(), strict=True):
            states[i], reward, done = envs[i].step(action)
            down[i] = down[i] + 1 if upright(states[i:i + 1])[0] < 0 else 0
            end = "reached" if reward > 0 else "overturned" if down[i] >= ON_ITS_BACK else "time_up"
            found[i] |= {"steps": step, "end": end, "at": states[i, :2].tolist()}
            if done or end != "time_up":
                left.remove(i)
        if not left:
            break
    return found


@click.command()
@click.argument("task")
@click.option("--policy", "name", help="Checkpoint folder or bundled name.  [default: TASK]")
@click.option("--candidates", default=1, show_default=True)
@click.option("--guidance-scale", type=float, help="[default: the policy's]")
@click.option("--temperature", type=float, help="[default: 0 for one candidate, else the policy's]")
@click.option("--select", help="[default: the policy's]")
@click.option("--episodes", default=25, show_default=True)
@click.option("--seed", default=0)
@click.option("--threads", type=int)
@click.option("--data", type=Path, help="Recorded steps, for the metres that are left.")
@click.option("--json", "path", type=Path, required=True)
def main(task: str, name: str | None, candidates: int, guidance_scale: float | None,
         temperature: float | None, select: str | None, episodes: int, seed: int, threads: int | None,
         data: Path | None, path: Path) -> None:
    """Plays the episodes and counts their ends."""
    if threads:
        torch.set_num_threads(threads)
    policy = load_policy(name or task)
    chosen = {"n_candidates": candidates, "guidance_scale": guidance_scale, "temperature": temperature,
              "select": select}
    found = run(policy, task, episodes, seed, **chosen)
    counts = {end: sum(each["end"] == end for each in found) for end in ("reached", "overturned", "time_up")}
    steps = sum(each["steps"] for each in found)
    result = {"task": task, "seed": seed, "counts": counts, "episodes": found,
              "falls_per_1000_steps": 1000 * counts["overturned"] / steps,
              "sampling": policy.settings(**chosen)}
    if data is not None:
        result["metres_left"] = metres_left(task, data, found)
    write_json(path, result)
    click.echo(f"{counts} {result['falls_per_1000_steps']:.2f} falls in 1000 steps "
               f"{result.get('metres_left', '')}")


def metres_left(task: str, data: Path, found: list[dict[str, Any]]) -> dict[str, float]:
    """Mean metres along recorded steps from where episodes began and where they ended, of places that were
    recorded."""
    recorded = load_dataset(data, task=task, continues_after_terminal=True,
                            max_episode_steps=find_preset(task).max_episode_steps)
    way, grid = way_in(recorded)
    if way is None:
        raise click.UsageError(f"{data}: no recorded step is rewarded")
    centres, known = grid.centres(), np.isfinite(way.metres)
    left = {}
    for name in ("begin", "at"):
        places = np.array([each[name] for each in found])
        nearest = np.linalg.norm(places[:, None] - centres[known], axis=2).argmin(axis=1)
        left[name] = float(way.metres[known][nearest].mean())
    return left


if __name__ == "__main__":
    main()
