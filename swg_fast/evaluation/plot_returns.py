"""The picture of an evaluation outside a maze: returns over time, and a strip of frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from swg_fast.common.errors import UsageError

if TYPE_CHECKING:
    from swg_fast.evaluation.episodes import Evaluation

EPISODE, MEAN = "#0072b2", "#000000"


def draw_returns(figure: Any, result: Evaluation) -> Any:
    """Draws into ``figure``; returns the axes that take the title."""
    from swg_fast.evaluation.video import replay

    top, strip = figure.subfigures(2, 1, height_ratios=[3.2, 1.4])
    axes = top.add_subplot()
    longest = max(episode.length for episode in result.episodes)
    sums = np.full((len(result.episodes), longest + 1), np.nan)
    for row, episode in zip(sums, result.episodes, strict=True):
        row[: episode.length + 1] = np.concatenate([[0.0], np.cumsum(episode.rewards)])
        row[episode.length + 1:] = episode.total_reward  # an episode that ended earns no more
        axes.plot(row[: episode.length + 1], color=EPISODE, alpha=0.4, linewidth=1)
        axes.plot(episode.length, episode.total_reward, "o", color=EPISODE, markersize=4)
    axes.plot(sums.mean(axis=0), color=MEAN, linewidth=1.8)
    axes.plot([], [], color=EPISODE, marker="o", markersize=4, label="one episode, to its end")
    axes.plot([], [], color=MEAN, label="mean of all")
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
