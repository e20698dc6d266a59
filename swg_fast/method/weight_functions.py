"""Weight functions w(u) of the advantage u = min(Q1, Q2) - V (SWG, table of section 4).

To add one, write a function of (u, its hyper-parameter) and add a line to `WEIGHT_FUNCTIONS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from swg_fast.common.checks import choice, number
from swg_fast.common.errors import UsageError

Parameter = float | torch.Tensor  # tau or alpha: one number, or a tensor that broadcasts with advantages


def expectile(u: torch.Tensor, tau: Parameter) -> torch.Tensor:
    """tau for a positive advantage, 1 - tau otherwise."""
    return torch.where(u > 0, tau, 1.0 - tau).to(u.dtype)


def exponential(u: torch.Tensor, alpha: Parameter) -> torch.Tensor:
    """exp(alpha u), clipped to [1e-3, 80]; the exponent is clipped, so that it cannot overflow."""
    return torch.exp((alpha * u).clamp(math.log(1e-3), math.log(80.0)))


def linex(u: torch.Tensor, alpha: Parameter) -> torch.Tensor:
    """alpha |exp(alpha u) - 1| / |u|, with its limit alpha**2 at u = 0.

    The exponent is capped so that the value stays finite in its type.
    """
    top = math.log(torch.finfo(u.dtype).max) - 8.0
    safe = torch.where(u == 0, torch.ones_like(u), u)
    weight = alpha * torch.expm1((alpha * safe).clamp(max=top)).abs() / safe.abs()
    return torch.where(u == 0, alpha * alpha * torch.ones_like(u), weight)


def quantile(u: torch.Tensor, tau: Parameter) -> torch.Tensor:
    """(tau or 1 - tau) / |u|; |u| below 1e-6 counts as 1e-6, since the weight has no limit at 0."""
    return expectile(u, tau) / u.abs().clamp(min=1e-6)


def smooth_expectile(u: torch.Tensor, tau: Parameter) -> torch.Tensor:
    """The expectile weight with a sigmoid of slope 3 instead of the step."""
    s = torch.sigmoid(3.0 * u)
    return s * tau + (1.0 - s) * (1.0 - tau)


def dice(u: torch.Tensor, _: Parameter = 0.0) -> torch.Tensor:
    """v = u / 0.6: v / 2 + 1 above zero, exp(v) below; clipped to [1e-40, 100]."""
    v = u / 0.6
    return torch.where(v >= 0, v / 2 + 1, torch.exp(v.clamp(max=0.0))).clamp(1e-40, 100.0)


@dataclass(frozen=True)
class WeightFunction:
    function: Callable[[torch.Tensor, Parameter], torch.Tensor]
    parameter: str  # "tau", "alpha" or "" for no parameter
    default: float


WEIGHT_FUNCTIONS: dict[str, WeightFunction] = {
    "expectile": WeightFunction(expectile, "tau", 0.7),
    "exponential": WeightFunction(exponential, "alpha", 3.0),
    "linex": WeightFunction(linex, "alpha", 1.0),
    "quantile": WeightFunction(quantile, "tau", 0.7),
    "smooth_expectile": WeightFunction(smooth_expectile, "tau", 0.7),
    "dice": WeightFunction(dice, "", 0.0),
}


def check_weight_function(name: str, parameter: float | None = None) -> float:
    """The parameter for ``name``: ``parameter``, or the default for None.

    Raises `UsageError` for an unknown name, a tau outside (0, 1), an alpha <= 0, a parameter for a function
    without one, and a parameter whose weights overflow float32 for advantages up to a million.
    """
    entry = WEIGHT_FUNCTIONS[choice("weight function", name, WEIGHT_FUNCTIONS)]
    if parameter is None:
        return entry.default
    if not entry.parameter:
        raise UsageError(f"weight function {name!r} has no parameter; leave it out")
    value = number(f"weight function {name!r}: {entry.parameter}", parameter, above=0.0,
                   **{"below": 1.0} if entry.parameter == "tau" else {"high": 1e15})
    size = torch.logspace(-6, 6, 121, dtype=torch.float32, device="cpu")
    if not bool(entry.function(torch.cat([-size, size.new_zeros(1), size]), value).isfinite().all()):
        raise UsageError(f"weight function {name!r}: {entry.parameter} {value:g} makes weights beyond "
                         "float32; use a smaller one")
    return value


def compute_weights(
    advantages: torch.Tensor,
    name: str = "expectile",
    parameter: float | None = None,
    *,
    rescale: bool = False,
) -> torch.Tensor:
    """Weights [N] of advantages [N]; ``rescale`` maps them linearly onto [0, 1].

    Raises `UsageError` for an unknown name, a tau outside (0, 1), an alpha <= 0, or weights that are not
    finite (which never reach a training set).
    """
    value = check_weight_function(name, parameter)
    check_advantages(advantages)
    weights = WEIGHT_FUNCTIONS[name].function(advantages, value)
    bad = int((~torch.isfinite(weights)).sum())
    if bad:
        raise UsageError(
            f"{bad} of {weights.numel()} {name} weights are not finite; check that the critic's "
            "values are finite, or use a smaller alpha"
        )
    if rescale:
        low, high = weights.min(), weights.max()
        weights = (weights - low) / (high - low).clamp(min=torch.finfo(weights.dtype).tiny)
    return weights


def check_advantages(advantages: torch.Tensor) -> None:
    """Raises `UsageError` unless ``advantages`` is a tensor of finite floating-point numbers."""
    if not torch.is_tensor(advantages) or not advantages.is_floating_point():
        raise UsageError("advantages must be a tensor of floating point")
    bad = int((~torch.isfinite(advantages)).sum())
    if bad:
        raise UsageError(f"{bad} of {advantages.numel()} advantages are not finite; the critic has "
                         "diverged, train it with a lower critic_lr")
