"""All measurements of one GPU, part by part, beside other implementations.

    python -m benchmarks.gpu [--parts parity,peers] [--swg-jax PATH]

Writes benchmarks/results/<device>/gpu.json after every part, and a picture of the throughput. Parts of an
earlier run stay unless they run again. `--device cpu --tiny` runs small sizes, to check that they work.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch

from benchmarks import gpu_parts
from benchmarks.measuring import ROOT, recorded, save
from swg_fast.cli.ending import run
from swg_fast.common.errors import UsageError
from swg_fast.common.provenance import provenance
from swg_fast.evaluation.bench.plot import plot_bench
from swg_fast.evaluation.bench.run import Bench

PARTS = ("ceilings", "parity", "sanitizer", "configurations", "peers", "few", "layered", "throughput",
         "early", "memory", "counters", "training")


@dataclass(frozen=True)
class Measured:
    """What the JSON has beside its parts."""

    device: str


@click.command()
@click.option("--device", default="cuda")
@click.option("--tiny", is_flag=True, help="Small sizes, to check that every part works.")
@click.option("--parts", default=",".join(PARTS), help=f"Parts to run, of {', '.join(PARTS)}.")
@click.option("--swg-jax", metavar="PATH", help="A checkout of SWG-JAX, measured on the same parameters.")
@click.option("--out", type=Path, help="Folder of the results.  [default: benchmarks/results/<device>]")
def main(device: str, tiny: bool, parts: str, swg_jax: str | None, out: Path | None) -> None:
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("torch sees no CUDA device here; on a machine without a GPU use "
                         "--device cpu --tiny")
    unknown = [part for part in parts.split(",") if part not in PARTS]
    if unknown:
        raise UsageError(f"--parts {unknown[0]}: no such part; use some of {', '.join(PARTS)}")
    where = torch.device(device)
    if where.type == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"
    folder = out or ROOT / "benchmarks" / "results" / (
        "tiny" if tiny else re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"))
    path = folder / "gpu.json"
    report = recorded(path, {"device": name}, Measured)
    if report["device"] != name:
        raise UsageError(f"{path} has the measurements of {report['device']}, and this is {name}; give "
                         "another --out")
    started = time.perf_counter()
    for part in parts.split(","):
        keywords = {"swg_jax": swg_jax} if part == "peers" else {}
        try:
            found = getattr(gpu_parts, part)(where, tiny, **keywords)
        except UsageError as error:
            raise UsageError(f"{part}: {error}") from error
        report[part] = {**provenance(where),  # parts stay from other days and commits
                        "found": asdict(found) if isinstance(found, Bench) else found}
        save(path, report, where)
        if part == "throughput":
            plot_bench(found, folder / "throughput.png")
        click.echo(f"{time.perf_counter() - started:5.0f} s  {part}")
    click.echo(str(path))


if __name__ == "__main__":
    run(main)
