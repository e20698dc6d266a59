"""The kernels' SiLU in bf16 uses an approximate tanh: the error that this adds to bf16's rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

TANH_ERROR = 2.0**-11  # relative, the PTX manual's bound for tanh.approx.f32


def bf16(x: np.ndarray) -> np.ndarray:
    return torch.from_numpy(x).bfloat16().double().numpy()


def silu(u: np.ndarray, t: np.ndarray) -> np.ndarray:
    return u + u * t


def slope(u: np.ndarray, t: np.ndarray) -> np.ndarray:
    return 1 + t + u * (1 - t * t)


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("function", [silu, slope])
@pytest.mark.parametrize("sign", [-1, 1, 0], ids=["low", "high", "either"])
def test_the_approximation_hides_below_the_rounding(function, spread, sign):
    """With tanh at its largest error, always low, always high or at random, the tensor cores' operands have
    hardly more error than rounding to bf16 alone gives."""
    generator = np.random.default_rng(0)
    u = generator.normal(0, spread / 2, 200_000)
    exact, t = function(u, np.tanh(u)), np.tanh(u)
    wrong = t * (1 + TANH_ERROR * (sign or generator.choice([-1, 1], len(u))))
    alone = np.linalg.norm(bf16(exact) - exact)
    assert 0 < alone < 2**-8 * np.linalg.norm(exact)
    assert np.linalg.norm(bf16(function(u, wrong)) - exact) < 1.1 * alone
