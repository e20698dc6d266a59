"""The commands ``swg-fast bench`` and ``swg-fast tune``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swg_fast.cli.options import PATH, whole_numbers
from swg_fast.common.checks import MAX_CANDIDATES
from swg_fast.policy.sampling import check_overrides

if TYPE_CHECKING:
    from swg_fast.evaluation.bench.run import Bench
    from swg_fast.policy.policy import Policy

MAX_STATES = 2**20


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that name a network by task or by sizes; the command gets a ``policy`` of it."""
    options = [
        click.option("--env", "task", help="Sizes of this task's bundled policy."),
        click.option("--state-dim", type=click.IntRange(min=0), default=29, help="Numbers in a state."),
        click.option("--action-dim", type=click.IntRange(min=1), default=8, help="Numbers in an action."),
        click.option("--hidden-dim", type=click.IntRange(min=1), default=256, help="The network's width."),
        click.option("--weight-head", type=click.Choice(["early", "joint"]), default="joint",
                     help="Where the network reads out the weight's noise."),
        click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N."),
    ]

    @functools.wraps(command)
    def with_policy(task: str | None, state_dim: int, action_dim: int, hidden_dim: int, weight_head: str,
                    device: str, **rest: Any) -> Any:
        from swg_fast.common.hardware import resolve_device
        from swg_fast.policy.policy import load_policy, untrained_policy

        resolve_device(device)
        if task:
            return command(load_policy(task, device), **rest)
        return command(untrained_policy(state_dim, action_dim, device, hidden_dim=hidden_dim,
                                        weight_head=weight_head), **rest)

    return functools.reduce(lambda f, option: option(f), reversed(options), with_policy)


@click.command()
@network_options
@click.option("--candidates", default="64,1024,4096", help="Candidates of a state: one number or several.")
@click.option("--states", default="1,64", help="States of a call: one number or several.")
@click.option("--backends", default="all",
              help="all, or names; the peers compile, jax and swg-jax count as such.")
@click.option("--swg-jax", metavar="PATH", help="A checkout of SWG-JAX, measured on the same parameters.")
@click.option("--dtypes", default="all", help="Compute types: all, or some of fp32, bf16, tf32.")
@click.option("--guidance-scale", type=float, help="Guidance scale of the search.  [default: 5, or what a "
                                                   "student alone has learnt]")
@click.option("--repeats", type=click.IntRange(min=1), default=4, help="Turns of each contender.")
@click.option("--json", "json_path", type=PATH, help="Write the table as JSON.")
@click.option("--plot", "plot_path", type=PATH, help="Draw the speeds.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def bench(policy: Policy, candidates: str, states: str, backends: str, dtypes: str,
          guidance_scale: float | None, json_path: Path | None, plot_path: Path | None, quiet: bool,
          **settings: Any) -> None:
    """Measure candidates/s of every backend on this machine, guided, on random inputs.

    Of a policy with teacher and student it measures the teacher, of a student alone the student's calls.
    """
    from swg_fast.common.atomic_files import write_json
    from swg_fast.common.output_paths import check_outputs
    from swg_fast.common.provenance import provenance
    from swg_fast.evaluation.bench import plot_bench, run_bench

    check_outputs(json=json_path, plot=plot_path)
    check_overrides({"guidance_scale": guidance_scale})
    result = run_bench(policy, candidates=whole_numbers(candidates, "--candidates", MAX_CANDIDATES),
                       n_states=whole_numbers(states, "--states", MAX_STATES), backends=backends.split(","),
                       dtypes=None if dtypes == "all" else dtypes.split(","),
                       guidance_scale=guidance_scale, progress=not quiet, **settings)
    if json_path is not None:
        write_json(json_path, asdict(result) | {"provenance": provenance(policy.device)})
    _show_bench(result)
    if plot_path is not None:
        plot_bench(result, plot_path)
        click.echo(f"picture: {plot_path}")


def _show_bench(result: Bench) -> None:
    from rich.table import Table

    from swg_fast.common.console import NARROW, show

    table = Table("backend", "states", "N", "candidates/s", "ms/decision", "x reference", "GFLOP/s",
                  "% of ceiling", "peak MB")
    for row in result.results:
        speedup = row.speedup_over_reference
        table.add_row(f"{row.backend} {row.dtype}", str(row.n_states), str(row.n_candidates),
                      f"{row.candidates_per_second:,.0f}", f"{row.milliseconds:.1f}",
                      f"{speedup:.2f}" if speedup else "-", f"{row.gflops:,.0f}",
                      f"{row.percent_of_ceiling:.0f}", f"{row.peak_bytes / 1e6:,.0f}")
    show(table, NARROW)
    slow: dict[str, list[str]] = {}
    for one in result.left_out:
        if one.seconds:
            slow.setdefault(f"{one.n_states} x {one.n_candidates}", []).append(
                f"{one.backend} {one.dtype} ({one.seconds:.0f} s)")
    for size, names in slow.items():
        click.echo(f"left out of {size}, for a decision's time: {', '.join(names)}")
    for one in result.left_out:
        if not one.seconds:
            click.echo(f"left out, since it failed: {one.backend} {one.dtype}: {one.reason}")


@click.command()
@network_options
@click.option("--candidates", default="1024,131072", help="Candidates of a state: one number or several.")
@click.option("--states", default="1", help="States of a call: one number or several.")
@click.option("--dtype", help="bf16, tf32 or fp32.  [default: the device's]")
@click.option("--guidance-scale", type=float, default=5.0, help="Guidance scale of the search.")
@click.option("--repeats", type=click.IntRange(min=1), default=5, help="Calls that are timed.")
def tune(policy: Policy, candidates: str, states: str, dtype: str | None, guidance_scale: float,
         repeats: int) -> None:
    """Time the fused kernel's configurations on this GPU and keep the fastest of each size.

    The choice is kept on disk for this device, shape and size, and used from then on.
    """
    from rich.table import Table

    from swg_fast.common.console import NARROW, show
    from swg_fast.kernels.fused.tuning import cache_path
    from swg_fast.method.samplers import sampler_table

    backend: Any = policy.backend("triton", dtype)  # only this one has `tune`
    sampler = sampler_table("ddpm", policy.model.schedule, guidance_scale=guidance_scale, temperature=1.0)
    table = Table("states", "N", "tile x chunk", "warps", "stages", "milliseconds")
    for b in whole_numbers(states, "--states", MAX_STATES):
        for n in whole_numbers(candidates, "--candidates", MAX_CANDIDATES):
            for trial in backend.tune(sampler, b, n, repeats):
                config = trial.config
                table.add_row(str(b), str(n), f"{config.tile} x {config.chunk}", str(config.warps),
                              str(config.stages),
                              f"{1e3 * trial.seconds:.2f}" if trial.seconds else trial.reason)
    show(table, NARROW)
    click.echo(f"kept in {cache_path()}")
