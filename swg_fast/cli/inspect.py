"""The command ``swg-fast inspect``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swg_fast.common.errors import UsageError

if TYPE_CHECKING:
    from swg_fast.data import Transitions


@click.command("inspect")
@click.argument("name", metavar="RUN_OR_POLICY")
@click.option("--dataset",
              help="The training data: a D4RL HDF5 file, or minari:NAME.  [default: the run's]")
@click.option("--task", help="The policy's task.  [default: the run's or the card's]")
@click.option("--out", help="Folder of the pictures.  [default: RUN/inspect, or inspect-POLICY]")
@click.option("--states", "n_states", type=click.IntRange(1, 100_000), default=256,
              help="States with candidates.")
@click.option("-n", "--candidates", "n_candidates", type=click.IntRange(2, 100_000), default=64,
              help="Candidates of a state.")
@click.option("-g", "--guidance-scale", type=float,
              help="Guidance scale to look at beside 0.  [default: the policy's]")
@click.option("--every-state", is_flag=True, help="Measure the critic at each of the run's saved states too.")
@click.option("--judge", metavar="RUN_OR_POLICY",
              help="A run or policy whose critic measures the policy's ranking.")
@click.option("--judge-candidates", "n_judged", type=click.IntRange(4, 100_000), default=1024,
              help="Candidates of a state that it judges.")
@click.option("--record", is_flag=True, help="Write the figures of --judge into the policy's card.")
@click.option("--threads", type=int, help="CPU threads.  [default: all]")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of the states and the candidates.")
@click.option("--trust", multiple=True, metavar="NAME",
              help="Code that may run, as for 'swg-fast train'. Can be given several times.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def inspect(name: str, dataset: str | None, task: str | None, out: str | None, every_state: bool,
            judge: str | None, record: bool, threads: int | None, trust: tuple[str, ...], quiet: bool,
            **drawn: Any) -> None:
    """Look at what a run or a policy has learnt.

    Pictures of the value (over the maze, and against the recorded returns), of the advantages, of the
    weights that the network predicts against the critic's advantages, of a distilled student against its
    teacher, and of the losses; inspect.json has the figures. An unfinished run is read from its saved states.
    --judge measures the ranking: it prints how much better the kept candidate of 1, 4, 16, ... is.
    A correlation with a critic is a diagnosis, not a score: 'swg-fast evaluate' measures the score.
    """
    from dataclasses import replace

    from swg_fast.common.atomic_files import user_path
    from swg_fast.common.console import print_table
    from swg_fast.common.hardware import set_threads
    from swg_fast.common.output_paths import check_folder
    from swg_fast.data.load import load_for
    from swg_fast.evaluation.inspect.learnt import check_task_fits
    from swg_fast.evaluation.inspect.measure import Draws
    from swg_fast.evaluation.inspect.run import inspect_run
    from swg_fast.policy.checkpoint import add_to_card
    from swg_fast.training.source import find_source

    if threads:
        set_threads(threads)
    source = find_source(name)
    if record and (judge is None or source.folder is None):
        raise UsageError("--record needs --judge, and a policy whose card it can write into")
    if judge is not None:
        other = find_source(judge)
        if other.folder is None:
            raise UsageError(f"--judge {judge}: this run has no policy yet; wait for its end")
        judge = str(other.folder)
    check_task_fits(source, task)
    source = replace(source, task=task or source.task)
    beside = source.run / "inspect" if source.run else Path(f"inspect-{Path(name).name}")
    folder = user_path(beside if out is None else out)
    check_folder(folder)

    def data() -> Transitions:
        chosen = dataset or source.dataset
        if chosen is None:
            raise UsageError(f"{name}: give the data that it was trained on with --dataset")
        return load_for(source.task, chosen, observation_keys=source.observation_keys, trust=trust,
                        bounds=source.bounds)

    figures = inspect_run(source, data, folder, Draws(progress=not quiet, **drawn), every_state=every_state,
                          judge=judge, trust=trust)
    if record:
        add_to_card(source.folder or name, scorer=figures["scorer"])
    print_table(f"{name}: {figures['progress']}", rows(figures))
    click.echo(f"pictures and inspect.json: {folder}")


def rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """The rows of the printed table, from the figures of `inspect_run`."""
    return [*(_judged(figures) if "value" in figures else ()),
            *(_scorer(figures["scorer"]) if "scorer" in figures else ()),
            *(_temperature(figures["fitted_temperature"]) if "fitted_temperature" in figures else ()),
            *(_student(figures["student"]) if "student" in figures else ()),
            *(_losses(figures["losses"]) if "losses" in figures else ())]


def _temperature(fitted: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "selection temperature auto", (
        f"{fitted['temperature']:.3g}, the noise of log weights within {fitted['states']:,} states, by "
        f"{fitted['sampler']} at guidance scale {fitted['guidance_scale']:g}")


def _student(figures: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "pairs" in figures:
        action, weight = figures["action"], figures["weight"]
        yield "student and teacher", f"{figures['pairs']:,} pairs, from {figures['from']}"
        yield "student's action", f"error {action['error']:.3g} of {action['spread']:.3g}"
        yield "student's weight", (f"error {weight['error']:.3g} of {weight['spread']:.3g}, correlation "
                                   f"{_number(weight['correlation'])}")
    if "note" in figures:
        yield "student against teacher", figures["note"]


def _scorer(figures: dict[str, Any]) -> Iterator[tuple[str, str]]:
    interval = figures["interval"]
    low_high = f" [{interval['low']:.3f}, {interval['high']:.3f}]" if interval else ""
    yield "score and judge", (f"rank correlation {_number(figures['rank_correlation'])}{low_high} within a "
                              f"state; the judge's two networks {_number(figures['judge_agreement'])}")
    yield "score", (f"signal to noise {figures['signal_to_noise']:.3f}, which supports N = "
                    f"{figures['supported']:.1f} by theory")
    yield f"kept by {figures['settings']['select']}", ", ".join(
        f"{each['mean']:+.2f} of {int(n):,}" for n, each in figures["kept"].items())
    yield "enough by the judge", f"N = {figures['enough']:,}"


def _losses(figures: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for phase, line in figures.items():
        losses = (f"{key.split('/')[1].replace('_', ' ')} {_number(value, '.3g')}"
                  for key, value in line.items() if key.endswith("_loss"))
        yield f"{phase} at step {line['step']:,}", ", ".join(losses)


def _judged(figures: dict[str, Any]) -> list[tuple[str, str]]:
    value, advantage = figures["value"], figures["advantages"]
    table = [("transitions", f"{figures['transitions']:,}"),
             ("V", f"{value['mean']:.3g} +- {value['std']:.3g}, {value['min']:.3g} to {value['max']:.3g}"),
             ("V and return to go", _returns(value, figures["discount"])),
             ("advantages", f"{advantage['mean']:.3g} +- {advantage['std']:.3g}, "
                            f"{advantage['positive']:.1%} positive")]
    maze = figures.get("maze")
    if maze and maze["rewarded_steps"]:
        table += [
            ("places joined to the goal", f"{maze['joined']:.1%} of {maze['places']}, the farthest "
                                          f"{_number(maze['farthest_metres'], '.0f')} m away"),
            ("V and nearness", f"rank correlation {_number(maze['rank_correlation'])}, of the far half "
                               f"{_number(maze['rank_correlation_far'])}"),
            ("V rises towards the goal", f"at {_number(maze['uphill'], '.1%')} of the places, of the far "
                                         f"half {_number(maze['uphill_far'], '.1%')}")]
    elif maze:
        table.append(("maze", "no recorded step is rewarded"))
    for scale, found in figures.get("weights", {}).items():
        if isinstance(found, dict):
            share, interval = found["positive"], found["interval"]
            low_high = f" [{interval['low']:.3f}, {interval['high']:.3f}]" if interval else ""
            table += [
                (f"weight and advantage, {scale}",
                 f"rank correlation {_number(found['rank_correlation'])}{low_high} over "
                 f"{figures['weights']['n_states']} states ({figures['weights']['states']})"),
                (f"better than V, {scale}",
                 f"{share['candidates']:.1%} of all candidates; the highest weight in "
                 f"{share['highest_weight']:.1%} of the states, an oracle in {share['oracle']:.1%}")]
    for each in figures.get("critics", []):
        found = each.get("maze", {})
        table.append((f"critic at step {each['step']:,}",
                      f"V {each['value']['min']:.3g} to {each['value']['max']:.3g}; V and nearness "
                      f"{_number(found.get('rank_correlation'))}, of the far half "
                      f"{_number(found.get('rank_correlation_far'))}"))
    return table


def _returns(value: dict[str, Any], discount: float) -> str:
    if not value["known_returns"]:
        return (f"no return is known: the recordings stop before discount {discount:g} has counted out; a "
                "smaller one sees them")
    return (f"rank correlation {_number(value['rank_correlation'])}, mean difference "
            f"{_number(value['mean_minus_return'])} over {value['known_returns']:,} states")


def _number(x: float | None, form: str = ".3f") -> str:
    return "-" if x is None else format(x, form)
