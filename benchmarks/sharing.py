"""How a decision uses a CPU's cores: products that all cores share, against tiles of candidates, one a core.

    python -m benchmarks.sharing --threads 2

The ``cpu`` backend takes the first for few rows (`FEW`, `FEW_OF_A_PASS`) and the second for many. Both are
measured in turns in one process, for one state of a bundled policy and random inputs; `python -m
benchmarks.pages` makes the page's table.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.measuring import save, threads_option
from swg_fast.cli.ending import run
from swg_fast.policy.backends import cpu
from swg_fast.policy.policy import load_policy

RESULT = Path(__file__).parent / "results" / "sharing.json"
WALKS = {"student": (128, 256, 512, 1024, 2048, 4096), "ddpm": (64, 128, 256, 512, 1024)}
WAYS = {"shared": 2**30, "tiles": 0}  # rows up to which products are shared


def measure(policy: str, repeats: int) -> list[dict[str, Any]]:
    """A row for each sampler, type and N: the median milliseconds of both ways."""
    model, rows = load_policy(policy), []
    states = np.random.default_rng(0).normal(size=(repeats + 3, model.state_dim)).astype(np.float32)
    for sampler, counts in WALKS.items():
        for dtype in ("fp32", "bf16"):
            for n in counts:
                bound = model.bind(n_candidates=n, sampler=sampler, temperature=1.0, dtype=dtype,
                                   backend="cpu")
                taken: dict[str, list[float]] = {way: [] for way in WAYS}
                for k, state in enumerate(states):
                    for way, few in WAYS.items():
                        cpu.FEW = cpu.FEW_OF_A_PASS = few
                        start = time.perf_counter()
                        bound.sample(state, seed=k)
                        taken[way].append(1e3 * (time.perf_counter() - start))
                rows.append({"sampler": sampler, "dtype": dtype, "n_candidates": n} | {
                    way: statistics.median(each[3:]) for way, each in taken.items()})  # 3 to warm up
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """A line for each sampler and type, a column for each N: the time of sharing, and that of tiles."""
    counts = sorted({row["n_candidates"] for row in rows})
    found = {(row["sampler"], row["dtype"], row["n_candidates"]): row for row in rows}
    lines = ["| sampler, type | " + " | ".join(f"N = {n:,}" for n in counts) + " |",
             "|---" * (len(counts) + 1) + "|"]
    for sampler, dtype in dict.fromkeys((row["sampler"], row["dtype"]) for row in rows):
        cells = []
        for n in counts:
            row = found.get((sampler, dtype, n))
            cells.append("-" if row is None else f"{row['shared']:.3g} ({row['tiles']:.3g})")
        lines.append(f"| {sampler}, {dtype} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@click.command()
@click.option("--policy", default="antmaze-umaze-v2", show_default=True)
@click.option("--repeats", default=40, show_default=True)
@click.option("--json", "path", type=Path, default=RESULT)
@threads_option
def main(policy: str, repeats: int, path: Path) -> None:
    """Measures both ways, and prints the table."""
    rows = measure(policy, repeats)
    save(path, {"policy": policy, "repeats": repeats, "threads": torch.get_num_threads(), "rows": rows})
    click.echo(markdown(rows))


if __name__ == "__main__":
    run(main)
