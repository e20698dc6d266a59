"""Every D4RL task of the paper: made, stepped, scored, drawn, timed and compared with MuJoCo 2.3.3.

    python -m benchmarks.environments --json benchmarks/results/environments.json

A rate is for random actions, the median over turns, in the process's CPU time, which other programs hardly
affect. The one-step error is the median over recorded steps of a position's largest difference, with mended
and with MuJoCo's contacts.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import one_step
from benchmarks.measuring import save
from swg_fast.cli.ending import run
from swg_fast.common.errors import UsageError
from swg_fast.data.download import remote_path
from swg_fast.envs import contacts, make_env
from swg_fast.envs.d4rl_import import FAMILY_MODULES
from swg_fast.envs.status import family_status
from swg_fast.envs.tasks import presets


def look_at(task: str, steps: int, turns: int) -> dict[str, Any]:
    """The figures of one task in the table."""
    data = {"family": presets()[task].family, "data": remote_path(task)}
    try:
        env = make_env(task)
    except UsageError as error:
        return data | {"made": False, "why": str(error)}
    first = env.reset(0)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (steps, env.action_dim))
    rewards, rates = [], []
    for turn in range(turns):
        env.reset(turn)
        started = time.process_time()
        for action in actions:
            _, reward, done = env.step(action)
            rewards.append(reward)
            if done:
                env.reset(turn)
        rates.append(steps / (time.process_time() - started))
    try:
        drawn = env.render(96, 64).std() > 5
    except UsageError:
        drawn = False
    found = data | {"made": True, "state_dim": env.state_dim, "action_dim": env.action_dim,
            "max_episode_steps": env.max_episode_steps,
            "stepped": bool(np.isfinite(rewards).all()),
            "seeded": bool(np.array_equal(first, env.reset(0))),
            "scored": [env.normalized_score(r) for r in (0.0, 1.0)], "rendered": bool(drawn),
            "steps_per_second": statistics.median(rates)}
    env.close()
    return found


def one_step_errors() -> dict[str, dict[str, float]]:
    """The one-step error of each model, with mended contacts and with MuJoCo's."""
    found: dict[str, dict[str, float]] = {}
    mend = contacts.mend
    for how, mending in (("mended", mend), ("as they are", lambda model: None)):
        contacts.mend = mending
        try:
            for model, task in one_step.MODELS.items():
                error = one_step.errors(make_env(task), one_step.load(model))
                found.setdefault(model, {})[how] = float(np.median(error["qpos"]))
        finally:
            contacts.mend = mend
    return found


def markdown(result: dict[str, Any]) -> str:
    """The table of a result."""
    lines = ["| task | sizes | made, seeded, stepped, scored | rendered | steps/s | one step, mended | as is "
             "| D4RL's data |", "|---|---|---|---|---|---|---|---|"]
    for task, row in result["tasks"].items():
        if not row["made"]:
            lines.append(f"| {task} | - | no: {row['why']} | - | - | - | - | `{row['data']}` |")
            continue
        error = result["one_step"][one_step.model_of(task)]
        well = all((row["seeded"], row["stepped"], np.isfinite(row["scored"]).all()))
        lines.append(f"| {task} | {row['state_dim']}, {row['action_dim']} | {'yes' if well else 'no'} "
                     f"| {'yes' if row['rendered'] else 'no'} | {row['steps_per_second']:,.0f} "
                     f"| {error['mended']:.0e} | {error['as they are']:.0e} | `{row['data']}` |")
    return "\n".join(lines)


@click.command()
@click.option("--json", "json_path", type=Path, required=True)
@click.option("--steps", default=200)
@click.option("--turns", default=3)
def main(json_path: Path, steps: int, turns: int) -> None:
    from swg_fast.envs import simulator

    tasks = {task: look_at(task, steps, turns) for task, preset in presets().items() if preset.newer is None}
    found = {"tasks": tasks, "one_step": one_step_errors(),
             "families": {family: family_status(family) for family in FAMILY_MODULES},
             "simulator": simulator.describe()}
    save(json_path, found)
    click.echo(markdown(found))


if __name__ == "__main__":
    run(main)
