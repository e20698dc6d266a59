"""The command line: ``swg-fast``. Every command is a thin layer over a function of the package."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from swg_fast import __version__
from swg_fast.cli import sweep
from swg_fast.cli.data import download
from swg_fast.cli.ending import run
from swg_fast.cli.inspect import inspect
from swg_fast.cli.measure import bench, tune, whole_numbers
from swg_fast.cli.train import train
from swg_fast.common.errors import UsageError
from swg_fast.common.interrupts import install
from swg_fast.common.optional_packages import check

MAX_SEEDS = 1000  # of one evaluation
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="swg-fast")
def cli() -> None:
    """Self-Weighted Guidance for offline RL, with candidates by the thousand."""


class Leaves(click.IntRange):
    """A number from 1 on, or ``auto``."""

    name = "number or auto"

    def __init__(self) -> None:
        super().__init__(min=1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "auto" else super().convert(value, param, ctx)


def sampling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `Policy.sample` that every sampling command shares."""
    own = "[default: the policy's]"
    options = [
        click.option("-n", "--candidates", type=int, help="Candidates per step; one is kept.  " + own),
        click.option("-g", "--guidance-scale", type=float,
                     help="Guidance scale rho; 0 is unguided.  " + own),
        click.option("--temperature", type=float,
                     help="Scale of the noise.  [default: 0 for one candidate, else the policy's]"),
        click.option("--select", type=click.Choice(["max_weight", "expected_weight", "max_q", "softmax",
                                                    "none"]),
                     help="Which candidate is kept.  " + own),
        click.option("--sampler", type=click.Choice(["ddpm", "ddpm_x0", "ddim", "dpmpp_2m", "dpmpp_2m_sde"]),
                     help="ddpm, or a solver, which needs fewer steps.  " + own),
        click.option("--sampler-steps", type=click.IntRange(min=1),
                     help="Steps that a solver walks, of the trained ones.  " + own),
        click.option("--leaves", type=Leaves(),
                     help="Candidates that share a root's first steps; auto: 16 from N = 256 on.  " + own),
        click.option("--branch-after", type=click.IntRange(min=1),
                     help="Steps that the leaves share.  [default: the policy's, else four fifths]"),
        click.option("--keep-share", type=click.FloatRange(0, 1, min_open=True),
                     help="Select from the best share by expected weight.  " + own),
        click.option("--ranking", type=click.Choice(["draws", "ranker", "read"]),
                     help="Where expected weights come from.  " + own),
        click.option("--ranking-draws", type=click.IntRange(min=1),
                     help="Forward passes for an expected weight.  " + own),
        click.option("--ranking-step", type=click.IntRange(min=0),
                     help="Trained step to noise an action to.  [default: the policy's, else T // 5]"),
        click.option("--guidance", metavar="FUNCTION:PARAMETER",
                     help="Of a policy trained with a family of weight functions, which one guides, such as "
                          "expectile:0.9.  " + own),
        click.option("--backend", default="auto", help="auto, or a backend that 'info' lists."),
        click.option("--dtype", help="Compute type: fp32, bf16, ...; auto is the fastest.  " + own),
        click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of everything random."),
    ]
    return functools.reduce(lambda f, option: option(f), reversed(options), command)


@cli.command()
@click.argument("task")
@click.option("--policy", "policy_name", help="Checkpoint folder or bundled name.  [default: TASK]")
@sampling_options
@click.option("--episodes", type=int, default=10, help="Episodes a seed.")
@click.option("--seeds", help="Several evaluation seeds: 0,1,2, or how many from --seed on. Scores are given "
                              "for each and for all.")
@click.option("--envs", type=int, help="Environments at once.  [default: up to 64]")
@click.option("--workers", type=int, help="Worker processes.  [default: one a core]")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "json_path", type=Path, help="Write the result as JSON.")
@click.option("--plot", "plot_path", type=Path, help="Draw every episode's path through the maze.")
@click.option("--video", "video_path", type=Path, help="Write episode 0 as .mp4 or .gif.")
@click.option("--profile", is_flag=True, help="Say where the time went.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def evaluate(task: str, policy_name: str | None, candidates: int | None, episodes: int,
             seeds: str | None, envs: int | None, workers: int | None, device: str, json_path: Path | None,
             plot_path: Path | None, video_path: Path | None, profile: bool, quiet: bool,
             **options: Any) -> None:
    """Evaluate a policy on TASK and print its score.

    TASK is a D4RL task (antmaze-umaze-v2), a Gymnasium id (Hopper-v5), an OGBench single task
    (antmaze-large-navigate-singletask-v0) or minari:DATASET, in the environment that it was made in.
    """
    from swg_fast.common.atomic_files import write_json
    from swg_fast.common.console import print_table
    from swg_fast.common.hardware import device_name
    from swg_fast.common.output_paths import check_outputs
    from swg_fast.evaluation import report
    from swg_fast.evaluation.episodes import check_counts, free_running_rate
    from swg_fast.evaluation.episodes import evaluate as run_episodes
    from swg_fast.evaluation.video import check_video, record_video

    check_outputs(json=json_path, plot=plot_path, video=video_path)
    seed = check_counts(episodes, _seeds(options.pop("seed"), seeds), envs, workers)
    if video_path is not None:
        check_video(video_path, task)
    policy, name = _load_or_untrained(task, policy_name, device)
    sampling = policy.settings(n_candidates=candidates, **options)
    if (options["leaves"] or policy.defaults["leaves"]) == "auto":
        roots = sampling["n_candidates"] // sampling["leaves"]
        click.echo(f"leaves: auto picked {sampling['leaves']} for each of {roots} roots"
                   if sampling["leaves"] > 1 else f"leaves: auto picked no tree for N = {roots}")
    used = policy.backend(sampling["backend"], sampling["dtype"])
    result = run_episodes(policy, task, episodes=episodes, seed=seed, envs=envs,
                                 workers=workers, progress=not quiet, **sampling)
    summary = report.evaluation_json(result, name, f"{used.name} {used.dtype} on {policy.device}",
                                     device_name(policy.device))
    if profile:
        count = result.settings["envs"], result.settings["workers"]
        summary["profile"] = _profile(result, free_running_rate(task, *count))
    if json_path is not None:
        write_json(json_path, summary)
    print_table(task, report.evaluation_rows(summary))
    if profile:
        print_table("where the time went", summary["profile"]["rows"])
    if plot_path is not None:
        report.plot_episodes(result, plot_path)
    if video_path is not None:
        frames = record_video(result, video_path, progress=not quiet)
        click.echo(f"{video_path}: {frames} frames")


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


def _load_or_untrained(task: str, policy_name: str | None, device: str) -> tuple[Any, str]:
    """The policy and its name. A task without a bundled policy gets an untrained one, and is told."""
    import torch

    from swg_fast.common.hardware import resolve_device
    from swg_fast.method.networks import ScoreNetwork
    from swg_fast.method.schedule import NoiseSchedule
    from swg_fast.policy.checkpoint import find_checkpoint
    from swg_fast.policy.policy import Policy, load_policy

    resolve_device(device)
    if policy_name is not None:
        return load_policy(policy_name, device), policy_name
    try:
        folder = find_checkpoint(task)
    except UsageError:
        folder = None
    if folder is None:
        from swg_fast.envs import make_env

        env = make_env(task)
        click.echo(f"no policy is bundled for {task}: using an UNTRAINED network, whose score says "
                   "nothing; give a trained one with --policy", err=True)
        torch.manual_seed(0)
        network = ScoreNetwork(env.state_dim, env.action_dim)
        return Policy(network, NoiseSchedule.vp(15), device=device), "untrained"
    return load_policy(folder, device), task


def _profile(result: Any, best: float) -> dict[str, Any]:
    seconds = result.seconds
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


@cli.command()
@click.argument("name", metavar="spiral|gaussians8|checkerboard|two-moons|rings|swissroll")
@click.option("-g", "--guidance-scale", type=float, default=1.0)
@click.option("--temperature", type=float, default=1.0)
@click.option("--steps", type=click.IntRange(min=1), default=4000, help="Training steps.")
@click.option("--num-steps", type=click.IntRange(min=1), default=15, help="Denoising steps T.")
@click.option("--weight-head", type=click.Choice(["early", "joint"]), default="early")
@click.option("--weight-readout", type=click.Choice(["exact", "official"]), default="exact")
@click.option("--sampler", type=click.Choice(["ddpm", "ddpm_x0", "ddim", "dpmpp_2m", "dpmpp_2m_sde"]),
              default="ddpm")
@click.option("--sampler-steps", help="Steps that a solver walks, one number or several: 4,6,15.  "
                                      "[default: all]")
@click.option("--clip-denoised/--no-clip-denoised", default=True)
@click.option("--schedule", type=click.Choice(["vp", "cosine", "linear"]), default="vp")
@click.option("--seed", type=click.IntRange(min=0), default=0)
@click.option("--json", "json_path", type=Path)
@click.option("--plot", "plot_path", type=Path)
@click.option("--quiet", is_flag=True, help="No progress bar.")
def toy(name: str, sampler_steps: str | None, json_path: Path | None, plot_path: Path | None, quiet: bool,
        **settings: Any) -> None:
    """Check the guidance on 2D data of known weights: do samples follow p(x) w(x)?"""
    from swg_fast.common.atomic_files import write_json
    from swg_fast.common.console import print_table, versions
    from swg_fast.common.output_paths import check_outputs
    from swg_fast.evaluation.toy import plot_toy, run_toy

    check_outputs(json=json_path, plot=plot_path)
    if sampler_steps is not None:
        settings["sampler_steps"] = whole_numbers(sampler_steps, "--sampler-steps", settings["num_steps"])
    result = run_toy(name, progress=not quiet, **settings)
    if json_path is not None:
        write_json(json_path, {"data": name, "settings": settings,
                               "distances": result.distances, "distances_by_steps": result.by_steps,
                               "versions": versions()})
    for count, d in result.by_steps.items():
        print_table(f"{name}: sliced Wasserstein distances, {settings['sampler']} in {count} steps", [
            ("guided samples to the target", f"{d['guided_to_target']:.4f}"),
            ("unguided samples to the target", f"{d['unguided_to_target']:.4f}"),
            ("unguided samples to the data", f"{d['unguided_to_data']:.4f}"),
            ("floor: two draws of the target", f"{d['floor']:.4f}")])
    if plot_path is not None:
        plot_toy(name, result, plot_path)


@cli.command("import-jax")
@click.argument("directory", type=Path)
@click.option("--out", type=Path, required=True, help="Folder of the checkpoint to write.")
@click.option("--schedule", type=click.Choice(["vp", "cosine", "linear"]), default="vp")
@click.option("--num-steps", type=click.IntRange(min=1), default=15, help="Denoising steps T.")
@click.option("--task", help="D4RL task, for the model card.")
def import_jax(directory: Path, out: Path, schedule: str, num_steps: int, task: str | None) -> None:
    """Turn SWG-JAX's actor_params_*.msgpack (and critic, value) below DIRECTORY into a checkpoint."""
    check("msgpack", "'swg-fast import-jax'")
    from swg_fast.common.output_paths import check_folder
    from swg_fast.method.schedule import NoiseSchedule
    from swg_fast.policy.checkpoint import Checkpoint, save_checkpoint
    from swg_fast.policy.swg_jax_import import import_directory

    check_folder(out)
    betas = NoiseSchedule.by_name(schedule, num_steps)
    network, critic, value, files = import_directory(directory)
    card = {"task": task, "imported_from": files}
    save_checkpoint(out, Checkpoint(network, betas, critic, value, card))
    shape = ", ".join(f"{k} {v}" for k, v in network.config().items())
    click.echo(f"{out}: {' and '.join(files)} imported ({shape})")


@cli.command()
@click.option("--no-environments", is_flag=True, help="Leave out the D4RL families (faster).")
def info(no_environments: bool) -> None:
    """Say what this machine has; paste it into a bug report."""
    from swg_fast.cli.machine import machine_report
    from swg_fast.common.console import print_table
    from swg_fast.envs.tasks import presets

    print_table("swg-fast info", machine_report(not no_environments))
    click.echo("tasks: " + ", ".join(presets()))


for command in (train, download, inspect, bench, tune, *sweep.COMMANDS):
    cli.add_command(command)


def main() -> None:
    """Runs the command line; bad input ends in one line and exit code 2."""
    install()
    run(cli)


if __name__ == "__main__":
    main()
