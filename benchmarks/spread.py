"""Spread of a state's candidates, and the kept action's distance from their mean, by sampler and temperature.

    python -m benchmarks.spread antmaze-large-play-v2 --data FILE --json FOUND.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.measuring import policy_option, save
from swg_fast.cli.ending import run
from swg_fast.common.atomic_files import sha256
from swg_fast.data.hdf5 import read_hdf5
from swg_fast.policy.policy import load_policy

# Sampler, steps (None: all), temperature.
WALKS = (("dpmpp_2m", 6, 0.5), ("dpmpp_2m_sde", 6, 0.5), ("dpmpp_2m_sde", 8, 0.5), ("dpmpp_2m_sde", 15, 0.5),
         ("ddpm", None, 0.5), ("dpmpp_2m_sde", 15, 0.75), ("ddpm", None, 0.75))


@click.command()
@click.argument("task")
@policy_option
@click.option("--data", "data_path", type=Path, required=True, help="D4RL HDF5 file to take states from.")
@click.option("--states", default=128)
@click.option("--candidates", default=64)
@click.option("--guidance-scale", default=1.0)
@click.option("--select", default="expected_weight")
@click.option("--seed", default=0)
@click.option("--json", "json_path", type=Path, required=True)
def main(task: str, policy_name: str | None, data_path: Path, states: int, candidates: int,
         guidance_scale: float, select: str, seed: int, json_path: Path) -> None:
    policy, every = load_policy(policy_name or task), read_hdf5(data_path)["observations"]
    rows = np.sort(np.random.default_rng(seed).choice(len(every), states, replace=False))
    found: list[dict[str, Any]] = []
    for sampler, steps, temperature in WALKS:
        drawn = policy.sample(every[rows], n_candidates=candidates, guidance_scale=guidance_scale,
                              temperature=temperature, select=select, sampler=sampler, sampler_steps=steps,
                              seed=seed, return_candidates=True)
        mean = drawn.candidates.mean(dim=1)
        found.append({"sampler": sampler, "sampler_steps": steps, "temperature": temperature,
                      "spread": float(drawn.candidates.std(dim=1).mean()),
                      "kept_from_mean": float((drawn.actions - mean).norm(dim=1).mean())})
        click.echo("{sampler} {sampler_steps} at {temperature}: spread {spread:.3f}, the kept action "
                   "{kept_from_mean:.2f} from the mean".format_map(found[-1]))
    save(json_path, {"task": task, "states": states, "candidates": candidates, "select": select,
                     "guidance_scale": guidance_scale, "seed": seed, "rows": found},
         data_hash=sha256(data_path))


if __name__ == "__main__":
    run(main)
