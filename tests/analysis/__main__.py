"""``python -m tests.analysis``: compiles the fused kernels for GPUs that this machine need not have."""

from __future__ import annotations

import os
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from tqdm import tqdm

from swg_fast.cli.ending import run
from swg_fast.cli.measure import whole_numbers
from swg_fast.common.atomic_files import write_json
from swg_fast.common.checks import whole
from swg_fast.common.console import show
from swg_fast.common.errors import UsageError
from swg_fast.common.hardware import max_threads
from swg_fast.common.interrupts import install, shielded
from swg_fast.common.output_paths import check_outputs
from tests.analysis.compile_offline import end_with_parent, report_row, shapes, shipped


def _loop(loop: dict[str, Any]) -> str:
    """A line for one loop of a kernel's report."""
    matrix = " ".join(f"{count} {kind}" for kind, count in loop["matrix_instructions"].items())
    rest = (f"{loop['waits_for_products']} + {loop['waits_for_copies']}", loop["barriers"])
    return "  ".join([matrix, *("-" if x is None else f"{x:g}" if isinstance(x, float) else str(x)
                                for x in (loop["products"], *rest, loop["special_per_element"]))])


@click.command(context_settings={"show_default": True})
@click.option("--targets", default="sm_80,sm_90,sm_100", help="GPU generations.")
@click.option("--dtypes", default="all", help="all, or some of fp32, bf16, tf32.")
@click.option("--hidden-dims", default="64,128,256", help="Some of 64, 128, 256.")
@click.option("--shapes", "of_shapes", is_flag=True,
              help="Instead: the kernel for many candidates on sm_90 in its variants.")
@click.option("--jobs", type=click.IntRange(min=1), help="Compilations at a time.  [default: all cores]")
@click.option("--json", "json_path", type=Path, help="Write one row a configuration and target.")
def main(targets: str, dtypes: str, hidden_dims: str, of_shapes: bool, jobs: int | None,
         json_path: Path | None) -> None:
    """Compile the fused kernels for GPUs that this machine need not have, and report on their code.

    For a trip of each innermost loop over matrix products: its matrix instructions; how many products of a
    tile with a chunk they make (2 forwards and 3 back are needed); waits for products and for copies;
    barriers; special-function instructions an entry of the wide layer. Also the bytes of weights and of
    scratch that a candidate and step move through the L2 cache, and for sm_90 in bf16 the thousand cycles of
    a step of 128 candidates by a static model (docs/kernel-notes.md compares it with an H200).
    """
    check_outputs(json=json_path)
    jobs = whole("--jobs", jobs or os.cpu_count() or 1, 1, max_threads())
    if not re.fullmatch(r"sm_\d+(,sm_\d+)*", targets):
        raise UsageError(f"--targets {targets!r}: give names such as sm_80,sm_90")
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise UsageError("under TRITON_INTERPRET=1 nothing compiles; unset it for this command")
    kinds = {"fp32", "bf16", "tf32"} if dtypes == "all" else set(dtypes.split(","))
    if not kinds <= {"fp32", "bf16", "tf32"}:
        raise UsageError(f"--dtypes {dtypes!r}: give all, or of fp32, bf16, tf32")
    work = shipped([int(target.removeprefix("sm_")) for target in targets.split(",")])
    hidden = whole_numbers(hidden_dims, "--hidden-dims", 256)
    work = [row for row in work if row["dtype"] in kinds and row["hidden"] in hidden]
    work = shapes() if of_shapes else work
    if not work:
        raise UsageError(f"--hidden-dims {hidden_dims}: the fused kernels have 64, 128 and 256")
    os.environ["PYTHONSAFEPATH"] = "1"  # of the workers, which take no module of the current folder
    with ProcessPoolExecutor(jobs, get_context("spawn"), end_with_parent) as pool:
        with shielded(pool=True):
            compiled = pool.map(report_row, work)
        try:
            rows = list(tqdm(compiled, "compiling", len(work), unit="kernel"))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    table = Table("kernel", "target", "dtype", "hidden", "head", "tile x chunk", "registers",
                  "stack bytes", "shared bytes",
                  "a loop's matrix instructions, products, waits, barriers, special functions",
                  "KB weights, scratch", "predicted thousand cycles")
    for row in rows:
        config = row["config"]
        table.add_row(row["kernel"], row["target"], row["dtype"], str(config["hidden_dim"]), config["head"],
                      f"{config['tile']} x {config['chunk']}", str(row["registers"]),
                      str(row["stack_bytes"]), str(row["shared_bytes"]),
                      "\n".join(map(_loop, row["matrix_loops"])),
                      " ".join(f"{n / 1000:.1f}" for n in row["bytes_per_candidate_and_step"].values()),
                      str(row.get("predicted_thousand_cycles", {}).get("total", "-")))
    show(table)
    if json_path is not None:
        write_json(json_path, rows)


if __name__ == "__main__":
    install()
    run(main)
