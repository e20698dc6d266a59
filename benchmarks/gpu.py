"""All measurements of one GPU, in one command: ceilings, parity, throughput, latency, memory.

    python benchmarks/gpu.py

Writes benchmarks/results/<device>/gpu.json and gpu.png. `--device cpu --tiny` walks the same paths
with small sizes, to see that they work.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import click
import torch

from swg_fast.bench import plot_bench, run_bench
from swg_fast.errors import UsageError
from swg_fast.files import write_json
from swg_fast.networks import ScoreNetwork
from swg_fast.policy import Policy
from swg_fast.report import versions
from swg_fast.schedule import NoiseSchedule

RESULTS = Path(__file__).parent / "results"


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


def commit() -> str:
    out = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True,
                         cwd=Path(__file__).parent)
    return out.stdout.strip() or "unknown"


@click.command()
@click.option("--device", default="cuda")
@click.option("--tiny", is_flag=True, help="Small sizes, to see that every path works.")
@click.option("--skip-parity", is_flag=True)
def main(device: str, tiny: bool, skip_parity: bool) -> None:
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise click.ClickException("torch sees no CUDA device here; on a machine without a GPU use "
                                   "--device cpu --tiny")
    where = torch.device(device)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"
    folder = RESULTS / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    report: dict = {"device": name, "commit": commit(), "versions": versions(),
                    "copy_bytes_per_second": copy_bandwidth(where, 16 if tiny else 1024)}
    if not skip_parity:
        tests = Path(__file__).parent.parent / "tests" / "kernels" / "test_fused.py"
        out = subprocess.run([sys.executable, "-m", "pytest", str(tests), "-k", "guided_step and D9"
                              if tiny else ""], capture_output=True, text=True)
        report["parity"] = out.stdout.strip().splitlines()[-1]
        click.echo(f"parity: {report['parity']}")
    torch.manual_seed(0)
    sizes = [64, 256] if tiny else [2**k for k in (6, 8, 10, 12, 14, 17, 20)]
    for head in ("joint", "early"):
        policy = Policy(ScoreNetwork(29, 8, 64 if tiny else 256, weight_head=head),
                        NoiseSchedule.vp(15), device=where)
        backends = ["reference", "torch", "cpu"] if where.type == "cpu" else ["all"]
        try:
            report[head] = run_bench(policy, candidates=sizes, n_states=[1], backends=backends, dtypes=None,
                                     repeats=3 if tiny else 7)
        except UsageError as error:
            raise click.ClickException(str(error)) from error
        write_json(folder / "gpu.json", report)
        plot_bench(report[head], folder / f"gpu-{head}.png")
    click.echo(f"{folder / 'gpu.json'}")


if __name__ == "__main__":
    main()
