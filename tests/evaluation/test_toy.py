"""The toy check's parts, and a short run of it."""

from __future__ import annotations

import numpy as np
import pytest

from swg_fast import UsageError
from swg_fast.evaluation.toy import DATASETS, energy, plot_toy, run_toy, sliced_wasserstein

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", DATASETS)
def test_data_lies_in_the_square(name):
    x = DATASETS[name](np.random.default_rng(0), 5000)
    assert x.shape == (5000, 2) and np.abs(x).max() < 1.2
    assert (np.abs(x) > 1).mean() < 0.02
    e = energy(x)
    assert (e >= 0).all() and (e <= 3).all() and e.std() > 0.2


def test_sliced_wasserstein_of_a_shift():
    """A shift by d costs |d . direction| on each line: 2 |d| / pi on average."""
    a = np.random.default_rng(0).standard_normal((2000, 2))
    assert sliced_wasserstein(a, a + [0.3, 0.4]) == pytest.approx(2 * 0.5 / np.pi, rel=1e-3)


def test_guidance_moves_samples_to_the_target(tmp_path):
    """A twentieth of the real check's training must halve the distance, in 5 solver steps and in all
    steps."""
    result = run_toy("gaussians8", steps=600, batch=256, hidden_dim=64, samples=4000, progress=False,
                     sampler="dpmpp_2m_sde", sampler_steps=[15, 5])
    assert list(result.by_steps) == [5, 15] and result.distances is result.by_steps[15]
    for d in result.by_steps.values():
        assert d["guided_to_target"] < 0.5 * d["unguided_to_target"]
    plot_toy("gaussians8", result, tmp_path / "toy.png")
    assert (tmp_path / "toy.png").stat().st_size > 20_000


def test_a_walk_that_cannot_be_is_named_before_the_training():
    with pytest.raises(UsageError, match="1..15"):
        run_toy("spiral", sampler="ddim", sampler_steps=[4, 16])
    with pytest.raises(UsageError, match="walks all 15"):
        run_toy("spiral", sampler_steps=[6])
