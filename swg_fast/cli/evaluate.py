"""The command ``swg-fast evaluate``. Its options of sampling are made from `policy.sampling`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from swg_fast.cli.options import PATH, SEED, own_default, with_options
from swg_fast.common.errors import UsageError
from swg_fast.envs.settings import EnvSettings
from swg_fast.evaluation.counts import MAX_SEEDS, EpisodeCounts
from swg_fast.policy.sampling import PRESETS, Execution, SamplingConfig

Record = TypeVar("Record")


def entries() -> Iterator[tuple[Field, str]]:
    """The fields of an evaluation and its search, and what stands in where one is left out."""
    for entry in (*fields(EpisodeCounts), *fields(EnvSettings)):
        yield entry, own_default(entry)
    for entry in fields(SamplingConfig):
        yield entry, "the policy's"
    for entry in fields(Execution):
        yield entry, "the policy's" if entry.name == "dtype" else own_default(entry)


@dataclass(frozen=True)
class Outputs:
    """What an evaluation writes, and where."""

    json: Path | None
    plot: Path | None
    video: Path | None

    def check(self, task: str, trust: Sequence[str]) -> None:
        """`UsageError` where one cannot be written."""
        from swg_fast.common.output_paths import check_outputs
        from swg_fast.evaluation.video import check_video

        check_outputs(json=self.json, plot=self.plot, video=self.video)
        if self.video is not None:
            check_video(self.video, task, trust)


@click.command(cls=with_options(entries))
@click.argument("task")
@click.option("--policy", "policy_name", help="Checkpoint folder or bundled name.  [default: TASK]")
@click.option("--preset", type=click.Choice(list(PRESETS)), help="Sampling settings by one name; those given "
              "below win.")
@SEED
@click.option("--seeds", help="Several evaluation seeds: 0,1,2, or how many from --seed on. Scores are given "
                              "for each and for all.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all]")
@click.option("--json", type=PATH, help="Write the result as JSON.")
@click.option("--plot", type=PATH, help="Draw every episode's path through the maze, or the returns.")
@click.option("--video", type=PATH, help="Write episode 0 as .mp4 or .gif.")
@click.option("--profile", is_flag=True, help="Say where the time went.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def evaluate(task: str, policy_name: str | None, preset: str | None, device: str, threads: int | None,
             profile: bool, quiet: bool, **options: Any) -> None:
    """Evaluate a policy on TASK and print its score.

    TASK is a D4RL task (antmaze-umaze-v2), a Gymnasium id (Hopper-v5), an OGBench single task
    (antmaze-large-navigate-singletask-v0) or minari:DATASET, in the environment that it was made in.
    """
    from swg_fast.common.atomic_files import write_json
    from swg_fast.common.console import print_table
    from swg_fast.common.hardware import set_threads
    from swg_fast.common.provenance import provenance
    from swg_fast.evaluation import report
    from swg_fast.evaluation.episodes import evaluate as play
    from swg_fast.evaluation.video import record_video

    if threads:
        set_threads(threads)
    options["seed"] = _seeds(options["seed"], options.pop("seeds"))
    outputs = Outputs(*(options.pop(name) for name in ("json", "plot", "video")))
    environment, counts = _popped(EnvSettings, options), _popped(EpisodeCounts, options)
    outputs.check(task, environment.trust)
    policy, name = _load_or_untrained(task, policy_name, device, environment.trust)
    _say_auto(policy, preset, options)
    result = play(policy, task, preset, progress=not quiet, environment=environment, **vars(counts),
                  **options)
    summary = report.evaluation_json(result, name) | {"provenance": provenance(policy.device)}
    if profile:
        summary["profile"] = _profile(task, result, environment)
    if outputs.json is not None:
        write_json(outputs.json, summary)
    print_table(task, report.evaluation_rows(summary))
    if profile:
        print_table("where the time went", summary["profile"]["rows"])
    if outputs.plot is not None:
        report.plot_episodes(result, outputs.plot)
        click.echo(f"picture: {outputs.plot}")
    if outputs.video is not None:
        frames = record_video(result, outputs.video, progress=not quiet)
        click.echo(f"video: {outputs.video} ({frames} frames)")


def _popped(record: type[Record], options: dict[str, Any]) -> Record:
    """The ``record`` of the options that are its fields and were given; takes all of its fields out."""
    given = {entry.name: options.pop(entry.name) for entry in fields(record)}  # type: ignore[arg-type]
    return record(**{name: value for name, value in given.items() if value is not None})


def _say_auto(policy: Any, preset: str | None, options: dict[str, Any]) -> None:
    """What ``auto`` picked for the candidates and for the leaves, where it was asked for."""
    from swg_fast.policy.model_card import JUDGED

    leaves = options["leaves"] or PRESETS.get(preset or "", {}).get("leaves") or policy.config.leaves
    if "auto" not in (leaves, options["n_candidates"]):
        return
    config = policy.settings(preset, **options)
    if options["n_candidates"] == "auto":
        click.echo(f"candidates: auto picked N = {config.n_candidates:,}; more gained nothing by the "
                   f"{policy.card[JUDGED]['judge']}")
    if leaves == "auto":
        roots = config.n_candidates // config.leaves
        click.echo(f"leaves: auto picked {config.leaves} for each of {roots} roots" if config.leaves > 1
                   else f"leaves: auto picked no tree for N = {roots}")


def _seeds(first: int, text: str | None) -> list[int]:
    """"0,1,2" as it stands; "3" as three seeds from ``first`` on."""
    if text is None:
        return [first]
    try:
        found = [int(part) for part in text.split(",") if part]
    except ValueError:
        found = []
    if "," not in text and found:
        found = [first + i for i in range(min(found[0], MAX_SEEDS + 1))]
    if not 1 <= len(found) <= MAX_SEEDS or min(found) < 0 or len(set(found)) < len(found):
        raise UsageError(f"--seeds {text!r}: give different seeds such as 0,1,2, or how many, "
                         f"1 to {MAX_SEEDS:,}")
    return found


def _load_or_untrained(task: str, policy_name: str | None, device: str, trust: Sequence[str]
                       ) -> tuple[Any, str]:
    """The policy and its name. A task without a bundled policy gets an untrained one, and is told."""
    from swg_fast.common.hardware import resolve_device
    from swg_fast.envs import make_env
    from swg_fast.policy.checkpoint import find_checkpoint
    from swg_fast.policy.policy import load_policy, untrained_policy

    resolve_device(device)
    if policy_name is not None:
        return load_policy(policy_name, device), policy_name
    try:
        folder = find_checkpoint(task)
    except UsageError:
        env = make_env(task, trust=trust)
        click.echo(f"no policy is bundled for {task}: using an UNTRAINED network, whose score says "
                   "nothing; give a trained one with --policy", err=True)
        return untrained_policy(env.state_dim, env.action_dim, device), "untrained"
    return load_policy(folder, device), task


def _profile(task: str, result: Any, environment: EnvSettings) -> dict[str, Any]:
    """Where an evaluation's time went, beside what this machine steps with no policy."""
    from swg_fast.evaluation.episodes import free_running_rate

    seconds = result.seconds
    best = free_running_rate(task, result.settings["envs"], result.settings["workers"],
                             settings=environment)
    running = seconds["total"] - seconds["start"]
    rest = running - seconds["sampling"] - seconds["waiting"]
    rate = result.env_steps / running
    share = {k: f"{v:.2f} s, {100 * v / running:.0f} %" for k, v in
             (("sampling", seconds["sampling"]), ("waiting for environments", seconds["waiting"]),
              ("the rest", rest))}
    return {"free_running_env_steps_per_second": best, "env_steps_per_second": rate,
            "rows": [("starting workers", f"{seconds['start']:.2f} s"), *share.items(),
                     ("environment steps", f"{rate:,.0f}/s, {100 * rate / best:.0f} % of the "
                                           f"{best:,.0f}/s that this machine steps with no policy")]}
