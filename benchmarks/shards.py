"""Throughput of sharded sampling against the number of actors: measured on this machine's cores, and by the
cost model on paper for many GPUs.

    python benchmarks/shards.py --json benchmarks/results/shards.json --plot docs/shards.png

Numbers of actors take turns; a ratio is the median of the turns' own ratios to one actor. The model
has a GPU's candidates/s (--gpu-rate, from a measurement or an estimate), the network's latency and bandwidth.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

import click
import numpy as np


def model_seconds(n_candidates: int, states: int, gpus: int, rate: float, latency: float, bandwidth: float,
                  bytes_back: int, bytes_there: int) -> float:
    """Seconds of one call over ``gpus`` shards: the largest shard's candidates at ``rate`` a second, a
    message there and one back, and every shard's answer through the driver's link (bytes a second)."""
    drawn = states * -(-n_candidates // gpus) / rate
    crossing = gpus * (states * bytes_back + bytes_there) / bandwidth
    return drawn + 2 * latency + crossing


@click.command()
@click.option("--policy", "policy_name", default="antmaze-umaze-v2")
@click.option("--actors", default="", help="Numbers of actors: 1,2,4.  [default: up to all cores]")
@click.option("--candidates", default=2**14)
@click.option("--states", default=1)
@click.option("--dtype", default="auto")
@click.option("--turns", default=5)
@click.option("--gpu-rate", default=2e6, help="Guided candidates/s of one GPU, for the model.")
@click.option("--latency", default=1e-3, help="Seconds of one message of Ray's, for the model.")
@click.option("--bandwidth", default=1.25e9, help="Bytes/s of the driver's link (10 Gbit/s), for the model.")
@click.option("--json", "json_path", type=Path)
@click.option("--plot", "plot_path", type=Path)
def main(policy_name: str, actors: str, candidates: int, states: int, dtype: str, turns: int, gpu_rate: float,
         latency: float, bandwidth: float, json_path: Path | None, plot_path: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from swg_fast.common.atomic_files import write_json
    from swg_fast.common.console import versions
    from swg_fast.policy.policy import load_policy
    from swg_fast.sweep.shards import ShardedPolicy, sharded

    cores = len(os.sched_getaffinity(0))
    counts = [int(n) for n in actors.split(",")] if actors else sorted(
        {min(cores, 2**k) for k in range(cores.bit_length() + 1)})
    policy = load_policy(policy_name)
    observations = np.random.default_rng(0).standard_normal((states, policy.state_dim)).astype(np.float32)
    settings = {"guidance_scale": 1.0, "temperature": 1.0, "dtype": dtype}
    sizes = crossing(policy.state_dim, policy.action_dim, states)
    seconds: dict[int, list[float]] = {n: [] for n in counts}
    small: dict[int, list[float]] = {n: [] for n in counts}
    with sharded(policy, max(counts)) as every:
        parts = {n: ShardedPolicy(policy, every.ray, every.actors[:n]) for n in counts}
        for turn in range(turns + 1):
            for n, part in parts.items():
                for into, count in ((seconds, candidates), (small, 2)):
                    started = time.perf_counter()
                    part.sample(observations, n_candidates=count, seed=turn, **settings)
                    if turn:  # the first turn warms up
                        into[n].append(time.perf_counter() - started)
    rows = []
    for n in counts:
        ratios = [one / mine for one, mine in zip(seconds[counts[0]], seconds[n], strict=True)]
        rate = states * candidates / statistics.median(seconds[n])
        rows.append({"actors": n, "candidates_per_second": rate,
                     "times_one_actor": statistics.median(ratios),
                     "milliseconds_of_a_call_of_2": 1000 * statistics.median(small[n])})
    paper = [{"gpus": gpus, "n_candidates": n, "seconds": (s := model_seconds(
                  n, states, gpus, gpu_rate, latency, bandwidth, *sizes)),
              "candidates_per_second": states * n / s, "of_linear": states * n / s / (gpus * gpu_rate)}
             for n in (2**16, 2**20, 2**24) for gpus in (1, 8, 64)]
    measured = Table("actors", "candidates/s", "x one actor", "ms of a call with N = 2", title_justify="left",
                     title=f"measured: {cores} cores, N = {candidates:,}, {states} state(s)")
    for row in rows:
        measured.add_row(str(row["actors"]), f"{row['candidates_per_second']:,.0f}",
                         f"{row['times_one_actor']:.2f}", f"{row['milliseconds_of_a_call_of_2']:.1f}")
    model = Table("N", "GPUs", "ms a call", "candidates/s", "of linear", title_justify="left", title=(
        f"model on paper: {gpu_rate:,.0f} candidates/s a GPU, {1000 * latency:g} ms a message, "
        f"{bandwidth / 1e9:g} GB/s, {sizes[0]} bytes back a shard and state"))
    for row in paper:
        model.add_row(f"{row['n_candidates']:,}", str(row["gpus"]), f"{1000 * row['seconds']:,.1f}",
                      f"{row['candidates_per_second']:,.0f}", f"{100 * row['of_linear']:.0f} %")
    console = Console(width=110)
    console.print(measured)
    console.print(model)
    if json_path:
        write_json(json_path, {"policy": policy_name, "cores": cores, "candidates": candidates,
                               "states": states, "measured": rows, "model": paper,
                               "inputs": {"gpu_rate": gpu_rate, "latency": latency, "bandwidth": bandwidth,
                                          "bytes_back": sizes[0], "bytes_there": sizes[1]},
                               "versions": versions()})
    if plot_path:
        draw(rows, paper, plot_path)


def crossing(state_dim: int, action_dim: int, states: int) -> tuple[int, int]:
    """Bytes that cross the network: back from a shard for a state (a candidate with its weight, its rank and
    its index), and there to a shard for a call (the states with their indices, the sampler's table)."""
    return 4 * (action_dim + 1) + 4 + 4 + 8, states * (4 * state_dim + 8) + 4096


def draw(rows: list[dict[str, Any]], paper: list[dict[str, Any]], path: Path) -> None:
    """Measured throughput against actors beside the model's against GPUs, both with the linear line."""
    from matplotlib.figure import Figure

    from swg_fast.common.atomic_files import replacing
    from swg_fast.sweep.plots import COLORS, MARKERS

    figure = Figure(figsize=(9.6, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    counts = [row["actors"] for row in rows]
    base = rows[0]["candidates_per_second"] / counts[0]
    left.plot(counts, [n * base for n in counts], "--", color="#8c8c8c", label="linear")
    left.plot(counts, [row["candidates_per_second"] for row in rows], "o-", color=COLORS[0], label="measured")
    left.set(xlabel="actors of one core", ylabel="guided candidates/s", title="measured, this machine")
    left.set_xticks(counts)
    left.set_ylim(bottom=0)
    left.legend()
    for i, n in enumerate(dict.fromkeys(row["n_candidates"] for row in paper)):
        line = [row for row in paper if row["n_candidates"] == n]
        right.plot([row["gpus"] for row in line], [row["candidates_per_second"] for row in line],
                   marker=MARKERS[i], color=COLORS[i], label=f"N = {n:,}")
    gpus = sorted({row["gpus"] for row in paper})
    rate = max(row["candidates_per_second"] / row["of_linear"] / row["gpus"] for row in paper)
    right.plot(gpus, [g * rate for g in gpus], "--", color="#8c8c8c", label="linear")
    right.set(xlabel="GPUs", title="model on paper", xscale="log", yscale="log")
    right.set_xticks(gpus, [str(g) for g in gpus])
    right.minorticks_off()
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)


if __name__ == "__main__":
    main()
