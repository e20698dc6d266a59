"""Schedules and weight functions: closed forms, limits, and clear errors."""

from __future__ import annotations

import math

import pytest
import torch

from swg_fast.common.errors import UsageError
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.method.weight_functions import WEIGHT_FUNCTIONS, compute_weights


@pytest.mark.parametrize("name", ["vp", "cosine", "linear"])
@pytest.mark.parametrize("T", [1, 5, 15, 100])
def test_schedules_are_schedules(name, T):
    s = NoiseSchedule.by_name(name, T)
    assert s.num_steps == T == len(s.alphas) == len(s.alphas_cumprod)
    assert torch.allclose(s.alphas + s.betas, torch.ones(T, dtype=torch.float64))
    assert torch.allclose(s.alphas_cumprod, s.alphas.cumprod(0))
    assert (s.betas > 0).all() and (s.betas < 1).all()


def test_vp_closed_form():
    s = NoiseSchedule.vp(15)
    assert float(s.alphas[0]) == pytest.approx(math.exp(-0.1 / 15 - 0.5 * 9.9 / 225))
    # The exponents sum to -0.1 - 9.9 / 2, whatever T.
    assert float(s.alphas_cumprod[-1]) == pytest.approx(math.exp(-5.05))


@pytest.mark.parametrize("make", [lambda: NoiseSchedule.vp(0), lambda: NoiseSchedule.by_name("x", 5),
                                  lambda: NoiseSchedule("x", torch.tensor([0.5, 1.5]))])
def test_bad_schedules(make):
    with pytest.raises(UsageError):
        make()


U = torch.tensor([-1000.0, -2.0, -0.5, 0.0, 0.5, 2.0, 1000.0])


@pytest.mark.parametrize("name", WEIGHT_FUNCTIONS)
def test_weights_are_finite_and_not_negative_everywhere(name):
    w = compute_weights(U, name)
    assert w.shape == U.shape and w.dtype == U.dtype
    assert torch.isfinite(w).all() and (w >= 0).all()


def test_weight_values():
    u = torch.tensor([-0.5, 0.0, 0.5], dtype=torch.float64)
    near = lambda name, p, expected: torch.testing.assert_close(  # noqa: E731
        compute_weights(u, name, p), torch.tensor(expected, dtype=torch.float64))
    near("expectile", 0.9, [0.1, 0.1, 0.9])
    near("exponential", 3.0, [math.exp(-1.5), 1.0, math.exp(1.5)])
    near("linex", 2.0, [2 * (1 - math.exp(-1)) / 0.5, 4.0, 2 * (math.e - 1) / 0.5])
    near("quantile", 0.9, [0.2, 0.1 / 1e-6, 1.8])
    s = 1 / (1 + math.exp(-1.5))
    near("smooth_expectile", 0.9, [(1 - s) * 0.9 + s * 0.1, 0.5, s * 0.9 + (1 - s) * 0.1])
    near("dice", None, [math.exp(-0.5 / 0.6), 1.0, 0.5 / 0.6 / 2 + 1])


def test_weight_clips():
    assert compute_weights(torch.tensor([100.0]), "exponential").item() == pytest.approx(80)
    assert compute_weights(torch.tensor([-100.0]), "exponential").item() == pytest.approx(1e-3)
    assert compute_weights(torch.tensor([1e6]), "dice").item() == 100


def test_linex_is_continuous_at_its_limit():
    u = torch.tensor([0.0, 1e-7, -1e-7])
    torch.testing.assert_close(compute_weights(u, "linex", 3.0), torch.full((3,), 9.0))


def test_rescaled_weights_span_zero_to_one():
    w = compute_weights(torch.linspace(-1, 1, 11), "exponential", rescale=True)
    assert w.min() == 0 and w.max() == 1


@pytest.mark.parametrize("arguments,word", [
    (("nothing",), "unknown"), (("expectile", 1.5), "tau"), (("linex", -1.0), "alpha")])
def test_bad_weight_settings(arguments, word):
    with pytest.raises(UsageError, match=word):
        compute_weights(U, *arguments)


def test_non_finite_advantages_are_rejected():
    with pytest.raises(UsageError, match="not finite"):
        compute_weights(torch.tensor([0.0, float("nan")]), "exponential")
