"""Pictures or a video of an evaluation's episode 0, played again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swg_fast.common.atomic_files import replacing
from swg_fast.common.optional_packages import check, need
from swg_fast.common.seeds import stream_seed
from swg_fast.envs.registry import make_env
from swg_fast.evaluation.episodes import Evaluation

FRAMES_PER_SECOND = 25


def _pictures(result: Evaluation, wanted: Any) -> Iterator[tuple[int, np.ndarray]]:
    """(step, picture [H, W, 3]) of episode 0 for the steps where ``wanted`` (step) is true."""
    env = result.source.make()
    env.reset(stream_seed(result.settings["seed"], "episode", 0) & 0xFFFFFFFF)
    actions = result.episodes[0].actions
    for step in range(len(actions) + 1):
        if step:
            env.step(actions[step - 1])
        if wanted(step):
            yield step, env.render()


def replay(result: Evaluation, count: int = 6) -> dict[int, np.ndarray]:
    """``count`` pictures [H, W, 3] of episode 0 by step, evenly from its start to its end.

    Raises `UsageError` where this machine cannot draw.
    """
    steps = set(np.linspace(0, len(result.episodes[0].actions), count).round().astype(int).tolist())
    return dict(_pictures(result, steps.__contains__))


def check_video(path: str | Path, task: str | None = None, trust: Sequence[str] = ()) -> None:
    """Raises `UsageError` where the package that writes ``path`` (.mp4 or .gif) is not installed, or where
    this machine cannot draw ``task``."""
    check("imageio", f"writing {path}")
    if Path(path).suffix.lower() != ".gif":
        check("imageio_ffmpeg", f"writing {path}")
    if task is not None:
        env = make_env(task, trust=trust)
        env.reset(0)
        env.render()


def record_video(result: Evaluation, path: str | Path, every: int = 4, progress: bool = True) -> int:
    """Writes a video (.mp4 or .gif) of episode 0 with each ``every``-th step and the last; returns its number
    of frames.

    Raises `UsageError` where this machine cannot draw or encode.
    """
    from tqdm import tqdm

    check_video(path)
    imageio = need("imageio.v2", "a video")
    last = len(result.episodes[0].actions)
    pictures = _pictures(result, lambda step: step % every == 0 or step == last)
    with replacing(path, ".mp4") as temporary:
        gif = temporary.suffix.lower() == ".gif"
        options = {"duration": 1000 / FRAMES_PER_SECOND, "loop": 0} if gif else {"fps": FRAMES_PER_SECOND}
        with imageio.get_writer(temporary, **options) as writer:
            count = -(-last // every) + 1
            for _, picture in tqdm(pictures, "video", count, unit="frame", disable=not progress):
                writer.append_data(picture)
        with imageio.get_reader(temporary) as reader:
            return int(reader.get_length() if gif else reader.count_frames())
