"""All measurements of one GPU, in one command: ceilings, parity, tuning, throughput, latency, memory.

    python benchmarks/gpu.py

Writes benchmarks/results/<device>/: gpu.json after every part, and a picture of each weight head.
`--device cpu --tiny` walks the same parts with small sizes, to see that they work.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import torch

from swg_fast.bench import plot_bench, run_bench
from swg_fast.errors import UsageError
from swg_fast.files import write_json
from swg_fast.networks import ScoreNetwork
from swg_fast.policy import Policy
from swg_fast.report import versions
from swg_fast.samplers import sampler_table
from swg_fast.schedule import NoiseSchedule

ROOT = Path(__file__).parent.parent
MANY = [2**k for k in (6, 8, 10, 12, 14, 17, 20)]


def copy_bandwidth(device: torch.device, megabytes: int) -> float:
    """Bytes read and written per second by a device-to-device copy."""
    source = torch.randn(megabytes * 2**18, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(12):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return 2 * source.numel() * 4 / sorted(times)[len(times) // 2]


def parity(tiny: bool) -> str:
    """The last line of the kernel tests' run on this device."""
    chosen = ["-k", "guided_step and D9"] if tiny else []
    out = subprocess.run([sys.executable, "-m", "pytest", "tests/kernels/test_fused.py", *chosen],
                         capture_output=True, text=True, cwd=ROOT)
    return (out.stdout.strip().splitlines() or [out.stderr.strip()])[-1]


def tuned(policy: Policy, sizes: list[int], repeats: int) -> list[dict[str, Any]]:
    """Tunes the fused kernel for each number of candidates of one state; every trial's time."""
    backend = policy.backend("triton")
    table = sampler_table("ddpm", policy.model.schedule, guidance_scale=5.0, temperature=1.0)
    return [{"n_candidates": n, "config": vars(trial.config), "reason": trial.reason,
             "milliseconds": None if trial.seconds is None else 1e3 * trial.seconds}
            for n in sizes for trial in backend.tune(table, 1, n, repeats)]


def commit() -> str:
    """The checkout's commit, or "unknown" outside one."""
    out = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    return out.stdout.strip() or "unknown"


@click.command()
@click.option("--device", default="cuda")
@click.option("--tiny", is_flag=True, help="Small sizes, to see that every path works.")
@click.option("--skip-parity", is_flag=True)
@click.option("--skip-tuning", is_flag=True)
@click.option("--swg-jax", metavar="PATH", help="A checkout of SWG-JAX, measured on the same parameters.")
def main(device: str, tiny: bool, skip_parity: bool, skip_tuning: bool, swg_jax: str | None) -> None:
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise click.ClickException("torch sees no CUDA device here; on a machine without a GPU use "
                                   "--device cpu --tiny")
    where = torch.device(device)
    cuda = where.type == "cuda"
    name = torch.cuda.get_device_name(where) if cuda else "cpu"
    folder = ROOT / "benchmarks" / "results" / (
        "tiny" if tiny else re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"))
    report: dict[str, Any] = {"device": name, "commit": commit(), "versions": versions(),
                              "copy_bytes_per_second": copy_bandwidth(where, 16 if tiny else 1024)}
    started = time.perf_counter()

    def part(title: str) -> None:
        write_json(folder / "gpu.json", report)
        click.echo(f"{time.perf_counter() - started:5.0f} s  {title}")

    if not skip_parity:
        report["parity"] = parity(tiny)
        part(f"parity: {report['parity']}")
    sizes = [64, 256] if tiny else MANY
    for head in ("joint", "early"):
        torch.manual_seed(0)
        policy = Policy(ScoreNetwork(29, 8, 64 if tiny else 256, weight_head=head), NoiseSchedule.vp(15),
                        device=where)
        try:
            if cuda and not skip_tuning:
                report[f"tuning {head}"] = tuned(policy, sizes, 3)
                part(f"tuned {head}")
            ours = ["reference", "torch", "triton" if cuda else "cpu"]
            common: dict[str, Any] = {"repeats": 2 if tiny else 3, "max_seconds": 3.0}
            report[head] = run_bench(policy, candidates=sizes, n_states=[1], backends=ours, dtypes=None,
                                     **common)
            part(f"one state, {head}")
            plot_bench(report[head], folder / f"gpu-{head}.png")
            if head == "joint":
                states, n = (4, 16) if tiny else (256, 4096)
                report["many states"] = run_bench(policy, candidates=[n], n_states=[states], backends=ours,
                                                  dtypes=None, **common)
                part(f"{states} states x {n}")
                # Peers compile for a minute a size: two sizes, the second large.
                peers = [ours[0], ours[2], "compile", "jax", *(["swg-jax"] if swg_jax else [])]
                report["peers"] = run_bench(policy, candidates=sizes[1:2] if tiny else [1024, 2**17],
                                            n_states=[1], backends=peers, dtypes=["fp32", "bf16"],
                                            swg_jax=swg_jax, **common)
                part("peers")
        except UsageError as error:
            raise click.ClickException(str(error)) from error
    part(f"done: {folder / 'gpu.json'}")


if __name__ == "__main__":
    main()
