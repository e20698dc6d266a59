"""The commands ``swg-fast sweep`` and ``swg-fast report``."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from swg_fast.cli.options import PATH

BUSY = 1.2  # processes for each core


@click.command()
@click.argument("file", type=PATH)
@click.option("--out", help="Folder of the results.  [default: runs/sweeps/FILE's name]")
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE",
              help="Another value for a setting of FILE, such as train.critic_steps=1000, "
                   "dataset.hopper-medium-v2=FILE or run.threads=2; may be repeated.")
@click.option("--address", help="A Ray cluster's; OUT must be a folder that all its machines share.  "
                                "[default: this machine's cores]")
@click.option("--cpus", type=int, help="CPUs of this machine to use.  [default: all]")
@click.option("--dry-run", is_flag=True, help="Say what would run and, from one timed cell, how long.")
@click.option("--json", "json_path", type=PATH, help="Write what --dry-run says of the time as JSON.")
@click.option("--quiet", is_flag=True, help="No live table.")
def sweep(file: Path, out: str | None, overrides: tuple[str, ...], address: str | None, cpus: int | None,
          dry_run: bool, json_path: Path | None, quiet: bool) -> None:
    """Run a grid of trainings and evaluations, written down in FILE (TOML), on Ray.

    Cells that are finished in OUT are not run again. 'swg-fast report OUT' makes the tables and pictures.
    """
    from swg_fast.common.checks import whole
    from swg_fast.common.errors import UsageError, opened_by
    from swg_fast.common.hardware import cores, max_threads
    from swg_fast.common.output_paths import check_folder, check_outputs
    from swg_fast.sweep import cells as resolved
    from swg_fast.sweep import store as stores
    from swg_fast.sweep.plan_file import read_plan
    from swg_fast.sweep.ray_runner import check_fit
    from swg_fast.sweep.settings import RunSettings, section
    from swg_fast.sweep.views import check_report

    out = str(Path("runs/sweeps") / file.stem) if out is None else out
    check_folder(out)
    check_outputs(json=json_path)
    if json_path is not None and not dry_run:
        raise UsageError(f"--json {json_path}: is for --dry-run; 'swg-fast report' writes a sweep's results")
    plan = read_plan(file, overrides)
    cpus = whole("--cpus", cores() if cpus is None else cpus, 1, max_threads())
    with opened_by(f"{file}:"):
        check_report(plan.report)
        run = section("run", RunSettings, plan.run)
        if address is None:
            check_fit("cpus", run.cpus, cpus)
    cells = resolved.resolve(plan, partial(stores.hash_data, trust=run.trust), stores.hash_policy)
    store = stores.Store(out)
    trainings, missing = store.pending(cells)
    if missing and address is None:
        resolved.check_here(trainings, run)
    trained = len({cell.training.key for cell in cells if cell.training})
    click.echo(f"{plan.title}: {len(cells)} cells ({len(cells) - len(missing)} done), "
               f"{trained} trainings ({len(trainings)} to do); {store.folder}")
    if dry_run:
        _dry_run(trainings, missing, run, cpus, json_path)
        return
    with stores.locked(store.folder / "lock"):
        store.begin(plan, cells)  # even where nothing is missing: FILE may ask for other tables
        if not missing:
            click.echo(f"nothing to do; swg-fast report {store.folder}")
            return
        _run(plan.title, store, trainings, missing, len(cells), run, address, cpus, quiet)


def _run(title: str, store: Any, trainings: list[Any], missing: list[Any], total: int, run: Any,
         address: str | None, cpus: int, quiet: bool) -> None:
    from swg_fast.common.interrupts import Stopped
    from swg_fast.sweep import ray_runner
    from swg_fast.sweep.live import Live
    from swg_fast.sweep.ray_start import connected

    with connected(address, cpus) as ray:
        slots = ray_runner.slots(ray, run)
        live = Live(title, store, trainings, missing, total, slots, quiet)
        with live.shown():
            try:
                outcomes = ray_runner.run_all(ray, store, trainings, missing, run, live.tell)
            except Stopped as stop:
                click.echo("stopped; the same command goes on with what is missing", err=True)
                sys.exit(stop.code)
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        name = getattr(outcome.item, "label", f"training {outcome.item.key}")
        click.echo(f"failed: {name}: {outcome.error}", err=True)
    click.echo(f"{total - sum(hasattr(o.item, 'label') for o in failed)} of {total} cells done; "
               f"swg-fast report {store.folder}")
    if failed:
        sys.exit(1)


def _dry_run(trainings: list[Any], missing: list[Any], run: Any, cpus: int, json_path: Path | None) -> None:
    from dataclasses import asdict

    from swg_fast.common.atomic_files import write_json
    from swg_fast.common.console import print_table
    from swg_fast.common.provenance import provenance
    from swg_fast.sweep.estimate import cost
    from swg_fast.sweep.live import duration
    from swg_fast.sweep.ray_runner import slots_here

    if not missing:
        click.echo("nothing to do")
        return
    if trainings:
        print_table("would train", [
            (t.key, f"{t.task}, seed {t.settings['seed']}: " + (
                f"a student, {t.distill['steps']:,} steps" if t.distill else
                f"{t.settings['critic_steps']:,} + {t.settings['actor_steps']:,} steps")) for t in trainings])
    print_table("would find", [(cell.key, cell.label) for cell in missing])
    found = cost(trainings, missing, run, slots_here(run, cpus))
    if json_path is not None:
        write_json(json_path, asdict(found) | {"provenance": provenance(run.device)})
    hours = ", ".join(f"{hours:,.3g} {found.unit} hours to {kind}" for kind, hours in found.hours.items())
    click.echo(f"about {duration(found.seconds)} with {found.at_once} at once: {hours}, on {found.device}; "
               f"from one cell timed for a moment ({found.timed})")
    if found.load is not None and found.load > BUSY:
        click.echo(f"this machine is busy: {found.load:.1f} processes for each core; an idle one takes less")


@click.command()
@click.argument("folder")
@click.option("--out", help="Folder of the report.  [default: FOLDER/report]")
def report(folder: str, out: str | None) -> None:
    """Make tables, pictures and one HTML page of the sweep in FOLDER, finished or not.

    FOLDER may also be the results.json of an earlier report.
    """
    from swg_fast.common.console import show
    from swg_fast.sweep.report_page import paper_tables, write_report
    from swg_fast.sweep.tables import as_rich, caption

    for path in write_report(folder, out):
        click.echo(str(path))
    for block in paper_tables(folder):
        show(as_rich(block))
        click.echo(f"{caption(block)}\n")


COMMANDS = (sweep, report)
