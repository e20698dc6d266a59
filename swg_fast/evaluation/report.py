"""An evaluation's result as JSON, table and picture."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from swg_fast.common.errors import UsageError
from swg_fast.common.figures import new_figure, save_figure
from swg_fast.common.intervals import Interval, interval_text
from swg_fast.envs.base import Maze
from swg_fast.evaluation.episodes import Evaluation, Score
from swg_fast.evaluation.video import replay
from swg_fast.policy.sampling import SamplingConfig

REACHED, MISSED, WALL = "#0072b2", "#d55e00", "#8c8c8c"  # Okabe-Ito, readable by the colour-blind


def evaluation_json(result: Evaluation, policy_name: str) -> dict[str, Any]:
    """The JSON of an evaluation, but for its provenance."""
    return {
        "task": result.task,
        "policy": policy_name,
        "score": result.pooled.mean,
        "score_name": result.score_name,
        "normalized_score": result.normalized_score,
        "interval": _interval_json(result.pooled),
        "per_seed": [{"seed": score.seed, "episodes": len(score.scores), "score": score.mean,
                      "interval": _interval_json(score)} for score in result.per_seed],
        "scores": result.pooled.scores,
        "returns": [episode.total_reward for episode in result.episodes],
        "episode_successes": [episode.success for episode in result.episodes],
        "episode_lengths": [episode.length for episode in result.episodes],
        "candidates_per_second": result.candidates / max(result.seconds["sampling"], 1e-9),
        "success_rate": result.success_rate,
        "environment_steps_per_second": result.env_steps / max(result.seconds["environments"], 1e-9),
        "env_steps_per_second": result.env_steps / max(
            result.seconds["total"] - result.seconds["start"], 1e-9),
        "seconds": {k: round(v, 3) for k, v in result.seconds.items()},
        "settings": result.settings,
        "simulator": result.simulator,
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
        ("selection", SamplingConfig(n_candidates=settings["n_candidates"], select=settings["select"],
                                     average_share=settings["average_share"]).choice),
        ("episodes", str(len(returns))),
        *([("mean return", f"{np.mean(returns):.3f}")] if summary["score_name"] != "mean return" else []),
        ("mean episode length", f"{np.mean(lengths):.0f} steps"),
        *((f"seed {one['seed']}", _score_text(one)) for one in summary["per_seed"][:several]),
        *([("success", f"{100 * summary['success_rate']:.0f} %")] if summary["success_rate"] is not None
          and "success" not in summary["score_name"] else []),
        (summary["score_name"], _score_text(summary | {"episodes": len(returns)})),
        ("sampling", f"{summary['candidates_per_second']:,.0f} candidates/s, "
                     f"backend {settings['backend']}"),
        ("environment", f"{summary['environment_steps_per_second']:,.0f} steps/s in a process of its own; "
                        f"{summary['env_steps_per_second']:,.0f} steps/s with sampling, all together"),
        ("simulator", f"{summary['simulator']['name']} {summary['simulator']['version']}, contacts "
                      f"{summary['simulator']['contacts']}"),
        ("environment by", summary["simulator"]["environment"]),
    ]


def _score_text(part: dict[str, Any]) -> str:
    interval = None if part["interval"] is None else Interval(**part["interval"])
    return interval_text(part["score"], interval, part["episodes"])


def plot_episodes(result: Evaluation, path: str | Path) -> None:
    """Draws a maze from above with every episode's path, start and goal; elsewhere the returns over time,
    with frames of episode 0 below."""
    figure = new_figure(7, 6.4)
    if result.maze is None:
        axes = _draw_returns(figure, result)
    else:
        axes = figure.add_subplot()
        _draw_maze(axes, result, result.maze)
    rho, n = result.settings["guidance_scale"], result.settings["n_candidates"]
    score = interval_text(result.pooled.mean, result.pooled.interval, len(result.episodes))
    axes.set_title(f"{result.task}: {n} candidates per step, guidance scale {rho:g}\n"
                   f"{result.score_name} {score}", fontsize=11)
    save_figure(figure, path)


def draw_walls(axes: Any, maze: Maze, **style: Any) -> None:
    """The walls of ``maze`` as squares; ``style`` are keywords of matplotlib's `Rectangle`."""
    from matplotlib.patches import Rectangle

    for x, y in maze.walls:
        axes.add_patch(Rectangle((x - maze.size / 2, y - maze.size / 2), maze.size, maze.size, color=WALL,
                                 linewidth=0, **style))


def _draw_maze(axes: Any, result: Evaluation, maze: Maze) -> None:
    from matplotlib.lines import Line2D

    draw_walls(axes, maze)
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


def _draw_returns(figure: Any, result: Evaluation) -> Any:
    """Draws into ``figure``; returns the axes that take the title."""
    top, strip = figure.subfigures(2, 1, height_ratios=[3.2, 1.4])
    axes = top.add_subplot()
    longest = max(episode.length for episode in result.episodes)
    sums = np.full((len(result.episodes), longest + 1), np.nan)
    for row, episode in zip(sums, result.episodes, strict=True):
        row[: episode.length + 1] = np.concatenate([[0.0], np.cumsum(episode.rewards)])
        row[episode.length + 1:] = episode.total_reward  # an episode that ended earns no more
        axes.plot(row[: episode.length + 1], color=REACHED, alpha=0.4, linewidth=1)
        axes.plot(episode.length, episode.total_reward, "o", color=REACHED, markersize=4)
    axes.plot(sums.mean(axis=0), color="black", linewidth=1.8)
    axes.plot([], [], color=REACHED, marker="o", markersize=4, label="one episode, to its end")
    axes.plot([], [], color="black", label="mean of all")
    axes.set(xlabel="step", ylabel="return so far")
    axes.legend(loc="best", frameon=False)
    try:
        frames = replay(result)
    except UsageError as error:
        strip.text(0.5, 0.5, f"no frames: {error}", ha="center", va="center", wrap=True, fontsize=8)
        return axes
    pictures = strip.subplots(1, len(frames), squeeze=False)[0]
    for picture, (step, frame) in zip(pictures, frames.items(), strict=True):
        picture.imshow(frame)
        picture.set_axis_off()
        picture.set_title(f"{step}", fontsize=8)
    strip.suptitle("episode 0, at step", fontsize=9)
    return axes
