"""Pictures of Ant Maze and films of an episode, read from their files."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from swg_fast import UsageError
from swg_fast.envs import make_env
from swg_fast.envs.source import EnvSource
from swg_fast.evaluation.episodes import Episode
from swg_fast.evaluation.video import record_video, replay

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def env():
    made = make_env("antmaze-umaze-v2")
    made.reset(0)
    try:
        made.render(32, 32)
    except UsageError as error:
        pytest.skip(str(error))
    return made


def yellow(picture):
    """Pixels of the goal's mark, [n, 2]."""
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    return np.argwhere((red > 120) & (green > 0.8 * red) & (blue < 0.6 * red))


def test_the_camera_follows_the_ant_and_shows_the_goal(env):
    env.reset(0)
    for place in ((0.0, 0.0), (8.0, 4.0), (8.0, 8.0)):
        env.core.set_xy(np.array(place))
        env.core.set_target_goal(np.array(place) + [1.5, 0.0])
        picture = env.render(160, 160)
        mark = yellow(picture)
        assert len(mark) > 15
        # 1.5 m beside the ant, which is in the middle of a view some 14 m wide.
        assert 80 < mark[:, 1].mean() < 110 and 60 < mark[:, 0].mean() < 90


@pytest.mark.parametrize("name", ["v.mp4", "v.gif"])
def test_frames_are_those_of_the_file(env, tmp_path, name):
    imageio = pytest.importorskip("imageio.v3")
    actions = list(np.random.default_rng(0).uniform(-1, 1, (7, 8)))
    result = SimpleNamespace(task="antmaze-umaze-v2", source=EnvSource("antmaze-umaze-v2"),
                             settings={"seed": 0}, episodes=[Episode(0, actions=actions)])
    frames = record_video(result, tmp_path / name, every=3, progress=False)
    assert frames == len(imageio.imread(tmp_path / name)) == 4  # steps 0, 3, 6 and the last
    assert list(replay(result, 3)) == [0, 4, 7]
