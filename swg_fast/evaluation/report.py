"""What a person sees of a result: tables, JSON with versions, and pictures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from swg_fast.common.atomic_files import replacing
from swg_fast.common.console import versions
from swg_fast.common.intervals import Interval, interval_text
from swg_fast.evaluation.episodes import Evaluation, Score

REACHED, MISSED, WALL = "#0072b2", "#d55e00", "#8c8c8c"  # Okabe-Ito, told apart by everyone


def evaluation_json(result: Evaluation, policy_name: str, device: str) -> dict[str, Any]:
    """The JSON of an evaluation. ``device`` is what the sampler's is called (`limits.device_name`)."""
    return {
        "task": result.task,
        "policy": policy_name,
        "score": result.pooled.mean,
        "score_name": result.score_name,
        "normalized_score": result.normalized_score,
        "interval": _interval_json(result.pooled),
        "per_seed": [{"seed": score.seed, "episodes": len(score.scores), "score": score.mean,
                      "interval": _interval_json(score)} for score in result.per_seed],
        "returns": [episode.total_reward for episode in result.episodes],
        "episode_successes": [episode.success for episode in result.episodes],
        "episode_lengths": [episode.length for episode in result.episodes],
        "candidates_per_second": result.candidates / max(result.seconds["sampling"], 1e-9),
        "env_steps_per_second": result.env_steps / max(
            result.seconds["total"] - result.seconds["start"], 1e-9),
        "seconds": {k: round(v, 3) for k, v in result.seconds.items()},
        "settings": result.settings,
        "device": device,
        "simulator": result.simulator,
        "versions": versions(),
    }


def _interval_json(score: Score) -> dict[str, Any] | None:
    return None if score.interval is None else asdict(score.interval)


def evaluation_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The rows of an evaluation's table, from its JSON."""
    returns, lengths, settings = summary["returns"], summary["episode_lengths"], summary["settings"]
    several = len(summary["per_seed"]) if len(summary["per_seed"]) > 1 else 0
    return [
        ("policy", summary["policy"]),
        ("candidates per step", str(settings["n_candidates"])),
        ("guidance scale", f"{settings['guidance_scale']:g}"),
        ("temperature", f"{settings['temperature']:g}"),
        ("selection", settings["select"]),
        ("episodes", str(len(returns))),
        *([("mean return", f"{np.mean(returns):.3f}")] if summary["score_name"] != "mean return" else []),
        ("mean episode length", f"{np.mean(lengths):.0f} steps"),
        *((f"seed {one['seed']}", _score_text(one)) for one in summary["per_seed"][:several]),
        (summary["score_name"], _score_text(summary | {"episodes": len(returns)})),
        ("sampling", f"{summary['candidates_per_second']:,.0f} candidates/s, "
                     f"backend {settings['backend']}"),
        ("environment", f"{summary['env_steps_per_second']:,.0f} steps/s"),
        ("simulator", f"{summary['simulator']['name']} {summary['simulator']['version']}, contacts "
                      f"{summary['simulator']['contacts']}"),
        ("environment by", summary["simulator"]["environment"]),
    ]


def _score_text(part: dict[str, Any]) -> str:
    interval = None if part["interval"] is None else Interval(**part["interval"])
    return interval_text(part["score"], interval, part["episodes"])


def plot_episodes(result: Evaluation, path: str | Path) -> None:
    """Ant Maze from above: walls, every episode's path, start and goal. Elsewhere the returns.

    A picture of returns has a strip of frames of episode 0 below it.
    """
    from matplotlib.figure import Figure

    from swg_fast.evaluation.plot_returns import draw_returns

    figure = Figure(figsize=(7, 6.4), layout="constrained")
    if result.maze is None:
        axes = draw_returns(figure, result)
    else:
        axes = figure.add_subplot()
        _draw_maze(axes, result)
    rho, n = result.settings["guidance_scale"], result.settings["n_candidates"]
    score = interval_text(result.pooled.mean, result.pooled.interval, len(result.episodes))
    axes.set_title(f"{result.task}: {n} candidates per step, guidance scale {rho:g}\n"
                   f"{result.score_name} {score}", fontsize=11)
    with replacing(path, ".png") as temporary:
        figure.savefig(temporary, dpi=130)


def _draw_maze(axes: Any, result: Evaluation) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    maze = result.maze
    assert maze is not None  # who calls has seen to it
    for x, y in maze.walls:
        axes.add_patch(Rectangle((x - maze.size / 2, y - maze.size / 2), maze.size, maze.size,
                                 color=WALL, linewidth=0))
    reached = 0
    for episode in result.episodes:
        path = np.array(episode.path)
        success = episode.total_reward > 0 if episode.success is None else episode.success
        reached += success
        axes.plot(path[:, 0], path[:, 1], color=REACHED if success else MISSED, alpha=0.55,
                  linewidth=1.3, linestyle="-" if success else "--")
        axes.plot(*path[0], "o", color="black", markersize=4)
        if episode.goal is not None:
            axes.plot(*episode.goal, "*", color="#f0e442", markeredgecolor="black", markersize=13)
    low, high = maze.walls.min(axis=0) - maze.size / 2, maze.walls.max(axis=0) + maze.size / 2
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", xlabel="x (m)",
             ylabel="y (m)")
    missed = len(result.episodes) - reached
    axes.legend(handles=[
        Line2D([], [], color=REACHED, label=f"reached the goal ({reached})"),
        Line2D([], [], color=MISSED, linestyle="--", label=f"did not ({missed})"),
        Line2D([], [], color="black", marker="o", linestyle="", label="start"),
        Line2D([], [], color="#f0e442", marker="*", markeredgecolor="black", markersize=12,
               linestyle="", label="goal"),
    ], loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=4, frameon=False, fontsize=9)
