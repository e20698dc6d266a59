"""Throughput of sharded sampling by the number of actors: measured on this machine's cores, and predicted by
a cost model for many GPUs.

    python -m benchmarks.shards --json benchmarks/results/shards.json --plot docs/shards.png

Numbers of actors take turns. A ratio is the median over turns of the rate divided by that of the fewest
actors. The model's inputs are a GPU's candidates/s (--gpu-rate, measured or estimated) and the network's
latency and bandwidth.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.measuring import Several, save
from swg_fast.cli.ending import run
from swg_fast.common.figures import new_figure, save_figure
from swg_fast.common.hardware import core_numbers
from swg_fast.policy.policy import Policy, load_policy


@dataclass(frozen=True)
class Cluster:
    """The cost model: a GPU's guided candidates/s, seconds of a message, bytes/s of the driver's link, and
    the bytes that cross it: from a shard for each state, and to a shard for each call."""

    gpu_rate: float
    latency: float
    bandwidth: float
    bytes_back: int
    bytes_there: int

    def seconds(self, n_candidates: int, states: int, gpus: int) -> float:
        """Seconds of one call over ``gpus`` shards: the largest shard's candidates, a message in each
        direction, and every shard's bytes through the driver's link."""
        drawn = states * -(-n_candidates // gpus) / self.gpu_rate
        crossing = gpus * (states * self.bytes_back + self.bytes_there) / self.bandwidth
        return drawn + 2 * self.latency + crossing

    def rows(self, states: int) -> list[dict[str, Any]]:
        """Predictions for several N and numbers of GPUs."""
        return [{"gpus": gpus, "n_candidates": n, "seconds": (s := self.seconds(n, states, gpus)),
                 "candidates_per_second": (rate := states * n / s),
                 "of_linear": rate / (gpus * self.gpu_rate)}
                for n in (2**16, 2**20, 2**24) for gpus in (1, 8, 64)]


def measure(policy: Policy, counts: list[int], candidates: int, states: int, dtype: str, turns: int
            ) -> list[dict[str, Any]]:
    """Throughput by number of actors, and milliseconds of a call of two candidates."""
    from swg_fast.sweep.shards import ShardedPolicy, sharded

    observations = np.random.default_rng(0).standard_normal((states, policy.state_dim)).astype(np.float32)
    settings = {"guidance_scale": 1.0, "temperature": 1.0, "dtype": dtype}
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
        rows.append({"actors": n,
                     "candidates_per_second": states * candidates / statistics.median(seconds[n]),
                     "times_one_actor": statistics.median(ratios),
                     "milliseconds_of_a_call_of_2": 1000 * statistics.median(small[n])})
    return rows


@click.command()
@click.option("--policy", "policy_name", default="antmaze-umaze-v2")
@click.option("--actors", type=Several(), help="Numbers of actors: 1,2,4.  [default: up to all cores]")
@click.option("--candidates", default=2**14)
@click.option("--states", default=1)
@click.option("--dtype", default="auto")
@click.option("--turns", default=5)
@click.option("--gpu-rate", default=2e6, help="Guided candidates/s of one GPU, for the model.")
@click.option("--latency", default=1e-3, help="Seconds of one message of Ray's, for the model.")
@click.option("--bandwidth", default=1.25e9, help="Bytes/s of the driver's link (10 Gbit/s), for the model.")
@click.option("--json", "json_path", type=Path)
@click.option("--plot", "plot_path", type=Path)
def main(policy_name: str, actors: list[int] | None, candidates: int, states: int, dtype: str, turns: int,
         json_path: Path | None, plot_path: Path | None, **model: float) -> None:
    cores = len(core_numbers())
    counts = actors or sorted({min(cores, 2**k) for k in range(cores.bit_length() + 1)})
    policy = load_policy(policy_name)
    # From a shard: a candidate, its weight, rank and index. To it: states, their indices and the table.
    cluster = Cluster(**model, bytes_back=4 * (policy.action_dim + 1) + 4 + 4 + 8,
                      bytes_there=states * (4 * policy.state_dim + 8) + 4096)
    rows, paper = measure(policy, counts, candidates, states, dtype, turns), cluster.rows(states)
    show(rows, paper, cluster, f"{cores} cores, N = {candidates:,}, {states} state(s)")
    if json_path:
        save(json_path, {"policy": policy_name, "cores": cores, "candidates": candidates, "states": states,
                         "measured": rows, "model": paper, "inputs": asdict(cluster)})
    if plot_path:
        draw(rows, paper, plot_path)


def show(rows: list[dict[str, Any]], paper: list[dict[str, Any]], cluster: Cluster, setting: str) -> None:
    """Prints both tables."""
    from rich.console import Console
    from rich.table import Table

    measured = Table("actors", "candidates/s", "x one actor", "ms of a call with N = 2", title_justify="left",
                     title=f"measured: {setting}")
    for row in rows:
        measured.add_row(str(row["actors"]), f"{row['candidates_per_second']:,.0f}",
                         f"{row['times_one_actor']:.2f}", f"{row['milliseconds_of_a_call_of_2']:.1f}")
    model = Table("N", "GPUs", "ms a call", "candidates/s", "of linear", title_justify="left", title=(
        f"model on paper: {cluster.gpu_rate:,.0f} candidates/s a GPU, {1000 * cluster.latency:g} ms a "
        f"message, {cluster.bandwidth / 1e9:g} GB/s, {cluster.bytes_back} bytes back a shard and state"))
    for row in paper:
        model.add_row(f"{row['n_candidates']:,}", str(row["gpus"]), f"{1000 * row['seconds']:,.1f}",
                      f"{row['candidates_per_second']:,.0f}", f"{100 * row['of_linear']:.0f} %")
    console = Console(width=110)
    console.print(measured)
    console.print(model)


def draw(rows: list[dict[str, Any]], paper: list[dict[str, Any]], path: Path) -> None:
    """Plots measured throughput by actors beside the model's by GPUs, each with the linear line."""
    from swg_fast.sweep.plots import COLORS, MARKERS

    figure = new_figure(9.6, 4)
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
    save_figure(figure, path)


if __name__ == "__main__":
    run(main)
