"""Training steps a second on this machine, beside a jitted JAX step of the same networks.

    python -m benchmarks.training

Contenders: this project's compiled steps, its plain PyTorch step (which runs in bf16 and without a C
compiler) and JAX, all in fp32. Each has its own process, bound to its number of cores, and they take turns.
Medians and their ratios are printed and written to benchmarks/results/training.json, together with a whole
run's costs besides its steps and whether it resumes bit for bit (`training_run`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from benchmarks.measuring import save
from benchmarks.training_run import markdown, measure
from benchmarks.training_worker import serve
from swg_fast.cli.ending import run
from swg_fast.common.children import Child, Failure
from swg_fast.common.hardware import core_numbers, device_name, keep_to_cores
from swg_fast.common.interrupts import shielded

ROOT = Path(__file__).parent.parent
CASES = [("critic", "fp32", 256), ("actor", "fp32", 256), ("actor", "fp32", 1024)]
CONTENDERS = ("swg_fast", "plain", "jax")


@contextmanager
def workers(cores: list[int]) -> Iterator[dict[str, Child]]:
    """Each contender's process on ``cores``."""
    with shielded():
        children = {contender: Child(serve, cores, contender) for contender in CONTENDERS}
    try:
        yield children
    finally:
        for child in children.values():
            child.end()


def race(children: dict[str, Child], case: tuple[str, str, int], turns: int) -> dict[str, float]:
    """Median steps a second of each contender."""
    for child in children.values():
        child.pipe.send(case)
    for contender, child in children.items():
        answered(contender, child)
    found: dict[str, list[float]] = {contender: [] for contender in children}
    for turn in range(turns + 1):
        for contender, child in children.items():
            child.pipe.send(0.5)
            times = answered(contender, child)
            found[contender] += times if turn else []  # the first turn warms up
            time.sleep(0.02)
    for child in children.values():
        child.pipe.send(None)
    return {contender: 1 / statistics.median(times) for contender, times in found.items()}


def answered(name: str, child: Child) -> Any:
    """What the process sends next; an error where it failed."""
    found = child.answer()
    if isinstance(found, Failure):
        raise click.ClickException(f"{name}: {found.message}")
    return found


def whole_run(core: int) -> dict[str, Any]:
    """`training_run.measure` in its own process on one core."""
    with shielded():
        child = Child(measure, [core])
    try:
        return answered("a whole run", child)
    finally:
        child.end()


@click.command()
@click.option("--turns", default=6)
@click.option("--json", "json_path", type=Path, default=ROOT / "benchmarks" / "results" / "training.json")
@click.option("--one-core", is_flag=True, help="Leave out the rows on all cores, for a busy machine.")
def main(turns: int, json_path: Path, one_core: bool) -> None:
    import torch


    if find_spec("jax") is None:
        raise click.ClickException("the peer needs jax; pip install 'swg-fast[bench]'")
    cores = core_numbers()
    keep_to_cores(cores)  # changes nothing, and is refused here where no contender could be kept to a core
    rows = []
    for some in ([cores[0]], *([cores] if len(cores) > 1 and not one_core else [])):
        with workers(some) as children:
            for case in CASES:
                rate = race(children, case, turns)
                phase, precision, batch = case
                ours, plain, jax = (rate[contender] for contender in CONTENDERS)
                rows.append({"phase": phase, "precision": precision, "batch": batch, "cores": len(some),
                             "steps_per_second": ours, "plain_steps_per_second": plain,
                             "jax_steps_per_second": jax, "ratio": ours / jax, "times_plain": ours / plain})
                click.echo(f"{phase} {precision} {batch}, {len(some)} core(s): {ours:.1f} steps/s, plain "
                           f"{plain:.1f}, jax {jax:.1f}")
    found = {
        "machine": device_name(torch.device("cpu")), "cores": len(cores), "results": rows,
        "whole_run": whole_run(cores[0])}
    save(json_path, found)
    click.echo(markdown(found))


if __name__ == "__main__":
    run(main)
