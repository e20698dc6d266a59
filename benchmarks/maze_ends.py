"""How Ant Maze episodes end: at the goal, overturned, or out of time.

    python -m benchmarks.maze_ends antmaze-large-play-v2 --policy RUN/policy --guidance-scale 5 --json F

The episodes are those of `swg-fast evaluate` with the same seed. An episode ends as overturned when the ant's
torso points down for 50 steps. An ant counts as moving at a step if it gets 1.5 m far within the 50 steps
around it; falls of moving and of still ants are counted separately. --data adds falls in the recorded steps,
and the mean metres to the goal along recorded steps from where episodes began and ended.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.measuring import policy_option, save, threads_option
from swg_fast.cli.ending import run
from swg_fast.common.seeds import stream_seed
from swg_fast.data.load import load_for
from swg_fast.data.transitions import Transitions
from swg_fast.envs import make_env
from swg_fast.envs.tasks import find_preset
from swg_fast.evaluation.episodes import STATE_STRIDE
from swg_fast.evaluation.inspect.places import way_in
from swg_fast.policy.policy import Policy, load_policy

ON_ITS_BACK = 50  # steps in a row
AROUND = 25  # steps before and after a step
MOVES = 1.5  # metres that a moving ant gets far within these steps


def upright(states: np.ndarray) -> np.ndarray:
    """The height of the torso's own vertical axis, -1 to 1, from states [B, 29]: x, y, z, then a quaternion
    (w, x, y, z)."""
    return 1.0 - 2.0 * (states[:, 4] ** 2 + states[:, 5] ** 2)


def falls(paths: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, dict[str, float]]:
    """Steps, falls and falls in 1,000 steps of moving and of still ants, from each episode's positions [L, 2]
    and uprightness [L]. Steps after an episode's first fall do not count."""
    steps, fallen = {"moving": 0, "still": 0}, {"moving": 0, "still": 0}
    for at, up in paths:
        down = np.flatnonzero(up < 0)
        end = int(down[0]) if len(down) else len(at)
        index = np.arange(end)
        away = at[np.minimum(index + AROUND, len(at) - 1)] - at[np.maximum(index - AROUND, 0)]
        moving = np.linalg.norm(away, axis=1) >= MOVES
        steps["moving"] += int(moving.sum())
        steps["still"] += int((~moving).sum())
        if len(down) and end:
            # An overturning ant slides, so only earlier steps show whether it moved.
            fallen["moving" if moving[max(0, end - 1 - 2 * AROUND)] else "still"] += 1
    return {kind: {"steps": steps[kind], "falls": fallen[kind],
                   "falls_per_1000_steps": 1000 * fallen[kind] / max(1, steps[kind])} for kind in steps}


def play(policy: Policy, task: str, episodes: int, seed: int, **sampling: Any) -> list[dict[str, Any]]:
    """For every episode: its end (reached, overturned or time_up), its steps, the metres at its beginning and
    end, and its path. ``sampling`` are keywords of `Policy.sample`."""
    envs = [make_env(task) for _ in range(episodes)]
    states = np.stack([env.reset(stream_seed(seed, "episode", i) & 0xFFFFFFFF) for i, env in enumerate(envs)])
    found = [{"end": "time_up", "steps": 0, "begin": state[:2].tolist(), "path": [state[:7].copy()]}
             for state in states]
    down, left = np.zeros(episodes, int), list(range(episodes))
    for step in range(1, find_preset(task).max_episode_steps + 1):
        indices = np.array(left) * STATE_STRIDE + step - 1
        drawn = policy.sample(states[left], seed=seed, state_indices=indices, **sampling)
        for i, action in zip(list(left), drawn.actions.cpu().numpy(), strict=True):
            states[i], reward, done = envs[i].step(action)
            down[i] = down[i] + 1 if upright(states[i:i + 1])[0] < 0 else 0
            end = "reached" if reward > 0 else "overturned" if down[i] >= ON_ITS_BACK else "time_up"
            found[i] |= {"steps": step, "end": end, "at": states[i, :2].tolist()}
            found[i]["path"].append(states[i, :7].copy())
            if done or end != "time_up":
                left.remove(i)
        if not left:
            break
    return found


@click.command()
@click.argument("task")
@policy_option
@click.option("--candidates", "n_candidates", default=1, show_default=True)
@click.option("--guidance-scale", type=float, help="[default: the policy's]")
@click.option("--temperature", type=float, help="[default: 0 for one candidate, else the policy's]")
@click.option("--select", help="[default: the policy's]")
@click.option("--episodes", default=25, show_default=True)
@click.option("--seed", default=0)
@threads_option
@click.option("--data", type=Path, help="Recorded steps, for the metres to the goal.")
@click.option("--json", "path", type=Path, required=True)
def main(task: str, policy_name: str | None, episodes: int, seed: int, data: Path | None, path: Path,
         **sampling: Any) -> None:
    """Plays the episodes and counts their ends."""
    policy = load_policy(policy_name or task)
    found = play(policy, task, episodes, seed, **sampling)
    counts = {end: sum(each["end"] == end for each in found) for end in ("reached", "overturned", "time_up")}
    paths = [np.stack(each.pop("path")) for each in found]
    result = {"task": task, "seed": seed, "counts": counts, "episodes": found,
              "falls": falls([(path[:, :2], upright(path)) for path in paths]),
              "sampling": asdict(policy.settings(**sampling))}
    used = None
    if data is not None:
        recorded = load_for(task, str(data))
        used = recorded.fingerprint()
        result["metres_left"] = metres_left(recorded, found)
        every, begins = recorded.observations, np.flatnonzero(np.diff(recorded.episodes)) + 1
        result["falls_recorded"] = falls([(part[:, :2], upright(part)) for part in np.split(every, begins)])
    save(path, result, data_hash=used)
    click.echo(f"{counts} {result.get('metres_left', '')}")
    for name in ("falls", "falls_recorded"):
        for kind, each in result.get(name, {}).items():
            click.echo(f"{name}, {kind}: {each['falls']} in {each['steps']:,} steps, "
                       f"{each['falls_per_1000_steps']:.2f} in 1,000")


def metres_left(recorded: Transitions, found: list[dict[str, Any]]) -> dict[str, float]:
    """Mean metres to the goal along recorded steps, from where episodes began and where they ended."""
    way, grid = way_in(recorded)
    if way is None:
        raise click.UsageError("no recorded step is rewarded; give the data of the task")
    centres, known = grid.centres(), np.isfinite(way.metres)
    left = {}
    for name in ("begin", "at"):
        places = np.array([each[name] for each in found])
        nearest = np.linalg.norm(places[:, None] - centres[known], axis=2).argmin(axis=1)
        left[name] = float(way.metres[known][nearest].mean())
    return left


if __name__ == "__main__":
    run(main)
